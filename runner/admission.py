"""When the next attempt may leave: owns the line in which all attempts stand, the shared pause and the limits a minute.

Only the head of the line is looked at, so that attempts leave in the order in which they came, and none of them holds a
part of what another one waits for.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

from runner.budget import Budget
from runner.call import Call
from runner.config import LimitsConfig
from runner.interrupts import Stop
from runner.records import Outcome
from runner.window import Window

log = logging.getLogger(__name__)

_LOOK_S = 0.2
"""How often what waits looks whether the run is to end."""
_BURST_S = 1.0
"""How much of an unused allowance may be used later: a whole minute's would let two minutes' worth through."""
_SAID_FROM_S = 10.0
"""A pause as long as this looks like a hang, unless it is said."""


class Rate:
    """An amount a minute, handed out evenly: what a second allows at once, or one request that takes more.

    A clock that each taking puts forward by the time which it uses up (generic cell rate algorithm, ITU-T I.371).
    """

    def __init__(self, per_minute: float | None) -> None:
        self._per_s = math.inf if per_minute is None else per_minute / 60
        self._used_until = 0.0

    def due_at(self, amount: float) -> float:
        """Return the time from which on so much may be taken."""
        return self._used_until - max(0.0, _BURST_S - amount / self._per_s)

    def take(self, amount: float, now: float) -> None:
        """Take it."""
        self._used_until = max(now, self._used_until) + amount / self._per_s


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
        self._requests, self._tokens = Rate(limits.requests_per_minute), Rate(limits.tokens_per_minute)
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
            await self._wait(call.tokens, most_usd)
            now = asyncio.get_running_loop().time()
            self._requests.take(1, now)
            self._tokens.take(call.tokens, now)
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
        clock = asyncio.get_running_loop()
        until = clock.time() + seconds
        while (left_s := until - clock.time()) > 0:
            self.go_on()
            await asyncio.sleep(min(left_s, _LOOK_S))

    def go_on(self) -> None:
        """Raise why nothing more is to be sent, if so: an error that every request would meet, or a wish to end."""
        if self._stop.reason is not None:
            raise self._stop.reason

    async def _wait(self, tokens: float, most_usd: float) -> None:
        """Wait for room among those in flight, then for the time. Nothing is taken before all of it can be."""
        clock = asyncio.get_running_loop()
        while True:
            if refusal := self._budget.refusal(most_usd):
                self._stop.request(refusal)
            self.go_on()
            due_at = max(self._paused_until, self._requests.due_at(1), self._tokens.due_at(tokens))
            if not self._has_room(most_usd):
                await self._next_end()
            elif (left_s := due_at - clock.time()) > 0:
                await asyncio.sleep(min(left_s, _LOOK_S))
            else:
                return

    def _has_room(self, most_usd: float) -> bool:
        return self._budget.has_room(most_usd) and (self._window is None or self._window.has_room)

    async def _next_end(self) -> None:
        self._ended.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                await self._ended.wait()
