"""Whether, and why, no further request is to be sent: one object that every part of a run shares."""

import threading

from runner.errors import Interrupted, RunnerError


class Stopped(Exception):  # noqa: N818 - control flow, not an error
    """No further request is to be sent; the StopRequest has the reason. Ends a worker, never a run."""


class StopRequest:
    """A request to stop sending. The first reason counts, except that an interrupt always counts."""

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
        """Why to stop sending; None while `is_set` is false."""
        return self._interrupted or self._reason

    def request(self, reason: RunnerError) -> None:
        """Request to stop for this reason, unless another reason came first."""
        with self._lock:
            if self._reason is None:
                self._reason = reason

    def interrupt(self) -> None:
        """Request to stop because a person interrupted the run. Ends a sweep too.

        Takes no lock, because a signal handler may run inside `request`. The attribute is one of its own, so that no
        other thread's reason replaces an interrupt.
        """
        if self._interrupted is None:
            why = f", while it was stopping: {self._reason}" if self._reason else ""
            self._interrupted = Interrupted(f"interrupted{why}")

    def raise_if_set(self) -> None:
        """Raise Stopped if no further request is to be sent."""
        if self.is_set:
            raise Stopped
