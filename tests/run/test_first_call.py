"""The first call of a process is compared with the pace of later calls of like size. Each ratio is worked out by hand."""

from dataclasses import replace
from pathlib import Path

import pytest

from runner import app
from runner.run.first_call import FirstCalls
from runner.types import Completion, Timing
from tests.conftest import Compose
from tests.factories import completion, failure, prompts_file, summary_of, timing


def batch(
    number: int, start_s: float, first_s: float, step_s: float, *, width: int = 20, steps: int = 11, segment: int = 0
) -> list[Completion]:
    """Return a batch of two rows: a prompt's pass of `first_s`, and steps of `step_s` after the first token."""
    when = timing(start_s, first_s + step_s * (steps - 1), first_s)
    rows = [completion("a", width, steps, batch=number, when=when), completion("b", 3, 2, batch=number, when=when)]
    return [replace(row, segment=segment) for row in rows]


def ratio(*calls: list[Completion]) -> float | None:
    first_calls = FirstCalls()
    for call in calls:
        for outcome in call:
            first_calls.add(outcome)
    return first_calls.ratio()


def test_a_slow_first_call_is_over_what_its_peers_pace_gives():
    """The first takes 1 + 10 x 0.2 = 3 s. Its peers' pace: 0.5 s, and 0.1 s a step: 0.5 + 10 x 0.1 = 1.5 s."""
    peers = [batch(number, 10.0 * number, 0.5, 0.1, width=16) for number in (1, 2, 3)]
    assert ratio(batch(0, 0.0, 1.0, 0.2), *peers) == pytest.approx(2.0)


def test_a_first_call_with_longer_answers_is_no_slower_for_that():
    """0.5 + 40 x 0.1 = 4.5 s against peers of 1.5 s, which would take 4.5 s for as many steps."""
    peers = [batch(number, 10.0 * number, 0.5, 0.1) for number in (1, 2, 3)]
    assert ratio(batch(0, 0.0, 0.5, 0.1, steps=41), *peers) == pytest.approx(1.0)


def test_calls_of_other_sizes_are_no_peers():
    """14 of 20 tokens are less than three quarters; a last batch has fewer rows; two peers are too few."""
    narrow = [batch(number, 10.0 * number, 0.1, 0.1, width=14) for number in (1, 2, 3)]
    assert ratio(batch(0, 0.0, 1.0, 0.2), *narrow) is None
    short = [batch(number, 10.0 * number, 0.1, 0.1)[:1] for number in (1, 2, 3)]
    assert ratio(batch(0, 0.0, 1.0, 0.2), *short) is None
    assert ratio(batch(0, 0.0, 1.0, 0.2), *(batch(number, 10.0 * number, 0.5, 0.1) for number in (1, 2))) is None


def test_calls_that_began_beside_the_first_one_are_as_cold_and_no_peers():
    cold = [batch(number, 0.1 * number, 1.0, 0.2) for number in range(8)]
    warm = [batch(10 + number, 10.0 + number, 0.5, 0.1) for number in range(3)]
    assert ratio(*cold) is None
    assert ratio(*cold, *warm) == pytest.approx(2.0)


def test_each_process_of_a_resumed_run_has_a_first_call_and_the_slowest_counts():
    before = [batch(0, 0.0, 0.5, 0.1), *(batch(number, 10.0 * number, 0.5, 0.1) for number in (1, 2, 3))]
    after = [batch(4, 100.0, 1.5, 0.3, segment=1)]
    after += [batch(number, 100.0 + 10 * number, 0.5, 0.1, segment=1) for number in (5, 6, 7)]
    assert ratio(*before, *after) == pytest.approx(3.0)


def test_calls_without_a_first_token_are_compared_by_their_steps_and_failures_are_none():
    def whole(number: int, latency_s: float) -> list[Completion]:
        when = Timing(started_at=timing(10.0 * number).started_at, latency_s=latency_s)
        return [completion("a", 20, 11, batch=number, when=when)]

    calls = FirstCalls()
    calls.add(failure("f", batch=9))
    for call in (whole(0, 4.0), whole(1, 2.0), whole(2, 2.0), whole(3, 2.0)):
        calls.add(call[0])
    assert calls.ratio() == pytest.approx(2.0)
    assert FirstCalls().ratio() is None


def test_a_run_has_the_ratio_of_its_calls(config: Compose, tmp_path: Path):
    """Echo's calls all take 20 ms, the first one too."""
    steady = ("provider.latency_s=0.02", "batch.mode=static", "batch.size=1")
    app.run(config("provider=echo", *steady, *prompts_file(tmp_path, 6)), tmp_path / "r")
    assert 0.5 < summary_of(tmp_path / "r").metrics["first_call_ratio"] < 2
    app.run(config("provider=echo", *steady, *prompts_file(tmp_path, 3)), tmp_path / "few")
    assert "first_call_ratio" not in summary_of(tmp_path / "few").metrics
