"""Whether, and why, nothing more is to be sent: one object that every part of a run shares."""

import threading

from runner.errors import Interrupted, RunnerError


class Stopped(Exception):  # noqa: N818 - control flow, not an error
    """Nothing more is sent; the StopRequest has the reason. Ends a worker, never a run."""


class StopRequest:
    """A request to stop sending. The first reason counts, except that an interrupt always does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reason: RunnerError | None = None
        self._interrupted: Interrupted | None = None

    @property
    def is_set(self) -> bool:
        """Whether to stop sending."""
        return self._interrupted is not None or self._reason is not None

    @property
    def reason(self) -> RunnerError | None:
        """Why; None while nothing asks to stop."""
        return self._interrupted or self._reason

    def request(self, reason: RunnerError) -> None:
        """Ask to stop for this reason, unless there is one."""
        with self._lock:
            if self._reason is None:
                self._reason = reason

    def interrupt(self) -> None:
        """Ask to stop in a person's name; this ends a sweep too.

        Takes no lock, for a signal handler may run inside `request`, and has an attribute of its own, so that no
        reason of another thread overwrites it.
        """
        if self._interrupted is None:
            why = f", while it was stopping: {self._reason}" if self._reason else ""
            self._interrupted = Interrupted(f"interrupted{why}")

    def raise_if_set(self) -> None:
        """Raise Stopped if nothing more is to be sent."""
        if self.is_set:
            raise Stopped
