"""Owns the locks of folders: run.lock lets one process write a run; a sweep's lock says whether the sweep goes on."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

from runner.errors import RunInUseError

_TIMEOUT_S = 3.0
"""How long to wait for a lock. A live owner writes its name into the file in less than half of that."""
_SWEEP_LOCK = ".sweep.lock"
SYSTEM_LOCK = ".run.held"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def sweep_lock(directory: Path) -> Iterator[None]:
    """Hold the lock of a sweep's folder while its jobs run or are collected. The system releases it at any end."""
    directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory / _SWEEP_LOCK, preserve_lock_file=True)
    with suppress(OSError, NotImplementedError):  # not every file system has locks
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def is_abandoned(directory: Path) -> bool:
    """Return whether the process of a sweep is gone for certain; of earlier versions' sweeps nobody knows."""
    return _is_held(directory) is False


def is_running(directory: Path) -> bool:
    """Return whether a process of this machine runs, collects or compares the jobs of a sweep."""
    return _is_held(directory) is True


def _is_held(directory: Path) -> bool | None:
    """Return whether a process holds a sweep's lock; None where that cannot be known."""
    if not (directory / _SWEEP_LOCK).is_file():
        return None
    try:
        with FileLock(directory / _SWEEP_LOCK, timeout=0, preserve_lock_file=True):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return None


def forget_sweep(directory: Path) -> None:
    """Remove the lock of a sweep whose parent run has ended: the sweep itself, or whoever found the lock free, does."""
    (directory / _SWEEP_LOCK).unlink(missing_ok=True)


@contextmanager
def run_lock(path: Path) -> Iterator[None]:
    """Hold a run's lock file. A lock whose owner is gone for certain is taken over.

    That is certain of a dead process of this host, and of a process of this machine's kernel, in a container too, that
    does not hold the system's lock on the file beside the lock file.

    Raises:
        RunInUseError: another process has it.
    """
    lock = SoftFileLock(path, timeout=_TIMEOUT_S)
    try:
        try:
            lock.acquire()
        except Timeout:
            if not _remove_abandoned(path):
                raise
            lock.acquire()
    except Timeout:
        raise _in_use(path) from None
    try:
        with _system_lock(path):
            yield
    finally:
        lock.release()


@contextmanager
def _system_lock(path: Path) -> Iterator[None]:
    """Hold a lock that the kernel releases when this process ends, on a file with the contents of the lock file."""
    beside = path.with_name(SYSTEM_LOCK)
    try:
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError:  # a full disk, or a link: the lock file alone is enough
        yield
        return
    try:
        with suppress(OSError):  # not every file system has such locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.truncate(descriptor, 0)
            os.write(descriptor, path.read_bytes())
        yield
    finally:
        beside.unlink(missing_ok=True)
        os.close(descriptor)


def _remove_abandoned(path: Path) -> bool:
    """Remove a lock file if its owner is gone for certain, and return whether it did."""
    try:
        status, owner = path.stat(), path.read_bytes()
        if status.st_size == 0 and time.time() - status.st_mtime > _TIMEOUT_S / 2:
            path.unlink()  # the owner died between creating the file and writing its name into it
            return True
        if not _is_of_this_kernel(owner):
            return False
        descriptor = os.open(path.with_name(SYSTEM_LOCK), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as beside:
            fcntl.flock(beside, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held while the file is removed: nobody else does
            is_gone = beside.read() == owner == path.read_bytes()
            if is_gone:
                path.unlink()
            return is_gone
    except OSError:  # BlockingIOError: the owner lives; or the owner released its lock just now
        return not path.exists()


def _is_of_this_kernel(owner: bytes) -> bool:
    """Return whether the owner of a lock file ran since this machine's start: filelock writes the boot id.

    The third line is the process's start in ticks, with the kernel's boot id in the bits from 64 on.
    """
    try:
        boot_id = int(_BOOT_ID.read_text(encoding="ascii").strip().replace("-", ""), 16)
        return int(owner.split(b"\n")[2]) >> 64 == boot_id
    except (OSError, ValueError, IndexError):
        return False


def _in_use(path: Path) -> RunInUseError:
    owner = ["?", "?"]
    with suppress(OSError):  # the owner released the lock just now, or others may not read it
        owner = [*path.read_text(encoding="utf-8", errors="replace").split("\n"), *owner]
    pid, host = owner[0], owner[1].partition("?pidns-")[0]
    return RunInUseError(
        f"{path.parent} is being written by process {pid} on host {host}: wait for it or stop it. Another host or "
        f"container cannot be asked from here: once that host or container is gone for certain, remove {path}"
    )
