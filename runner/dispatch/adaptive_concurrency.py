"""Finds how many requests a service accepts at once, from answers and from throttled requests."""


class AdaptiveConcurrency:
    """How many requests may be in flight, found by additive increase and multiplicative decrease.

    The limit doubles per round of answers until the service first throttles; after that it grows by one per round.
    A throttled request halves the limit, unless the request was sent before the last halving: requests of one burst
    are throttled for one reason. The limit grows only by answers to requests during which it was reached (RFC 7661).
    Source: Chiu and Jain 1989, as in TCP's slow start and congestion avoidance (RFC 5681).

    Args:
        initial: requests in flight at the start.
        max_requests: an upper bound of requests in flight.

    Attributes:
        path: (number of answers, requests in flight), one entry each time the limit was reached at another value.
    """

    def __init__(self, initial: int, max_requests: int) -> None:
        self.path: list[tuple[int, int]] = []
        self._max_requests = float(max_requests)
        self._limit = min(float(initial), self._max_requests)
        self._in_flight = self._sent = self._answered = self._last_full = self._last_halved = 0
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
            self._last_full = self._sent
            if not self.path or self.path[-1][1] != self._in_flight:
                self.path.append((self._answered, self._in_flight))
        return self._sent

    def release(self, number: int, *, answered: bool, throttled: bool = False) -> None:
        """Count a request that ended, and adapt the limit.

        Args:
            number: the request's, from `acquire`.
            answered: raises the limit if the limit was reached while the request was in flight.
            throttled: halves the limit if the request was sent after the last halving.
        """
        self._in_flight -= 1
        if answered:
            self._answered += 1
            if self._last_full >= number:
                self._limit = min(self._max_requests, self._limit + (1 if self._slow_start else 1 / self._limit))
        if throttled and number > self._last_halved:
            self._last_halved = self._sent
            self._slow_start = False
            self._limit = max(1.0, self._limit / 2)
