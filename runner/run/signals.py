"""Ctrl-C, SIGTERM and SIGHUP while prompts are generated: owns these signals.

The first asks the run to stop: nothing more is sent, requests in flight are awaited, the record is closed. The second
ends at once.
"""

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from runner.dispatch.stop import StopRequest

log = logging.getLogger(__name__)

_DUPLICATE_S = 0.5
"""Signals this close count as one: timeout(1) signals its child, then the child's group."""


class GracePeriodExpired(BaseException):
    """Requests in flight took too long. Not an Exception: nothing on the way may take it for a failed call."""


class _Signals:
    """The signals of one run, counted apart from its stop request: the run may be stopping for another reason."""

    def __init__(self, stop: StopRequest, grace_s: float) -> None:
        self._stop, self._grace_s = stop, grace_s
        self._first_at: float | None = None

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        """Ask the run to stop within the grace period; a second signal interrupts it."""
        if self._first_at is None:
            self._first_at = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, self._grace_s)
            self._stop.interrupt()
            log.warning(
                "stopping: waiting up to %.0f s for requests in flight; interrupt again to end at once", self._grace_s
            )
        elif time.monotonic() - self._first_at > _DUPLICATE_S:
            raise KeyboardInterrupt

    def await_duplicates(self) -> None:
        """Wait until a duplicate of the first signal must have come, so that none hits the closing of the record."""
        if self._first_at is not None:
            time.sleep(max(0.0, self._first_at + _DUPLICATE_S - time.monotonic()))


@contextmanager
def stop_on_signals(stop: StopRequest, *, grace_s: float) -> Iterator[None]:
    """Let the first SIGINT, SIGTERM or SIGHUP ask `stop`, and the second raise KeyboardInterrupt.

    Only a process's main thread receives signals: in any other this does nothing.

    Raises:
        GracePeriodExpired: requests in flight took longer than `grace_s`.
        KeyboardInterrupt: a second signal came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_alarm(_number: int, _frame: FrameType | None) -> None:
        raise GracePeriodExpired

    signals = _Signals(stop, grace_s)
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup: the run is to outlive its terminal
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, signals.handle) for number in numbers}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, on_alarm)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signals.await_duplicates()
        for number, handler in before.items():
            signal.signal(number, handler)
