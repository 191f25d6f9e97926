"""How a run is asked to end: owns SIGINT, SIGTERM and SIGHUP while prompts are generated.

The first asks: nothing more is sent, what is in flight is waited for, the record is closed. The second ends at once.
"""

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from runner.errors import Interrupted, RunnerError

log = logging.getLogger(__name__)

GRACE_S = 30.0
"""How long what is in flight is waited for."""
_ECHO_S = 0.5
"""Signals this close are one wish: timeout(1) signals its child, then the child's group."""


class GraceOver(BaseException):
    """What is in flight has had its time. Not an Exception: nothing on the way may take it for a failed call."""


class Stop:
    """Whether, and why, no further prompt is to be sent. The first reason counts, but for an interrupt."""

    def __init__(self) -> None:
        self.reason: RunnerError | None = None

    def __call__(self) -> bool:
        """Return whether to stop sending."""
        return self.reason is not None

    def request(self, reason: RunnerError) -> None:
        """Ask for the end."""
        self.reason = self.reason or reason

    def interrupt(self) -> None:
        """Ask for the end in a person's name: of a run that is stopping already, it ends the sweep too."""
        if not isinstance(self.reason, Interrupted):
            why = f", while it was stopping: {self.reason}" if self.reason else ""
            self.reason = Interrupted(f"interrupted{why}")


class _Signals:
    """The signals of one run, counted by themselves: the run may be stopping for another reason."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._first_at: float | None = None

    def hear(self, _number: int, _frame: FrameType | None) -> None:
        """Ask for the end, with a limit to the waiting; insist if that was asked before."""
        if self._first_at is None:
            self._first_at = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, GRACE_S)
            self._stop.interrupt()
            log.warning("stopping: waiting up to %.0f s for what is in flight; once more to stop at once", GRACE_S)
        elif time.monotonic() - self._first_at > _ECHO_S:
            raise KeyboardInterrupt

    def let_echo_pass(self) -> None:
        """Wait until another signal would be another wish, so that none hits the closing of the record."""
        if self._first_at is not None:
            time.sleep(max(0.0, self._first_at + _ECHO_S - time.monotonic()))


@contextmanager
def heeded(stop: Stop) -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP ask `stop` first, and interrupt only when given again.

    Only a process's main thread hears signals: in any other this does nothing.

    Raises:
        GraceOver: what was in flight took longer than GRACE_S.
        KeyboardInterrupt: a second signal came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_alarm(_number: int, _frame: FrameType | None) -> None:
        raise GraceOver

    signals = _Signals(stop)
    heard = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup: the run is to outlive its terminal
        heard.append(signal.SIGHUP)
    before = {number: signal.signal(number, signals.hear) for number in heard}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, on_alarm)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signals.let_echo_pass()
        for number, handler in before.items():
            signal.signal(number, handler)
