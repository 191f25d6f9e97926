"""An event loop with a virtual clock: a wait takes no time, and every wait has exactly its length."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


_TURN_S = 1e-9
"""What a turn of the loop takes: a timer that is due by rounding only is due a moment later, as on a real clock."""


class _JumpingSelector(selectors.SelectSelector):
    """Waits for no file: where the event loop would block until a timer is due, the clock moves on to that timer."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if timeout is None and not events:
            raise RuntimeError("no task can run and no timer is set: on a real clock this would wait forever")
        self.now += _TURN_S if events else max(timeout or 0.0, _TURN_S)
        return events


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """`time()` starts at 0 and jumps to the next timer whenever no task can run. For code that waits by the loop only."""

    def __init__(self) -> None:
        self._clock = _JumpingSelector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


def run_on_virtual_clock(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a virtual clock, as `asyncio.run` does on the real one."""
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(main)
