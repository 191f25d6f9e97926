"""How many requests a service takes at once. Knows nothing but answers and refusals."""

import asyncio


class Window:
    """How many requests may be in flight, found by additive increase and multiplicative decrease.

    It doubles per round of answers until the service first throttles, then grows by one per round, and halves when it
    is throttled: once for all requests that were sent before the last halving, since they tell of the same excess.
    Source: Chiu and Jain 1989, as in TCP's slow start and congestion avoidance (RFC 5681).
    """

    def __init__(self, first: int, most: int) -> None:
        self.path: list[tuple[int, int]] = [(0, first)]
        self._limit, self._most = float(first), most
        self._in_flight = self._answered = self._round = 0
        self._slow_start = True
        self._room = asyncio.Condition()

    async def enter(self) -> int:
        """Wait for room; return the round in which this request is sent."""
        async with self._room:
            await self._room.wait_for(lambda: self._in_flight < int(self._limit))
            self._in_flight += 1
            return self._round

    async def leave(self) -> None:
        """Make room, and more of it if all is well."""
        async with self._room:
            self._in_flight -= 1
            self._answered += 1
            self._set(self._limit + (1 if self._slow_start else 1 / self._limit))
            self._room.notify_all()

    def throttled(self, sent_in_round: int) -> None:
        """Halve, if this request was sent after the last halving."""
        if sent_in_round == self._round:
            self._round += 1
            self._slow_start = False
            self._set(self._limit / 2)

    def _set(self, limit: float) -> None:
        self._limit = min(max(1.0, limit), float(self._most))
        if int(self._limit) != self.path[-1][1]:
            self.path.append((self._answered, int(self._limit)))
