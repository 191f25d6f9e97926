"""When the next attempt may leave: owns the line in which all attempts stand, the shared pause and the limits a minute.

Only the head of the line is looked at, so that attempts leave in the order in which they came, and none of them holds a
part of what another one waits for.
"""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from aiolimiter import AsyncLimiter

from runner.budget import Budget
from runner.call import Call
from runner.config import LimitsConfig
from runner.interrupts import Stop
from runner.records import Outcome
from runner.window import Window

log = logging.getLogger(__name__)

_LOOK_S = 0.2
"""How often what waits looks whether the run is to end."""
_SAID_FROM_S = 10.0
"""A pause as long as this looks like a hang, unless it is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What an attempt in flight holds."""

    number: int
    most_usd: float


class Admission:
    """Lets attempts leave, one after another.

    Args:
        limits: requests and tokens per minute.
        budget: has room for an attempt, or will have, or refuses it.
        window: finds how many may be in flight; None leaves that to the mode.
        stop: asks for the end: nothing more leaves, and what waits is given up.
    """

    def __init__(self, limits: LimitsConfig, budget: Budget, window: Window | None, stop: Stop) -> None:
        self._requests = _per_minute(limits.requests_per_minute)
        self._tokens = _per_minute(limits.tokens_per_minute)
        self._budget, self._window, self._stop = budget, window, stop
        self._paused_until = self._said_until = 0.0
        self._line = asyncio.Lock()
        self._ended = asyncio.Event()

    async def enter(self, call: Call) -> Place:
        """Wait until an attempt may leave, and take what it needs.

        Raises:
            RunnerError: nothing more is to be sent; BudgetError if this attempt could pass the budget.
        """
        most_usd = self._budget.cost_usd(call.most_input_tokens, call.output_tokens)
        async with self._line:
            await self._wait_for_room(most_usd)
            await self._wait_for_leave(call.tokens)
            self._budget.reserve(most_usd)
            return Place(number=self._window.enter() if self._window else 0, most_usd=most_usd)

    def leave(self, place: Place, outcomes: Sequence[Outcome], *, lost: bool) -> None:
        """Give back what an attempt held. `lost`: it has no answer, and may be billed all the same."""
        self._budget.settle(place.most_usd, outcomes, lost=lost)
        if self._window:
            self._window.leave(place.number, answered=bool(outcomes))
        self._ended.set()

    def throttled(self, place: Place) -> None:
        """Learn that the service asked for fewer requests."""
        if self._window:
            self._window.throttled(place.number)

    def pause(self, seconds: float, reason: str) -> None:
        """Let nothing leave for so long."""
        now = asyncio.get_running_loop().time()
        self._paused_until = max(self._paused_until, now + seconds)
        if self._paused_until - max(now, self._said_until) >= _SAID_FROM_S:
            self._said_until = self._paused_until
            log.info("the service asks for a pause of %.0f s (%s): waiting", seconds, reason)

    async def sleep(self, seconds: float) -> None:
        """Sleep, unless the run is asked to end meanwhile."""
        self.go_on()
        await self._patiently(asyncio.sleep(max(0.0, seconds)))

    def go_on(self) -> None:
        """Raise why nothing more is to be sent, if so: an error that every request would meet, or a wish to end."""
        if self._stop.reason is not None:
            raise self._stop.reason

    async def _wait_for_leave(self, tokens: float) -> None:
        """Wait for the shared pause and the limits a minute; what was taken before a pause is not kept for its end."""
        while True:
            if (pause_s := self._pause_s) > 0:
                await self.sleep(pause_s)
            await self._take(self._requests, 1)
            await self._take(self._tokens, tokens)
            if self._pause_s <= 0:
                return

    @property
    def _pause_s(self) -> float:
        return self._paused_until - asyncio.get_running_loop().time()

    async def _take(self, limiter: AsyncLimiter | None, amount: float) -> None:
        """Take from what a minute allows, in parts as large as the limiter hands out at once."""
        while limiter is not None and amount > 0:
            part = min(amount, limiter.max_rate)
            await self._patiently(limiter.acquire(part))
            amount -= part

    async def _patiently(self, waiting: Coroutine[Any, Any, None]) -> None:
        """Wait for something, unless the run is asked to end meanwhile."""
        task = asyncio.ensure_future(waiting)
        try:
            while not (await asyncio.wait({task}, timeout=_LOOK_S))[0]:
                self.go_on()
        finally:
            task.cancel()

    async def _wait_for_room(self, most_usd: float) -> None:
        """Wait until those in flight leave room, in the budget and in the window."""
        while True:
            if refusal := self._budget.refusal(most_usd):
                self._stop.request(refusal)
            self.go_on()
            if self._has_room(most_usd):
                return
            await self._next_end()

    def _has_room(self, most_usd: float) -> bool:
        return self._budget.has_room(most_usd) and (self._window is None or self._window.has_room)

    async def _next_end(self) -> None:
        self._ended.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                await self._ended.wait()


def _per_minute(limit: float | None) -> AsyncLimiter | None:
    """Spread a minute's allowance over its seconds: a bucket of a whole minute would let two minutes' worth through."""
    return None if limit is None else AsyncLimiter(max(1.0, limit / 60), max(1.0, 60 / limit))
