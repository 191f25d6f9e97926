"""Owns run.lock: one process at a time writes to a run's folder."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import SoftFileLock, Timeout

from runner.errors import RunInUseError

_TIMEOUT_S = 3.0
"""Until a lock counts as held: longer than a lock file without its owner's name can be a live one."""


@contextmanager
def run_lock(path: Path) -> Iterator[None]:
    """Hold a run's lock file. A lock that a dead process of this host left is taken over.

    Raises:
        RunInUseError: another process has it.
    """
    lock = SoftFileLock(path, timeout=_TIMEOUT_S)
    try:
        try:
            lock.acquire()
        except Timeout:
            if not _is_nameless(path):
                raise
            path.unlink(missing_ok=True)
            lock.acquire()
    except Timeout:
        raise RunInUseError(_message(path)) from None
    try:
        yield
    finally:
        lock.release()


def _is_nameless(path: Path) -> bool:
    """Return whether the lock's owner died between making the file and writing its name into it."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    return status.st_size == 0 and time.time() - status.st_mtime > _TIMEOUT_S / 2


def _message(path: Path) -> str:
    pid, host, *_ = [*path.read_text(encoding="utf-8", errors="replace").split("\n"), "?", "?"]
    return (
        f"{path.parent} is being written by process {pid} on host {host}: wait for it or stop it. "
        f"If that process is gone for certain, remove {path}"
    )
