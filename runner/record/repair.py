"""Sets damaged lines of outcomes.jsonl aside, so that a record with one of them can be used."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from runner.record.atomic import atomic_write, refuse_what_is_no_file
from runner.record.codec import decode_line, from_record

log = logging.getLogger(__name__)

DAMAGED = "outcomes.damaged.jsonl"
"""What was set aside, with its bytes as they were."""


def set_damaged_lines_aside(path: Path) -> None:
    """Move every line of outcomes.jsonl that is no outcome to outcomes.damaged.jsonl beside it, and name it.

    The caller holds the run's lock. A line is in the other file, and on the disk, before it is gone from the first: a
    process that dies between the two leaves it in both.

    Raises:
        JournalError: a file cannot be written.
        RecordError: outcomes.damaged.jsonl is no file.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        damaged = list(_damaged_lines(file))
    if not damaged:
        log.info("%s: every line is an outcome: nothing to repair", path)
        return
    aside = path.with_name(DAMAGED)
    refuse_what_is_no_file(aside)
    earlier = aside.read_bytes() if aside.exists() else b""
    atomic_write(aside, earlier + b"".join(line.rstrip(b"\n") + b"\n" for _, line, _ in damaged))
    numbers = {number for number, _, _ in damaged}
    with path.open("rb") as file:
        kept = bytearray().join(line for number, line in enumerate(file, 1) if number not in numbers)
    atomic_write(path, memoryview(kept))
    for number, _, error in damaged:
        log.warning("%s, line %d: not an outcome (%s): set aside into %s", path, number, error, aside.name)


def _damaged_lines(file: BinaryIO) -> Iterator[tuple[int, bytes, Exception]]:
    """Yield number, bytes and error of every line that is no outcome; a last line without its end is none either."""
    for number, line in enumerate(file, 1):
        try:
            from_record(decode_line(line))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            yield number, line, error
