"""Owns outcomes.jsonl: one line per outcome, appended and flushed as it happens, read back as the same values.

A line is with the operating system when `append` returns, and on the disk a second later: what a killed process wrote
is kept, and of what a dead machine wrote at most a second is lost. A last line without its end was being written: it is
no outcome.
"""

import os
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from runner import jsonl
from runner.errors import JournalError
from runner.records import Completion, ErrorInfo, Failure, Outcome, Timing, Usage

FILE_NAME = "outcomes.jsonl"
_SYNC_EVERY_S = 1.0


class Journal:
    """The outcomes of one run directory, open for appending. A directory that has outcomes is not written twice."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME
        self._file: BinaryIO | None = None
        self._lost: OSError | None = None
        self._unsynced = threading.Event()
        self._closed = threading.Event()
        self._syncing = threading.Thread(target=self._sync_now_and_then, name="journal", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._file = self._path.open("xb", buffering=0)
        except FileExistsError:
            raise JournalError(f"{self._path} exists already: one directory is for one run, choose another") from None
        except OSError as error:
            raise JournalError(f"{self._path} cannot be written: {error.strerror}") from None
        self._syncing.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._syncing.join()
        if self._file is not None:
            self._sync()
            self._file.close()
            self._file = None

    def append(self, outcome: Outcome) -> None:
        """Write one outcome through to the operating system.

        Raises:
            JournalError: the outcome cannot be kept (disk full, say).
        """
        if self._file is None:
            raise JournalError(f"{self._path} is not open")
        if self._lost is not None:
            raise JournalError(f"{self._path} could not be kept on disk: {self._lost.strerror}")
        line = jsonl.encode(to_record(outcome))
        try:
            written = self._file.write(line)
        except OSError as error:
            raise JournalError(f"{self._path} cannot be written: {error.strerror}") from None
        if written != len(line):
            raise JournalError(f"{self._path} took {written} of {len(line)} bytes: is the disk full?")
        self._unsynced.set()

    def _sync_now_and_then(self) -> None:
        while not self._closed.wait(_SYNC_EVERY_S):
            self._sync()

    def _sync(self) -> None:
        if self._file is not None and self._unsynced.is_set():
            self._unsynced.clear()
            try:
                os.fsync(self._file.fileno())
            except OSError as error:  # for the next append to say: this may be a thread of its own
                self._lost = error


def read_outcomes(directory: Path) -> Iterator[Outcome]:
    """Yield the outcomes of a run directory, in the order in which they happened; a torn last line is none.

    Raises:
        JournalError: a line is not an outcome (named by its number).
    """
    path = directory / FILE_NAME
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield _from_record(jsonl.decode(line))
            except (ValueError, KeyError, TypeError) as error:
                raise JournalError(f"{path}, line {number}: not an outcome ({error}): was the file edited?") from None


def to_record(outcome: Outcome) -> dict[str, Any]:
    """Return the fields of a line of outcomes.jsonl."""
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
        "latency_s": timing.latency_s,
        "time_to_first_token_s": timing.time_to_first_token_s,
        "attempts": outcome.attempts,
        "started_at": timing.started_at.isoformat(),
        "model": outcome.model,
        "error": error and {"type": error.type, "message": error.message, "retryable": error.retryable},
    }


def _from_record(record: dict[str, Any]) -> Outcome:
    timing = Timing(
        started_at=datetime.fromisoformat(record["started_at"]),
        latency_s=record["latency_s"],
        time_to_first_token_s=record["time_to_first_token_s"],
    )
    shared: dict[str, Any] = {name: record[name] for name in _SHARED}
    if record["error"] is not None:
        return Failure(**shared, timing=timing, error=ErrorInfo(**record["error"]))
    usage = Usage(input_tokens=record["input_tokens"], output_tokens=record["output_tokens"])
    return Completion(**shared, timing=timing, usage=usage, text=record["text"], finish_reason=record["finish_reason"])


_SHARED = ("prompt_id", "choice", "segment", "batch", "attempts", "model")
