"""Finds how many requests a service takes at once, from requests sent, answers and refusals."""


class AdaptiveConcurrency:
    """How many requests may be in flight, found by additive increase and multiplicative decrease.

    It doubles per round of answers until the service first throttles, then grows by one per round, and halves when it
    is throttled: once for all requests that were sent before the last halving, since they tell of the same excess.
    Source: Chiu and Jain 1989, as in TCP's slow start and congestion avoidance (RFC 5681). It grows only by the
    answers to requests during which it was full: an answer to fewer says nothing of more (RFC 7661).

    Attributes:
        path: how many requests were in flight, each time the window was full anew, from how many answers on.
    """

    def __init__(self, first: int, most: int) -> None:
        self.path: list[tuple[int, int]] = []
        self._most = float(most)
        self._limit = min(float(first), self._most)
        self._in_flight = self._sent = self._answered = self._full_at = self._halved_at = 0
        self._slow_start = True

    @property
    def has_room(self) -> bool:
        """Whether one more request may be in flight."""
        return self._in_flight < int(self._limit)

    def acquire(self) -> int:
        """Count a request that is sent; return its number."""
        self._in_flight += 1
        self._sent += 1
        if not self.has_room:
            self._full_at = self._sent
            self._note()
        return self._sent

    def release(self, number: int, *, answered: bool) -> None:
        """Count a request that ended; if it was answered, and the window full while it ran, there is more room."""
        self._in_flight -= 1
        if answered:
            self._answered += 1
            if self._full_at >= number:
                self._limit = min(self._most, self._limit + (1 if self._slow_start else 1 / self._limit))

    def throttled(self, number: int) -> None:
        """Halve, if this request was sent after the last halving."""
        if number > self._halved_at:
            self._halved_at = self._sent
            self._slow_start = False
            self._limit = max(1.0, self._limit / 2)

    def _note(self) -> None:
        if not self.path or self.path[-1][1] != self._in_flight:
            self.path.append((self._answered, self._in_flight))
