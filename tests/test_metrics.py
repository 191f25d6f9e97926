"""The sums, against figures worked out by hand."""

from dataclasses import replace

import pytest

from runner.config.schema import BatchConfig
from runner.metrics.definitions import NAMES, in_order
from runner.metrics.steps import divide_into_steps
from runner.metrics.summary import summarize
from tests.factories import completion, failure, not_superseded, timing


def test_a_ragged_batch_is_counted_by_hand():
    # batch 0: 3 rows, inputs 2, 4, 6 (width 6: 18 slots, 12 real); outputs 1, 3, 8 (8 steps: 24 slots, 12 useful)
    # batch 1: 1 row, input 5, output 2: nothing padded, nobody waits
    first, second = timing(0.0, 2.0, 0.4), timing(2.5, 1.0, 0.2)
    outcomes = [
        completion("a", 2, 1, when=first),
        completion("b", 4, 3, when=first),
        completion("c", 6, 8, when=first),
        completion("d", 5, 2, batch=1, when=second),
    ]
    metrics = summarize(not_superseded(outcomes), padded=True, measured_s={0: 4.0})
    assert metrics["completed_prompts"] == 4
    assert metrics["failed_prompts"] == 0
    assert metrics["input_tokens"] == 17
    assert metrics["output_tokens"] == 14
    assert metrics["prompt_padding_ratio"] == pytest.approx(1 - 17 / 23)
    assert metrics["tail_wait_ratio"] == pytest.approx(1 - 14 / 26)
    assert metrics["output_tokens_per_s"] == pytest.approx(3.5)
    assert metrics["prompts_per_s"] == pytest.approx(1.0)
    # two calls are two samples, however many rows each has
    assert metrics["latency_samples"] == 2
    assert metrics["latency_p50_s"] == pytest.approx((2.0 + 1.0) / 2)
    assert metrics["time_to_first_token_p50_s"] == pytest.approx((0.4 + 0.2) / 2)
    # a step of batch 0 took (2.0 - 0.4) / 7, of batch 1 (1.0 - 0.2) / 1
    assert metrics["inter_token_latency_p50_s"] == pytest.approx((1.6 / 7 + 0.8) / 2)
    # the calls cover 0..2 and 2.5..3.5 of the 4 seconds
    assert metrics["overhead_s"] == pytest.approx(1.0)


def test_several_answers_count_their_prompt_once():
    outcomes = [completion("a", 5, tokens, choice=choice) for choice, tokens in enumerate((2, 4))]
    metrics = summarize(not_superseded(outcomes), padded=True, measured_s={0: 1.0})
    assert metrics["completed_prompts"] == 1
    assert metrics["input_tokens"] == 5
    assert metrics["output_tokens"] == 6
    assert metrics["tail_wait_ratio"] == pytest.approx(1 - 6 / 8)


def test_a_failure_is_counted_and_leaves_no_trace_in_the_token_figures():
    metrics = summarize(not_superseded([completion("a", 3, 3), failure("b")]), padded=True, measured_s={0: 1.0})
    assert (metrics["completed_prompts"], metrics["failed_prompts"]) == (1, 1)
    assert metrics["prompt_padding_ratio"] == 0
    assert metrics["input_tokens"] == 3


def test_a_run_without_completions_has_no_rates_and_no_percentiles():
    metrics = summarize(not_superseded([failure("a")]), padded=True, measured_s={0: 1.0})
    assert set(metrics) == {
        "completed_prompts", "failed_prompts", "input_tokens", "output_tokens", "retries", "duration_s", "overhead_s",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("samples", "stated"),
    [(1, {50}), (9, {50}), (10, {50, 90}), (20, {50, 90, 95}), (99, {50, 90, 95}), (100, {50, 90, 95, 99})],
)
def test_a_percentile_needs_enough_samples(samples: int, stated: set[int]):
    outcomes = [completion(str(i), batch=i, when=timing(i, latency_s=i + 1)) for i in range(samples)]
    metrics = summarize(not_superseded(outcomes), padded=False, measured_s={0: samples + 1})
    assert {rank for rank in (50, 90, 95, 99) if f"latency_p{rank}_s" in metrics} == stated


def test_four_static_batches_have_a_median_and_no_p90():
    """64 prompts in batches of 16 are 64 copies of four latencies: p90 and p95 would be the slowest batch."""
    outcomes = [
        completion(f"{batch}-{row}", batch=batch, when=timing(2.0 * batch, latency_s=batch + 1))
        for batch in range(4) for row in range(16)
    ]  # fmt: skip
    metrics = summarize(not_superseded(outcomes), padded=True, measured_s={0: 8.0})
    assert (metrics["completed_prompts"], metrics["latency_samples"]) == (64, 4)
    assert metrics["latency_p50_s"] == pytest.approx(2.5)
    assert not {"latency_p90_s", "latency_p95_s", "time_to_first_token_p90_s"} & metrics.keys()


def test_modes_without_padded_batches_have_no_padding_figures():
    metrics = summarize(not_superseded([completion("a", 3, 3)]), padded=False, measured_s={0: 1.0})
    assert "prompt_padding_ratio" not in metrics
    assert "tail_wait_ratio" not in metrics


def test_overlapping_requests_are_covered_once():
    outcomes = [completion(str(i), batch=i, when=timing(0.1 * i, latency_s=1.0)) for i in range(5)]
    assert summarize(not_superseded(outcomes), padded=False, measured_s={0: 1.5})["overhead_s"] == pytest.approx(0.1)


def test_a_service_that_does_not_stream_has_no_first_token():
    metrics = summarize(not_superseded([completion("a", when=timing(first_s=None))]), padded=False, measured_s={0: 1.0})
    assert not [name for name in metrics if "token_p" in name or "inter_token" in name]


def test_retries_are_counted_once_a_prompt():
    outcomes = [completion("a", attempts=3), completion("a", attempts=3, choice=1), completion("b", batch=1)]
    assert summarize(not_superseded(outcomes), padded=False, measured_s={0: 1.0})["retries"] == 2


def test_time_that_was_spent_on_what_was_tried_again_is_spent():
    # segment 0, killed: calls at 0..3 (failed, tried again) and 1..2; segment 1, measured: one call, 100..101 of 1.5 s
    first = [replace(failure("a", when=timing(0, 3.0)), attempts=4)]
    last = [completion("b", batch=1, when=timing(1, 1.0)), replace(completion("a", when=timing(100, 1.0)), segment=1)]
    metrics = summarize(
        [*((outcome, True) for outcome in first), *not_superseded(last)], padded=False, measured_s={1: 1.5}
    )
    assert metrics["duration_s"] == pytest.approx(3 + 1.5)
    assert metrics["overhead_s"] == pytest.approx(0.5), "the calls cover 0..3 and 100..101"
    assert metrics["prompts_per_s"] == pytest.approx(2 / 4.5)
    assert metrics["retries"] == 3
    assert (metrics["completed_prompts"], metrics["failed_prompts"]) == (2, 0)


def test_a_segment_without_outcomes_took_its_time_too():
    metrics = summarize(not_superseded([completion("a")]), padded=False, measured_s={0: 1.0, 1: 30.0})
    assert metrics["duration_s"] == pytest.approx(31)


CONTRACT = """completed_prompts failed_prompts input_tokens output_tokens duration_s load_s output_tokens_per_s prompts_per_s
latency_p50_s latency_p90_s latency_p95_s latency_p99_s
time_to_first_token_p50_s time_to_first_token_p90_s time_to_first_token_p95_s time_to_first_token_p99_s
inter_token_latency_p50_s inter_token_latency_p99_s
retries prompt_padding_ratio tail_wait_ratio cost_usd overhead_s peak_memory_mb"""


def test_metrics_come_in_the_order_of_the_contract_and_under_no_other_name():
    assert list(in_order(dict.fromkeys(reversed(CONTRACT.split()), 1.0))) == CONTRACT.split()
    with pytest.raises(ValueError, match="tokens_per_hour"):
        in_order({"tokens_per_hour": 1.0, "retries": 0.0})


def test_every_metric_has_a_name_of_the_contract():
    outcomes = [completion(str(i), 2, 2, batch=i, when=timing(i)) for i in range(100)]
    assert set(summarize(not_superseded(outcomes), padded=True, measured_s={0: 100.0})) <= set(NAMES)


def test_a_static_batch_is_a_step_and_so_are_size_outcomes_of_other_modes():
    outcomes = [completion(str(i), batch=i // 3) for i in range(7)]
    static = BatchConfig(mode="static", size=3, order="given", warmup=0, detach=False)
    for config, expected in (
        (static, [3, 3, 1]),
        (static.model_copy(update={"mode": "concurrent", "size": 5}), [5, 2]),
    ):
        assert [step.metrics["batch/output_tokens"] for step in divide_into_steps(outcomes, config)] == expected


def test_a_step_stays_what_it_was_when_the_run_goes_on():
    config = BatchConfig(mode="concurrent", size=3, order="given", warmup=0, detach=False)
    first = [completion(str(i), 1, i, batch=i) for i in range(5)]
    later = [replace(completion(str(i), 1, i, batch=i), segment=1) for i in range(5, 9)]
    before, after = list(divide_into_steps(first, config)), list(divide_into_steps([*first, *later], config))
    assert after[:2] == before
    assert [step.metrics["batch/output_tokens"] for step in after] == [0 + 1 + 2, 3 + 4, 5 + 6 + 7, 8]
    assert [step.number for step in after] == [0, 1, 2, 3]
