"""Writes a record's files. A file has its name only once all of it is on the disk; no link in a folder is followed."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from runner.errors import JournalError, RecordError

_KINDS = ((stat.S_ISLNK, "a link"), (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))


def atomic_write(path: Path, content: bytes | memoryview) -> None:
    """Write all of a file or none of it: meanwhile, and after a kill or a power failure, the old file is there.

    A link in the file's place is replaced, and what it points to stays as it is.

    Raises:
        JournalError: the file cannot be written (disk full, say).
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.unlink(missing_ok=True)  # of a process that was killed, or a link
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # free the disk space of the partial file
            temporary.unlink()
        raise JournalError(f"{path} cannot be written: {error.strerror}") from None
    _sync_directory(path.parent)


def refuse_what_is_no_file(path: Path) -> None:
    """Refuse a link, a folder, a pipe or a device in the place of a record's file. No file at all is accepted.

    Raises:
        RecordError: it is no file, or its folder cannot be entered.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}: check the rights of its folder") from None
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "a device")
        raise RecordError(f"{path} is {kind}, and a record has only files: remove it, or restore the file")


def _sync_directory(directory: Path) -> None:
    """Flush the directory's entries too: after a power failure, a file whose entry is not on the disk is lost."""
    with suppress(OSError):  # not every file system supports it
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
