"""Owns SIGINT (Ctrl-C), SIGTERM and SIGHUP from the start of a run until its record is closed.

A signal waits, so that nothing interrupts the writing of a record, except in two kinds of places. What may be cut short
(loading, waiting for MLflow) is interrupted at once. While prompts are generated, the first signal requests a stop:
nothing more is sent, requests in flight are awaited; the second ends the generation at once.
"""

import enum
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from runner.dispatch.stop import StopRequest

log = logging.getLogger(__name__)

_DUPLICATE_S = 0.5
"""Signals this close count as one: timeout(1) signals its child, then the child's group."""


class GracePeriodExpired(BaseException):
    """Requests in flight took longer than the grace period. No Exception, so that no call handles it as its error."""


class _Region(enum.Enum):
    """What a signal does at the moment: wait, raise KeyboardInterrupt, or request a stop."""

    WAITS = enum.auto()
    INTERRUPTS = enum.auto()
    STOPS = enum.auto()


class Signals:
    """The signals of one run, or of the end of a sweep. In any thread but the main one, none comes.

    Attributes:
        came: whether a signal has come.
    """

    def __init__(self) -> None:
        self.came = False
        self._region, self._is_waiting = _Region.WAITS, False
        self._last_at: float | None = None
        self._request_stop: Callable[[], None] = lambda: None

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal interrupt the block; one that waits does so at its beginning.

        Raises:
            KeyboardInterrupt: a signal came.
        """
        with self._in(_Region.INTERRUPTS):
            yield

    @contextmanager
    def stopping(self, stop: StopRequest, *, grace_s: float, announce: bool = True) -> Iterator[None]:
        """Request a stop at the first signal in the block, and interrupt the block at the second.

        Args:
            stop: gets the request.
            grace_s: how long the block may then take.
            announce: whether to say that requests in flight are awaited.

        Raises:
            GracePeriodExpired: requests in flight took longer than `grace_s`.
            KeyboardInterrupt: a second signal came.
        """

        def request_stop() -> None:
            self._region = _Region.INTERRUPTS
            signal.setitimer(signal.ITIMER_REAL, grace_s)
            stop.interrupt()
            if announce:
                log.warning(
                    "stopping: waiting up to %.0f s for requests in flight; interrupt again to end at once", grace_s
                )

        self._request_stop = request_stop
        try:
            with self._in(_Region.STOPS):
                yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        """Do what a signal does at the moment. A duplicate of the last signal does nothing."""
        now = time.monotonic()
        if self._last_at is None or now - self._last_at > _DUPLICATE_S:
            self.came, self._last_at = True, now
            self._act()

    def handle_alarm(self, _number: int, _frame: FrameType | None) -> None:
        """Give requests in flight up."""
        if self._region is not _Region.WAITS:
            raise GracePeriodExpired

    def await_duplicates(self) -> None:
        """Wait for duplicates of the last signal, so that none interrupts what comes after."""
        if self._last_at is not None:
            time.sleep(max(0.0, self._last_at + _DUPLICATE_S - time.monotonic()))

    @contextmanager
    def _in(self, region: _Region) -> Iterator[None]:
        self._region = region
        try:
            if self._is_waiting:
                self._act()
            yield
        finally:
            self._region = _Region.WAITS

    def _act(self) -> None:
        self._is_waiting = self._region is _Region.WAITS
        if self._is_waiting:
            log.warning("the record is being written: the process ends once that is done")
        elif self._region is _Region.STOPS:
            self._request_stop()
        else:
            self._region = _Region.WAITS  # whoever catches the interrupt is not interrupted by the next signal
            raise KeyboardInterrupt


@contextmanager
def handle_signals() -> Iterator[Signals]:
    """Handle SIGINT, SIGTERM and SIGHUP within the block. SIGHUP stays ignored where the process ignores it (nohup)."""
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, signals.handle) for number in numbers}
    previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, signals.handle_alarm)
    try:
        yield signals
    finally:
        signals.await_duplicates()
        for number, handler in previous.items():
            signal.signal(number, handler)
