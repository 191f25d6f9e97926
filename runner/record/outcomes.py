"""Reads outcomes.jsonl: one line per outcome, appended as it happens.

A last line without a newline is no outcome: its process died while writing. A process that resumes a run writes the
next segment. Where a prompt has outcomes in several segments, those of the last segment count; the earlier ones are
superseded, and stay in the file as history.
"""

import os
import shlex
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from runner.errors import JournalError
from runner.record.codec import decode_line, from_record
from runner.record.seen_lines import SeenLines
from runner.types import Outcome

_BLOCK = 1 << 16
"""Bytes that are read at once to find the last line."""
_REQUIRED = frozenset({"prompt_id", "segment", "error"})
"""Fields that are read without decoding the whole outcome."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Ids of completed and of failed prompts."""

    completed: Set[str]
    failed: Set[str]


@dataclass(frozen=True, slots=True)
class OutcomesFile:
    """The outcomes of one run, for reading. A file that does not exist has none."""

    path: Path

    def read(self) -> Iterator[Outcome]:
        """Yield the outcomes that count, in the order in which they happened.

        Raises:
            JournalError: a line is not an outcome (named by its number).
        """
        return (outcome for outcome, is_superseded in self.read_marked() if not is_superseded)

    def read_all(self) -> Iterator[Outcome]:
        """Yield every outcome in order, superseded ones too: they were paid for.

        Raises:
            JournalError: as for `read`.
        """
        for number, record in _read_records(self.path):
            try:
                outcome = from_record(record)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise _not_an_outcome(self.path, number, error) from None
            yield outcome

    def read_marked(self) -> Iterator[tuple[Outcome, bool]]:
        """Yield every outcome in order, and whether a later segment superseded it.

        Raises:
            JournalError: as for `read`.
        """
        last_segments = self._last_segments()
        for outcome in self.read_all():
            yield outcome, last_segments.get(outcome.prompt_id, 0) > outcome.segment

    def read_progress(self, *, choices: int) -> Progress:
        """Return which prompts have ended. A prompt is completed when one segment has `choices` answers of it."""
        completed, failed, partial = set[str](), set[str](), dict[tuple[str, int], int]()
        for _, record in _read_records(self.path):
            prompt_id = record["prompt_id"]
            if record["error"] is not None:
                failed.add(prompt_id)
                continue
            answers = partial.pop((prompt_id, record["segment"]), 0) + 1
            if answers < choices:
                partial[prompt_id, record["segment"]] = answers
            else:
                completed.add(prompt_id)
                failed.discard(prompt_id)
        return Progress(completed=completed, failed=failed)

    def _last_segments(self) -> dict[str, int]:
        """Return the last segment of each prompt that has outcomes after segment 0."""
        if not self.path.exists() or last_segment(self.path) == 0:
            return {}
        return {record["prompt_id"]: record["segment"] for _, record in _read_records(self.path) if record["segment"]}


def last_segment(path: Path) -> int:
    """Return the segment of the file's last whole line; 0 where it has none.

    Raises:
        JournalError: the file cannot be read.
    """
    with _open(path) as file:
        end = end_of_last_line(file)
        start = end_of_last_line(file, before=end - 1) if end else 0
        file.seek(start)
        line = file.read(end - start)
    try:
        return int(decode_line(line)["segment"]) if line else 0
    except (ValueError, KeyError, TypeError):  # reading the whole file names the line
        return 0


def end_of_last_line(file: BinaryIO, *, before: int | None = None) -> int:
    """Return the position after the last newline (before position `before`); bytes after it are a torn line."""
    position = file.seek(0, os.SEEK_END) if before is None else before
    while position > 0:
        start = max(0, position - _BLOCK)
        file.seek(start)
        newline = file.read(position - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise JournalError(f"{path} cannot be read: {error.strerror}: give yourself the right to read it") from None


def _read_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number and fields of every whole line; of equal lines (a file was appended to itself, say) the first."""
    if not path.exists():
        return
    seen = SeenLines()
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            if not seen.add(line):
                continue
            try:
                record = decode_line(line)
            except ValueError as error:
                raise _not_an_outcome(path, number, error) from None
            if not isinstance(record, dict) or not record.keys() >= _REQUIRED:
                raise _not_an_outcome(path, number, TypeError(f"no JSON object with {', '.join(sorted(_REQUIRED))}"))
            if type(record["prompt_id"]) is not str or type(record["segment"]) is not int:
                raise _not_an_outcome(path, number, TypeError("prompt_id is a text, segment a number"))
            yield number, record


def _not_an_outcome(path: Path, number: int, error: Exception) -> JournalError:
    return JournalError(
        f"{path}, line {number}: not an outcome ({error}): restore the line, or set it aside and generate its prompt "
        f"again: python -m runner.resume {shlex.quote(str(path.parent))} --repair"
    )
