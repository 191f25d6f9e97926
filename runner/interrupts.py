"""How a run is asked to end: owns SIGINT and SIGTERM while prompts are generated.

The first asks: nothing more is sent, what is in flight is waited for, the record is closed. The second ends at once.
"""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from runner.errors import Interrupted, RunnerError

log = logging.getLogger(__name__)

GRACE_S = 30.0
"""How long what is in flight is waited for."""


class GraceOver(BaseException):
    """What is in flight has had its time. Not an Exception: nothing on the way may take it for a failed call."""


class Stop:
    """Whether, and why, no further prompt is to be sent. The first reason counts."""

    def __init__(self) -> None:
        self.reason: RunnerError | None = None

    def __call__(self) -> bool:
        """Return whether to stop sending."""
        return self.reason is not None

    def request(self, reason: RunnerError) -> None:
        """Ask for the end."""
        self.reason = self.reason or reason


@contextmanager
def heeded(stop: Stop) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM ask `stop` first, and interrupt only when given again.

    Only a process's main thread hears signals: in any other this does nothing.

    Raises:
        GraceOver: what was in flight took longer than GRACE_S.
        KeyboardInterrupt: a second signal came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if stop():
            raise KeyboardInterrupt
        stop.request(Interrupted("interrupted"))
        log.warning("stopping: waiting up to %.0f s for what is in flight; once more to stop at once", GRACE_S)
        signal.setitimer(signal.ITIMER_REAL, GRACE_S)

    def on_alarm(_number: int, _frame: FrameType | None) -> None:
        raise GraceOver

    handlers = {signal.SIGINT: on_signal, signal.SIGTERM: on_signal, signal.SIGALRM: on_alarm}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
