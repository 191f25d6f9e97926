"""Writes outcomes.jsonl: appends each call's outcomes as they happen.

The operating system has a line when `append` returns, and the disk has it within a second: a killed process loses
nothing, and a power failure loses the last second at most.
"""

import os
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import BinaryIO, Self

from runner.errors import JournalError, RunInUseError
from runner.record.codec import encode_line, to_record
from runner.record.folder import LOCK, RunFolder
from runner.record.lock import run_lock
from runner.record.outcomes import end_of_last_line, last_segment
from runner.record.repair import set_damaged_lines_aside
from runner.types import Outcome

_SYNC_EVERY_S = 1.0
"""Bounds what a power failure can lose; an fsync per outcome would take longer than a fast request."""


class OutcomeWriter:
    """The outcomes of one run, open for appending, by one process at a time.

    Args:
        folder: the run's.
        resume: append to a run that has outcomes; without it, a folder that has outcomes is refused.
        repair: before, set lines that are no outcomes aside.

    Attributes:
        segment: the segment number of this process's outcomes; 0 for a new run.
    """

    def __init__(self, folder: RunFolder, *, resume: bool = False, repair: bool = False) -> None:
        self._folder, self._path, self._resume, self._repair = folder, folder.outcomes.path, resume, repair
        self.segment = 0
        self._file: BinaryIO | None = None
        self._sync_error: OSError | None = None
        self._has_unsynced = threading.Event()
        self._sync_lock = threading.Lock()
        self._closed = threading.Event()
        self._sync_thread = threading.Thread(target=self._sync_periodically, name="outcomes", daemon=True)
        self._lock = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._lock.enter_context(run_lock(self._folder.path / LOCK))
            if self._repair:
                set_damaged_lines_aside(self._path)
            self._file = self._reopen() if self._resume else self._path.open("xb", buffering=0)
        except FileExistsError:
            self._lock.close()
            raise RunInUseError(f"{self._path} exists already: a folder is for one run: choose another") from None
        except OSError as error:
            self._lock.close()
            raise JournalError(f"{error.filename or self._path} cannot be written: {error.strerror}") from None
        except BaseException:
            self._lock.close()
            raise
        self._sync_thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._close()
        except JournalError:
            if error is None:  # else the block's own error is the one to report
                raise
        finally:
            self._lock.close()

    def append(self, outcomes: Sequence[Outcome]) -> None:
        """Write the outcomes of one call through to the operating system, in one piece.

        Raises:
            JournalError: they cannot be written (disk full, say), or an earlier sync failed.
        """
        if self._file is None:
            raise JournalError(f"{self._path} is not open")
        self._raise_sync_error()
        lines = b"".join(encode_line(to_record(outcome)) for outcome in outcomes)
        try:
            written = self._file.write(lines)
        except OSError as error:
            raise self._cannot_keep(f"cannot be written: {error.strerror}.") from None
        if written != len(lines):
            raise self._cannot_keep(f"took {written} of {len(lines)} bytes: is the disk full?")
        self._has_unsynced.set()

    def sync(self) -> None:
        """Flush everything that was appended to the disk.

        Raises:
            JournalError: this sync failed, or an earlier one did.
        """
        self._sync()
        self._raise_sync_error()

    def _reopen(self) -> BinaryIO:
        """Open the outcomes, and cut a torn last line: only what begins like an outcome, of a file that is one."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
        file = os.fdopen(descriptor, "a+b", buffering=0)
        try:
            end = end_of_last_line(file)
            self._refuse_other_content(file, end)
            self.segment = last_segment(self._path) + 1 if end else 0
            file.truncate(end)
        except BaseException:
            file.close()
            raise
        return file

    def _refuse_other_content(self, file: BinaryIO, end: int) -> None:
        """Refuse a file whose torn last line is none of an outcome; a power failure leaves zeros."""
        file.seek(end)
        if file.read(1) not in (b"", b"{", b"\0"):
            raise JournalError(f"{self._path}: its last line is not an outcome: was the file edited?")

    def _close(self) -> None:
        self._closed.set()
        self._sync_thread.join()
        if self._file is None:
            return
        file = self._file
        try:
            with file:
                self._sync()
        except OSError as error:  # a network file system may report a full disk only when the file is closed
            self._sync_error = self._sync_error or error
        finally:
            self._file = None
        self._raise_sync_error()

    def _sync_periodically(self) -> None:
        while not self._closed.wait(_SYNC_EVERY_S):
            self._sync()

    def _sync(self) -> None:
        with self._sync_lock:
            if self._file is not None and self._has_unsynced.is_set():
                self._has_unsynced.clear()
                try:
                    os.fsync(self._file.fileno())
                except OSError as error:  # raised by the next append or at the end: this may be the sync thread
                    self._sync_error = error

    def _raise_sync_error(self) -> None:
        if self._sync_error is not None:
            raise self._cannot_keep(f"could not be kept on disk: {self._sync_error.strerror}.")

    def _cannot_keep(self, reason: str) -> JournalError:
        return JournalError(
            f"{self._path} {reason} Nothing more is sent. When there is room, resume: {self._folder.resume_command}"
        )
