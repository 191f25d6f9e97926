"""Owns outcomes.jsonl: one line per outcome, appended and flushed as it happens, read back as the same values.

A line is with the operating system when `append` returns, and on the disk a second later: what a killed process wrote
is kept, and of what a dead machine wrote at most a second is lost. A last line without its end was being written: it is
no outcome. A process that goes on with a run writes the next segment. Where a prompt has outcomes in several segments,
its last segment's count: a failure that was tried again is history.
"""

import os
import threading
import time
from collections.abc import Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from filelock import SoftFileLock, Timeout

from runner import jsonl
from runner.errors import JournalError, TakenError
from runner.records import Completion, ErrorInfo, Failure, Outcome, Timing, Usage
from runner.runfiles import resume_command

FILE_NAME, LOCK_NAME = "outcomes.jsonl", "run.lock"
_SYNC_EVERY_S = 1.0
_LOCK_S = 3.0
"""Until a lock counts as held: longer than a lock without an owner's name in it would have had one."""
_TAIL = 1 << 16


class Journal:
    """The outcomes of one run directory, open for appending, by one process at a time.

    Args:
        directory: the run's.
        resume: go on with a run that has outcomes; without it, a directory that has outcomes is refused.

    Attributes:
        segment: the number that this process's outcomes bear; 0 for a new run.
    """

    def __init__(self, directory: Path, *, resume: bool = False) -> None:
        self._directory, self._path, self._resume = directory, directory / FILE_NAME, resume
        self.segment = 0
        self._file: BinaryIO | None = None
        self._lost: OSError | None = None
        self._unsynced = threading.Event()
        self._at_it = threading.Lock()
        self._closed = threading.Event()
        self._syncing = threading.Thread(target=self._sync_now_and_then, name="journal", daemon=True)
        self._lock = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._lock.enter_context(_only_owner(self._directory))
            self._file = self._reopen() if self._resume else self._path.open("xb", buffering=0)
        except FileExistsError:
            self._lock.close()
            raise TakenError(f"{self._path} exists already: one directory is for one run, choose another") from None
        except OSError as error:
            self._lock.close()
            raise JournalError(f"{self._path} cannot be written: {error.strerror}") from None
        self._syncing.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._close()
        except JournalError:
            if error is None:  # else that is the one to tell
                raise
        finally:
            self._lock.close()

    def _close(self) -> None:
        self._closed.set()
        self._syncing.join()
        if self._file is None:
            return
        file = self._file
        try:
            with file:
                self._sync()
        except OSError as error:  # a network's file system may say only on closing that there is no room
            self._lost = self._lost or error
        finally:
            self._file = None
        self._raise_lost()

    def append(self, outcomes: Sequence[Outcome]) -> None:
        """Write the outcomes of one call through to the operating system, in one piece.

        Raises:
            JournalError: they cannot be kept (disk full, say).
        """
        if self._file is None:
            raise JournalError(f"{self._path} is not open")
        self._raise_lost()
        lines = b"".join(jsonl.encode(to_record(outcome) | {"segment": self.segment}) for outcome in outcomes)
        try:
            written = self._file.write(lines)
        except OSError as error:
            raise self._cannot_keep(f"cannot be written: {error.strerror}.") from None
        if written != len(lines):
            raise self._cannot_keep(f"took {written} of {len(lines)} bytes: is the disk full?")
        self._unsynced.set()

    def sync(self) -> None:
        """Have everything that was appended on the disk.

        Raises:
            JournalError: the disk does not have it, and did not take it before.
        """
        self._sync()
        self._raise_lost()

    def _raise_lost(self) -> None:
        if self._lost is not None:
            raise self._cannot_keep(f"could not be kept on disk: {self._lost.strerror}.")

    def _cannot_keep(self, reason: str) -> JournalError:
        return JournalError(
            f"{self._path} {reason} Nothing more is sent. With room for it, go on: {resume_command(self._directory)}"
        )

    def _reopen(self) -> BinaryIO:
        file = self._path.open("a+b", buffering=0)
        whole = _end_of_last_line(file)
        file.truncate(whole)
        self.segment = _last_segment(self._path) + 1 if whole else 0
        return file

    def _sync_now_and_then(self) -> None:
        while not self._closed.wait(_SYNC_EVERY_S):
            self._sync()

    def _sync(self) -> None:
        with self._at_it:
            if self._file is not None and self._unsynced.is_set():
                self._unsynced.clear()
                try:
                    os.fsync(self._file.fileno())
                except OSError as error:  # for the next append or the end to say: this may be a thread of its own
                    self._lost = error


def read_outcomes(directory: Path) -> Iterator[Outcome]:
    """Yield what became of each prompt, in the order in which it happened; what was tried again later is left out.

    Raises:
        JournalError: a line is not an outcome (named by its number).
    """
    redone = _redone(directory / FILE_NAME)
    for number, record in _records(directory / FILE_NAME):
        outcome = _outcome(directory / FILE_NAME, number, record)
        if redone.get(outcome.prompt_id, 0) <= outcome.segment:
            yield outcome


def read_all_outcomes(directory: Path) -> Iterator[Outcome]:
    """Yield every outcome of the record, in order: those too that were tried again later, for they were paid for.

    Raises:
        JournalError: as for `read_outcomes`.
    """
    for number, record in _records(directory / FILE_NAME):
        yield _outcome(directory / FILE_NAME, number, record)


def read_superseded(directory: Path) -> Iterator[Outcome]:
    """Yield what `read_outcomes` leaves out: it took its time."""
    redone = _redone(directory / FILE_NAME)
    outcomes = read_all_outcomes(directory) if redone else ()
    return (outcome for outcome in outcomes if redone.get(outcome.prompt_id, 0) > outcome.segment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """Which prompts have all their answers, and which have failed."""

    done: Set[str]
    failed: Set[str]


def take_stock(directory: Path, *, choices: int) -> Stock:
    """Return what a run has so far. A prompt is done when `choices` answers of one segment are there."""
    done, failed, begun = set[str](), set[str](), dict[tuple[str, int], int]()
    for _, record in _records(directory / FILE_NAME):
        prompt_id = record["prompt_id"]
        if record["error"] is not None:
            failed.add(prompt_id)
            continue
        answers = begun.pop((prompt_id, record["segment"]), 0) + 1
        if answers < choices:
            begun[prompt_id, record["segment"]] = answers
        else:
            done.add(prompt_id)
            failed.discard(prompt_id)
    return Stock(done=done, failed=failed)


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number and fields of every whole line."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                record = jsonl.decode(line)
            except ValueError as error:
                raise _not_an_outcome(path, number, error) from None
            if not isinstance(record, dict):
                raise _not_an_outcome(path, number, TypeError("no JSON object"))
            yield number, record


def _not_an_outcome(path: Path, number: int, error: Exception) -> JournalError:
    return JournalError(f"{path}, line {number}: not an outcome ({error}): was the file edited?")


def _redone(path: Path) -> dict[str, int]:
    """Return the last segment of each prompt that has outcomes after segment 0."""
    if not path.exists() or _last_segment(path) == 0:
        return {}
    return {record["prompt_id"]: record["segment"] for _, record in _records(path) if record.get("segment")}


def _last_segment(path: Path) -> int:
    with path.open("rb") as file:
        end = _end_of_last_line(file)
        start = _end_of_last_line(file, before=end - 1) if end else 0
        file.seek(start)
        line = file.read(end - start)
    try:
        return int(jsonl.decode(line)["segment"]) if line else 0
    except (ValueError, KeyError, TypeError):  # reading the whole file names the line
        return 0


def _end_of_last_line(file: BinaryIO, *, before: int | None = None) -> int:
    """Return the place behind the last line's end; what follows it is torn."""
    place = file.seek(0, os.SEEK_END) if before is None else before
    while place > 0:
        start = max(0, place - _TAIL)
        file.seek(start)
        found = file.read(place - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        place = start
    return 0


@contextmanager
def _only_owner(directory: Path) -> Iterator[None]:
    """Hold the lock of a run directory. A lock that a dead process of this host left is taken over.

    Raises:
        TakenError: another process has it.
    """
    path = directory / LOCK_NAME
    lock = SoftFileLock(path, timeout=_LOCK_S)
    try:
        try:
            lock.acquire()
        except Timeout:
            if not _is_nameless(path):
                raise
            path.unlink(missing_ok=True)
            lock.acquire()
    except Timeout:
        raise TakenError(_locked(path)) from None
    try:
        yield
    finally:
        lock.release()


def _is_nameless(path: Path) -> bool:
    """Return whether the lock's owner died between making it and writing its name into it, which takes no time."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return found.st_size == 0 and time.time() - found.st_mtime > _LOCK_S / 2


def _locked(path: Path) -> str:
    pid, host, *_ = [*path.read_text(encoding="utf-8", errors="replace").split("\n"), "?", "?"]
    return (
        f"{path.parent} is being written by process {pid} on host {host}: wait for it or stop it. "
        f"If that process is gone for certain, remove {path}"
    )


def to_record(outcome: Outcome) -> dict[str, Any]:
    """Return the fields of a line of outcomes.jsonl; those of a service's cache only where it did something."""
    done = outcome if isinstance(outcome, Completion) else None
    error = outcome.error if isinstance(outcome, Failure) else None
    timing = outcome.timing
    return {
        "prompt_id": outcome.prompt_id,
        "choice": outcome.choice,
        "segment": outcome.segment,
        "batch": outcome.batch,
        "text": done and done.text,
        "finish_reason": done and done.finish_reason,
        "input_tokens": done and done.usage.input_tokens,
        "output_tokens": done and done.usage.output_tokens,
        **(_of_the_cache(done.usage) if done else {}),
        "latency_s": timing.latency_s,
        "time_to_first_token_s": timing.time_to_first_token_s,
        "attempts": outcome.attempts,
        "started_at": timing.started_at.isoformat(),
        "model": outcome.model,
        "error": error and {"type": error.type, "message": error.message, "retryable": error.retryable},
    }


def _outcome(path: Path, number: int, record: dict[str, Any]) -> Outcome:
    try:
        return _from_record(record)
    except (ValueError, KeyError, TypeError) as error:
        raise _not_an_outcome(path, number, error) from None


def _of_the_cache(usage: Usage) -> dict[str, int]:
    counts = {"cached_input_tokens": usage.cached_input_tokens, "cache_written_tokens": usage.cache_written_tokens}
    return {name: count for name, count in counts.items() if count > 0}


def _from_record(record: dict[str, Any]) -> Outcome:
    timing = Timing(
        started_at=datetime.fromisoformat(record["started_at"]),
        latency_s=record["latency_s"],
        time_to_first_token_s=record["time_to_first_token_s"],
    )
    shared: dict[str, Any] = {name: record[name] for name in _SHARED}
    if record["error"] is not None:
        return Failure(**shared, timing=timing, error=ErrorInfo(**record["error"]))
    usage = Usage(
        input_tokens=record["input_tokens"],
        output_tokens=record["output_tokens"],
        cached_input_tokens=record.get("cached_input_tokens", 0),
        cache_written_tokens=record.get("cache_written_tokens", 0),
    )
    return Completion(**shared, timing=timing, usage=usage, text=record["text"], finish_reason=record["finish_reason"])


_SHARED = ("prompt_id", "choice", "segment", "batch", "attempts", "model")
