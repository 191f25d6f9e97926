"""When the next request may leave: owns the queue of all attempts, the shared pause and the limits per minute.

Only the head of the queue waits for anything, so that attempts leave in the order in which they came, and none holds a
part of what another one waits for.
"""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from aiolimiter import AsyncLimiter

from runner.config.schema import LimitsConfig
from runner.dispatch.adaptive_concurrency import AdaptiveConcurrency
from runner.dispatch.budget import Budget
from runner.dispatch.call import Call
from runner.dispatch.stop import StopRequest
from runner.types import Generated

log = logging.getLogger(__name__)

_POLL_S = 0.2
"""How often what waits checks whether the run is to stop."""
_LOGGED_PAUSE_S = 10.0
"""A pause as long as this looks like a hang unless it is logged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """What an attempt in flight holds."""

    number: int
    max_cost_usd: float


class RequestGate:
    """Lets attempts leave, one after another.

    Args:
        limits: requests and tokens per minute.
        budget: has room for an attempt, or will have, or refuses it.
        concurrency: finds how many requests may be in flight; None leaves that to the mode.
        stop: ends all waiting: nothing more leaves.
    """

    def __init__(
        self, limits: LimitsConfig, budget: Budget, concurrency: AdaptiveConcurrency | None, stop: StopRequest
    ) -> None:
        self._requests = _per_minute(limits.requests_per_minute)
        self._tokens = _per_minute(limits.tokens_per_minute)
        self._budget, self._concurrency, self._stop = budget, concurrency, stop
        self._paused_until = self._logged_until = 0.0
        self._queue = asyncio.Lock()
        self._released = asyncio.Event()

    async def acquire(self, call: Call) -> Permit:
        """Wait until an attempt may leave, and take what it needs.

        Raises:
            Stopped: nothing more is to be sent; the budget's refusal of this attempt is such a reason.
        """
        max_cost_usd = self._budget.cost_usd(call.max_input_tokens, call.max_output_tokens)
        async with self._queue:
            await self._wait_for_room(max_cost_usd)
            await self._wait_for_limits(call.tokens)
            self._budget.reserve(max_cost_usd)
            number = self._concurrency.acquire() if self._concurrency else 0
            return Permit(number=number, max_cost_usd=max_cost_usd)

    def release(self, permit: Permit, results: Sequence[Generated], *, lost: bool) -> None:
        """Return what an attempt held. `lost`: it has no answer, and may be billed all the same."""
        self._budget.settle(permit.max_cost_usd, results, lost=lost)
        if self._concurrency:
            self._concurrency.release(permit.number, answered=bool(results))
        self._released.set()

    def throttled(self, permit: Permit) -> None:
        """Take note that the service asked for fewer requests."""
        if self._concurrency:
            self._concurrency.throttled(permit.number)

    def pause(self, seconds: float, reason: str) -> None:
        """Let nothing leave for so long."""
        now = asyncio.get_running_loop().time()
        self._paused_until = max(self._paused_until, now + seconds)
        if self._paused_until - max(now, self._logged_until) >= _LOGGED_PAUSE_S:
            self._logged_until = self._paused_until
            log.info("the service asks for a pause of %.0f s (%s): waiting", seconds, reason)

    async def sleep(self, seconds: float) -> None:
        """Sleep; raises Stopped if the run is to stop meanwhile."""
        self._stop.raise_if_set()
        await self._wait_unless_stopped(asyncio.sleep(max(0.0, seconds)))

    async def _wait_for_limits(self, tokens: float) -> None:
        """Wait for the shared pause and the limits per minute; what was taken before a pause is not kept for its end."""
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
        """Take from a minute's allowance, in parts as large as the limiter grants at once."""
        while limiter is not None and amount > 0:
            part = min(amount, limiter.max_rate)
            await self._wait_unless_stopped(limiter.acquire(part))
            amount -= part

    async def _wait_unless_stopped(self, waiting: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(waiting)
        try:
            while not (await asyncio.wait({task}, timeout=_POLL_S))[0]:
                self._stop.raise_if_set()
        finally:
            task.cancel()

    async def _wait_for_room(self, max_cost_usd: float) -> None:
        """Wait until requests in flight leave room, in the budget and in the concurrency."""
        while True:
            if refusal := self._budget.refusal(max_cost_usd):
                self._stop.request(refusal)
            self._stop.raise_if_set()
            if self._has_room(max_cost_usd):
                return
            await self._wait_for_release()

    def _has_room(self, max_cost_usd: float) -> bool:
        return self._budget.has_room(max_cost_usd) and (self._concurrency is None or self._concurrency.has_room)

    async def _wait_for_release(self) -> None:
        self._released.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_POLL_S):
                await self._released.wait()


def _per_minute(limit: float | None) -> AsyncLimiter | None:
    """Spread a minute's allowance over its seconds: a bucket of a whole minute would let two minutes' worth through."""
    return None if limit is None else AsyncLimiter(max(1.0, limit / 60), max(1.0, 60 / limit))
