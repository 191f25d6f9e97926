"""Owns run.lock: one process at a time writes to a run's folder."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import SoftFileLock, Timeout

from runner.errors import RunInUseError

_TIMEOUT_S = 3.0
"""How long to wait for a lock. A live owner writes its name into the file in less than half of that."""


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
            if not _is_abandoned(path):
                raise
            path.unlink(missing_ok=True)
            lock.acquire()
    except Timeout:
        raise _in_use(path) from None
    try:
        yield
    finally:
        lock.release()


def _is_abandoned(path: Path) -> bool:
    """Return whether the lock's owner died between creating the file and writing its name into it."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    return status.st_size == 0 and time.time() - status.st_mtime > _TIMEOUT_S / 2


def _in_use(path: Path) -> RunInUseError:
    owner = ["?", "?"]
    with suppress(FileNotFoundError):  # the owner released the lock just now
        owner = [*path.read_text(encoding="utf-8", errors="replace").split("\n"), *owner]
    pid, host, *_ = owner
    return RunInUseError(
        f"{path.parent} is being written by process {pid} on host {host}: wait for it or stop it. "
        f"If that process is gone for certain, remove {path}"
    )
