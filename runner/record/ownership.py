"""Decides whether a record is this user's own: a signature beside the file, by a key in the user's state folder.

A record that came from elsewhere, or whose signed file was edited, has no signature that verifies: it is foreign.
"""

import errno
import hashlib
import hmac
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

import platformdirs

from runner.record.atomic import atomic_write

_KEY_BYTES = 32
_SIGNATURE_BYTES = 65
"""A hexadecimal SHA-256 and the end of its line."""


def signature_file(path: Path) -> Path:
    """Return the file with the signature of a file: run.hmac of run.json."""
    return path.with_suffix(".hmac")


def sign(path: Path, content: bytes) -> None:
    """Write the signature of a file's content beside the file. Without a state folder nothing is signed.

    Raises:
        JournalError: the signature cannot be written.
    """
    if key := _key(create=True):
        atomic_write(signature_file(path), _digest(key, content))


def is_signed(path: Path) -> bool:
    """Return whether a file's content is what this user has signed."""
    key = _key(create=False)
    try:
        recorded = _read_file(signature_file(path), max_bytes=_SIGNATURE_BYTES)
        return key is not None and hmac.compare_digest(recorded, _digest(key, _read_file(path)))
    except OSError:
        return False


def _read_file(path: Path, *, max_bytes: int = -1) -> bytes:
    """Return a file's content. A link is not followed, and a pipe, a device or a longer file is not waited for.

    Raises:
        OSError: it is no file, or cannot be read.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
        return file.read(max_bytes)


def _digest(key: bytes, content: bytes) -> bytes:
    return hmac.new(key, content, hashlib.sha256).hexdigest().encode() + b"\n"


def _key(*, create: bool) -> bytes | None:
    """Return the user's key; None where there is none, or others may read or replace it."""
    path = platformdirs.user_state_path("batch-generation-runner") / "ownership.key"
    with suppress(OSError):
        if create and not path.exists():
            _create_key(path)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status, key = os.fstat(descriptor), file.read(_KEY_BYTES + 1)
        is_private = stat.S_ISREG(status.st_mode) and not status.st_mode & 0o077 and status.st_uid == os.getuid()
        return key if is_private and len(key) == _KEY_BYTES else None
    return None


def _create_key(path: Path) -> None:
    """Write a new key unless another process is first: a link to a whole file appears at once, and replaces none."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
        with suppress(FileExistsError):
            path.hardlink_to(temporary)
    finally:
        temporary.unlink(missing_ok=True)
