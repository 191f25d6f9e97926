"""Percentiles of calls, calls in flight, waiting and streams, against figures worked out by hand."""

from dataclasses import replace
from math import log

import numpy as np
import pytest

from runner.config.schema import BatchConfig
from runner.metrics.definitions import MEASURED, NAMES, format_metric
from runner.metrics.samples import Samples
from runner.metrics.steps import divide_into_steps
from runner.metrics.summary import summarize
from runner.types import Completion, Outcome
from tests.factories import completion, failure, not_superseded, timing, usage_of


def metrics_of(outcomes: list[Outcome], *, padded: bool = False, duration_s: float = 1.0) -> dict[str, float]:
    return summarize(not_superseded(outcomes), padded=padded, measured_s={0: duration_s})


def with_usage(answer: Completion, **usage: int) -> Completion:
    return replace(answer, usage=replace(usage_of(answer), **usage))


def test_prompts_of_one_list_request_have_their_own_times_and_are_one_call():
    outcomes = [completion(str(row), when=timing(latency_s=row + 1.0)) for row in range(20)]
    metrics = metrics_of([*outcomes], duration_s=20)
    assert metrics["latency_samples"] == 1
    assert metrics["latency_p50_s"] == pytest.approx(10.5), "of 1, 2, ... 20 s"
    assert "latency_p90_s" not in metrics, "20 samples, but one call"


def test_what_a_call_waited_is_a_metric_of_its_own_and_no_overhead():
    # wanted at 0 and 4, sent at 3 and 5, each takes 1 s: 0..4 and 4..6 of 8 s are waiting or in flight
    first, second = replace(timing(3.0), queued_s=3.0), replace(timing(5.0), queued_s=1.0)
    metrics = metrics_of([completion("a", when=first), completion("b", batch=1, when=second)], duration_s=8.0)
    assert metrics["queued_p50_s"] == pytest.approx(2.0)
    assert metrics["latency_p50_s"] == pytest.approx(1.0), "waiting for own limits is no part of it"
    assert metrics["overhead_s"] == pytest.approx(2.0)


def test_a_record_without_the_new_fields_has_none_of_their_metrics():
    metrics = metrics_of([completion("a", 5, 3, attempts=2)])
    absent = ("queued", "inter_chunk", "time_to_first_answer", "reasoning", "cached", "prefill")
    assert not [name for name in metrics if name.startswith(absent)]
    assert metrics["decode_s"] == pytest.approx(0.5)


def test_every_gap_of_a_stream_counts_and_the_mean_of_a_request_is_another_metric():
    # gaps 0.1, 0.1, 1.0 and 0.2: the median of all four is 0.15; the requests' means are 1.2 / 3 and 0.2 / 1
    first = replace(timing(latency_s=1.7, first_s=0.5), chunk_gaps_s=(0.1, 0.1, 1.0))
    second = replace(timing(2.0, latency_s=0.7, first_s=0.5), chunk_gaps_s=(0.2,))
    metrics = metrics_of([completion("a", 1, 4, when=first), completion("b", 1, 2, batch=1, when=second)])
    assert metrics["inter_chunk_latency_p50_s"] == pytest.approx(0.15)
    assert metrics["inter_token_latency_p50_s"] == pytest.approx((0.4 + 0.2) / 2)


def test_after_reasoning_the_time_between_tokens_is_that_of_the_text():
    # 10 tokens, 6 of them reasoning from 1 s on; the text begins at 4 s and ends at 7 s: 3 s for the 3 tokens after it
    when = replace(timing(latency_s=7.0, first_s=1.0), time_to_first_answer_token_s=4.0)
    seen = with_usage(completion("a", 1, 10, when=when), reasoning_tokens=6)
    metrics = metrics_of([seen])
    assert metrics["inter_token_latency_p50_s"] == pytest.approx(1.0)
    assert metrics["time_to_first_token_p50_s"] == pytest.approx(1.0)
    assert metrics["time_to_first_answer_token_p50_s"] == pytest.approx(4.0)
    assert metrics["reasoning_tokens"] == 6


def test_tokens_that_nobody_saw_make_no_rate():
    hidden = with_usage(completion("a", 1, 10, when=timing(latency_s=7.0, first_s=4.0)), reasoning_tokens=6)
    assert "inter_token_latency_p50_s" not in metrics_of([hidden]), "when the reasoning came is not known"
    uncounted = replace(timing(latency_s=7.0, first_s=1.0), time_to_first_answer_token_s=4.0)
    assert "inter_token_latency_p50_s" not in metrics_of([completion("a", 1, 10, when=uncounted)])
    none = with_usage(completion("a", 1, 4, when=timing(latency_s=7.0, first_s=4.0)), reasoning_tokens=0)
    assert metrics_of([none])["inter_token_latency_p50_s"] == pytest.approx(1.0), "no reasoning at all"


def test_prefill_begins_with_the_last_attempt():
    # the last attempt began 3 s after the first, and took 2 of the 5 s; its first token came at 3.5
    retried = replace(timing(latency_s=5.0, first_s=3.5), last_attempt_latency_s=2.0)
    outcomes = [completion("a", attempts=2, when=retried), completion("b", batch=1, when=timing(6.0))]
    metrics = metrics_of([*outcomes])
    assert metrics["prefill_s"] == pytest.approx(0.5 + 0.5)
    assert metrics["decode_s"] == pytest.approx(1.5 + 0.5)


def test_rates_of_input_and_of_all_tokens():
    metrics = metrics_of([with_usage(completion("a", 6, 4), cached_input_tokens=2)], duration_s=2.0)
    assert metrics["input_tokens_per_s"] == pytest.approx(3.0)
    assert metrics["total_tokens_per_s"] == pytest.approx(5.0)
    assert metrics["cached_input_tokens"] == 2


def test_calls_in_flight_are_counted_over_all_calls_the_failed_too():
    # 0..2, 1..3 (failed), 3..4 of 5 s: 2 + 2 + 1 seconds of calls; two at once from 1 to 2; 3..4 begins where one ends
    outcomes: list[Outcome] = [
        completion("a", when=timing(0, 2.0)),
        failure("b", batch=1, when=timing(1, 2.0)),
        completion("c", batch=2, when=timing(3, 1.0)),
    ]
    metrics = metrics_of(outcomes, duration_s=5.0)
    assert metrics["mean_requests_in_flight"] == pytest.approx(1.0)
    assert metrics["peak_requests_in_flight"] == 2


def test_the_steady_rate_leaves_out_ramp_up_and_drain():
    # two slots: a 0..2, b 1..3, c 2..4, d 3..5, e 4..8 alone from 5 on; 10 tokens each, evenly from start to end
    spans = {"a": (0.0, 2.0), "b": (1.0, 2.0), "c": (2.0, 2.0), "d": (3.0, 2.0), "e": (4.0, 4.0)}
    outcomes = [
        completion(name, 1, 10, batch=number, when=timing(start_s, latency_s, first_s=None))
        for number, (name, (start_s, latency_s)) in enumerate(spans.items())
    ]
    metrics = metrics_of([*outcomes], duration_s=8.0)
    # full from 1 to 5: half of a, all of b, c and d, a quarter of e: 5 + 30 + 2.5 tokens in 4 s
    assert metrics["steady_output_tokens_per_s"] == pytest.approx(37.5 / 4)
    assert metrics["output_tokens_per_s"] == pytest.approx(50 / 8)


def test_a_run_that_was_never_full_for_long_has_no_steady_rate():
    outcomes = [completion(str(i), 1, 10, batch=i, when=timing(0.1 * i, 1.0)) for i in range(4)]
    metrics = metrics_of([*outcomes], duration_s=1.3)
    assert metrics["peak_requests_in_flight"] == 4
    assert "steady_output_tokens_per_s" not in metrics, "one of four calls ended while four were in flight"


def test_static_batches_in_this_process_have_no_requests_in_flight():
    assert not [name for name in metrics_of([completion("a")], padded=True) if "flight" in name or "steady" in name]


def test_a_step_of_overlapping_requests_has_its_wall_time():
    # pairs end at 2 and 4: 0..1, 0..2 | 1..3, 2..4; 8 tokens a step. The second step's 2 s begin where the first ended
    spans = [(0.0, 1.0), (0.0, 2.0), (1.0, 2.0), (2.0, 2.0)]
    outcomes = [completion(str(i), 1, 4, batch=i, when=timing(*span)) for i, span in enumerate(spans)]
    config = BatchConfig(mode="concurrent", size=2, order="given", warmup=0, detach=False)
    rates = [step.metrics["batch/output_tokens_per_s"] for step in divide_into_steps(outcomes, config)]
    assert rates == pytest.approx([8 / 2, 8 / 2])


def test_a_step_does_not_count_the_time_in_which_nothing_was_sent():
    outcomes = [completion(str(i), 1, 4, batch=i, when=timing(10.0 * i, 2.0)) for i in range(2)]
    config = BatchConfig(mode="static", size=1, order="given", warmup=0, detach=False)
    rates = [step.metrics["batch/output_tokens_per_s"] for step in divide_into_steps(outcomes, config)]
    assert rates == pytest.approx([2.0, 2.0])


def test_millions_of_gaps_are_counted_in_bins_within_half_a_percent():
    gaps_s = np.random.default_rng(7).lognormal(log(0.02), 1.0, size=1_200_000)
    samples = Samples()
    for call in gaps_s.reshape(1200, 1000):
        samples.add_call(call.tolist())
    percentiles = samples.percentiles("inter_chunk_latency")
    assert len(samples.exact) == 0, "8 bytes a gap are given back"
    for rank in (50, 99):
        exact_s = float(np.percentile(gaps_s, rank))
        assert percentiles[f"inter_chunk_latency_p{rank}_s"] == pytest.approx(exact_s, rel=0.006)


def test_a_gap_of_nothing_and_one_of_a_day_have_a_bin():
    samples = Samples()
    samples.add_call([0.0] * (1 << 20))
    samples.add_call([86_400.0])
    samples.add_call([0.0])
    assert samples.percentiles("inter_chunk_latency")["inter_chunk_latency_p50_s"] == pytest.approx(1e-6, rel=0.01)


def test_every_name_follows_from_outcomes_or_is_measured_or_needs_a_price():
    when = replace(timing(first_s=0.2), time_to_first_answer_token_s=0.4, queued_s=0.1, chunk_gaps_s=(0.1,))
    answers = [
        with_usage(completion(str(i), 2, 4, batch=i, when=replace(when, started_at=timing(i).started_at)),
                   reasoning_tokens=1, cached_input_tokens=1)
        for i in range(100)
    ]  # fmt: skip
    computed = metrics_of([*answers], duration_s=100).keys() | metrics_of([*answers], padded=True).keys()
    assert computed | MEASURED | {
        "cost_usd",
        "cost_at_most_usd",
        "first_call_ratio",
        "job_queue_s",
        "job_run_s",
    } == set(NAMES)
    assert not computed & MEASURED


def test_an_end_of_an_interval_has_the_unit_of_its_metric():
    assert format_metric("latency_p50_s_high", 1.5) == format_metric("latency_p50_s", 1.5) == "1.500 s"
    assert format_metric("mean_requests_in_flight", 15.73) == "15.73"
