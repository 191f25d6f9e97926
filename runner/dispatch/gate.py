"""Decides when the next attempt may leave: owns the queue of attempts, the shared pause and the limits per minute.

Only the head of the queue waits for the limits. Attempts therefore leave in the order in which they were queued, and
none holds requests or tokens that another one waits for.
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
from runner.providers.errors import CallError
from runner.types import Generated

log = logging.getLogger(__name__)

_POLL_S = 0.2
"""How often a waiting attempt checks whether the run is to stop."""
_MIN_LOGGED_PAUSE_S = 10.0
"""A pause of this length looks like a hang unless a line in the log explains it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """Permission for one attempt. Held while the attempt is in flight.

    Attributes:
        number: the attempt's number in AdaptiveConcurrency.
        max_cost_usd: what the budget has reserved for the attempt.
    """

    number: int
    max_cost_usd: float


class RequestGate:
    """Gives attempts their permits, one after another.

    Args:
        limits: requests and tokens per minute.
        budget: reserves an attempt's maximum cost, or refuses the attempt.
        concurrency: bounds the requests in flight; None where the mode bounds them.
        stop: ends all waiting.
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
        """Wait until an attempt may leave, and return its permit.

        Raises:
            Stopped: no further attempt is to leave. If the budget refused this attempt, the stop request has its error.
        """
        max_cost_usd = self._budget.cost_usd(call.max_input_tokens, call.max_output_tokens)
        async with self._queue:
            await self._wait_for_room(max_cost_usd)
            await self._wait_for_limits(call.estimated_tokens)
            self._budget.reserve(max_cost_usd)
            number = self._concurrency.acquire() if self._concurrency else 0
            return Permit(number=number, max_cost_usd=max_cost_usd)

    def release(self, permit: Permit, results: Sequence[Generated], error: CallError | None) -> None:
        """Take a permit back.

        Args:
            permit: the ended attempt's.
            results: what the attempt returned; empty if it failed.
            error: why it failed; None for an answered attempt, and for a cancelled one.
        """
        may_be_billed = error is not None and not error.policy.not_billed
        self._budget.settle(permit.max_cost_usd, results, may_be_billed=may_be_billed)
        if self._concurrency:
            throttled = error is not None and error.policy.throttled
            self._concurrency.release(permit.number, answered=bool(results), throttled=throttled)
        self._released.set()

    def pause(self, seconds: float, reason: str) -> None:
        """Let no attempt leave for this many seconds."""
        now = asyncio.get_running_loop().time()
        self._paused_until = max(self._paused_until, now + seconds)
        self.log_wait(self._paused_until - now, reason)

    def log_wait(self, seconds: float, reason: str) -> None:
        """Log that a call, or every call, waits, unless a line of the log explains as long a wait already."""
        now = asyncio.get_running_loop().time()
        if now + seconds - max(now, self._logged_until) >= _MIN_LOGGED_PAUSE_S:
            self._logged_until = now + seconds
            log.info("the service asks for a pause of %.0f s (%s): waiting", seconds, reason)

    async def sleep(self, seconds: float) -> None:
        """Sleep.

        Raises:
            Stopped: the run was stopped before or meanwhile.
        """
        self._stop.raise_if_set()
        await self._wait_unless_stopped(asyncio.sleep(max(0.0, seconds)))

    async def _wait_for_limits(self, tokens: float) -> None:
        """Wait for the shared pause and for the limits per minute; after a pause, take from the limits anew."""
        while True:
            if (pause_s := self._pause_s) > 0:
                await self.sleep(pause_s)
            for limiter, amount in ((self._requests, 1), (self._tokens, tokens)):
                await self._take(limiter, amount)
            if self._pause_s <= 0:
                return

    @property
    def _pause_s(self) -> float:
        return self._paused_until - asyncio.get_running_loop().time()

    async def _take(self, limiter: AsyncLimiter | None, amount: float) -> None:
        """Take from a limit per minute, in parts as large as the limiter grants at once."""
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
        """Wait until requests in flight leave room in the budget and in the concurrency."""
        while True:
            if refusal := self._budget.refusal(max_cost_usd):
                self._stop.request(refusal)
            self._stop.raise_if_set()
            if self._budget.has_room(max_cost_usd) and (self._concurrency is None or self._concurrency.has_room):
                return
            self._released.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_S):
                    await self._released.wait()


def _per_minute(limit: float | None) -> AsyncLimiter | None:
    """Return a limiter that spreads a minute's limit over its seconds.

    A bucket of a whole minute would let the limit of two minutes through in one.
    """
    return None if limit is None else AsyncLimiter(max(1.0, limit / 60), max(1.0, 60 / limit))
