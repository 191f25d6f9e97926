"""How the limit of requests in flight follows answers and throttled requests."""

from runner.dispatch.adaptive_concurrency import AdaptiveConcurrency


def fill(concurrency: AdaptiveConcurrency) -> list[int]:
    """Send requests until the limit is reached; return their numbers."""
    numbers = []
    while concurrency.has_room:
        numbers.append(concurrency.acquire())
    return numbers


def test_the_limit_doubles_a_round_and_halves_once_for_a_round():
    concurrency = AdaptiveConcurrency(4, 100)
    for expected in (4, 8, 16):
        numbers = fill(concurrency)
        assert len(numbers) == expected
        for number in numbers:
            concurrency.release(number, answered=True)
    numbers = fill(concurrency)
    for number in numbers:
        concurrency.release(number, answered=False, throttled=True)
    assert (len(numbers), len(fill(concurrency))) == (32, 16)
    assert [requests for _, requests in concurrency.path] == [4, 8, 16, 32, 16]


def test_after_the_first_throttled_request_the_limit_grows_by_one_a_round():
    concurrency = AdaptiveConcurrency(8, 100)
    for number in fill(concurrency):
        concurrency.release(number, answered=False, throttled=True)
    for expected in (4, 4, 5, 6):
        numbers = fill(concurrency)
        assert len(numbers) == expected
        for number in numbers:
            concurrency.release(number, answered=True)


def test_a_limit_that_is_not_reached_does_not_grow():
    concurrency = AdaptiveConcurrency(4, 100)
    for _ in range(20):
        concurrency.release(concurrency.acquire(), answered=True)
    assert len(fill(concurrency)) == 4


def test_the_limit_is_never_above_its_maximum():
    assert len(fill(AdaptiveConcurrency(4, 2))) == 2
