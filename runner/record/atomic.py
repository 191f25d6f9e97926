"""Writes whole files: a file has its name only once all of it is on the disk."""

import os
from contextlib import suppress
from pathlib import Path

from runner.errors import JournalError


def atomic_write(path: Path, content: bytes | memoryview) -> None:
    """Write all of a file or none of it: meanwhile, and after a kill or a power failure, the old file is there.

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
        with suppress(OSError):  # free the disk space of the partial file
            temporary.unlink()
        raise JournalError(f"{path} cannot be written: {error.strerror}") from None
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """Flush the directory's entries too: after a power failure, a file whose entry is not on the disk is lost."""
    with suppress(OSError):  # not every file system supports it
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
