"""Owns SIGINT (Ctrl-C), SIGTERM and SIGHUP while prompts are generated.

The first signal requests a stop: nothing more is sent, requests in flight are awaited, the record is closed. The second
ends the generation at once.
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
    """Requests in flight took longer than the grace period. No Exception, so that no call handles it as its error."""


class _Signals:
    """Counts the signals of one run. Its stop request cannot: the run may be stopping for another reason."""

    def __init__(self, stop: StopRequest, grace_s: float) -> None:
        self._stop, self._grace_s = stop, grace_s
        self._first_at: float | None = None

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        """Request a stop within the grace period at the first signal; raise KeyboardInterrupt at a later one."""
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
        """Wait for duplicates of the first signal, so that none interrupts the closing of the record."""
        if self._first_at is not None:
            time.sleep(max(0.0, self._first_at + _DUPLICATE_S - time.monotonic()))


@contextmanager
def stop_on_signals(stop: StopRequest, *, grace_s: float) -> Iterator[None]:
    """Request a stop at the first SIGINT, SIGTERM or SIGHUP, and raise KeyboardInterrupt at the second.

    Only a process's main thread receives signals: in any other thread, this does nothing.

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
    previous = {number: signal.signal(number, signals.handle) for number in numbers}
    previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, on_alarm)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signals.await_duplicates()
        for number, handler in previous.items():
            signal.signal(number, handler)
