"""Writes whole files: all of a file or none of it, on the disk before it has its name."""

import os
from contextlib import suppress
from pathlib import Path

from runner.errors import JournalError


def atomic_write(path: Path, content: bytes | memoryview) -> None:
    """Write all of a file or none of it: a reader, a kill or a power failure in between leaves the old one.

    Raises:
        JournalError: the file cannot be written (disk full, say).
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # a partial file only takes room that others may need
            temporary.unlink()
        raise JournalError(f"{path} cannot be written: {error.strerror}") from None
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """Flush the directory's entries too: a machine that dies loses a file whose name is not on the disk."""
    with suppress(OSError):  # not every file system can
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
