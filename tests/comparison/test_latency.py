"""Intervals of percentiles, against order statistics worked out by hand, and what decided a speed besides batches."""

from pathlib import Path

import pytest

from runner.comparison.compare import compare_folders
from runner.comparison.present.json import as_data
from runner.comparison.present.tables import speed_table
from runner.metrics.summary import summarize
from runner.types import Outcome
from tests.comparison.helpers import Write, note_texts, sentences
from tests.factories import completion, not_superseded, timing


def run_of(write_run: Write, name: str, outcomes: list[Outcome], *overrides: str) -> Path:
    metrics = summarize(not_superseded(outcomes), padded=False, measured_s={0: 1000.0})
    return write_run(name, outcomes, *overrides, metrics=metrics)


def test_a_percentile_has_the_interval_of_its_order_statistics(write_run: Write):
    """Of 100 calls, 39 to 60 lie under the median with at least 95 %: P(X <= 39) is 1.8 %, P(X <= 40) is 2.8 %."""
    outcomes: list[Outcome] = [
        completion(str(i), batch=i, when=timing(i, latency_s=i + 1.0, first_s=(i + 1.0) / 10)) for i in range(100)
    ]
    folders = [run_of(write_run, name, outcomes, f"batch.size={size}") for name, size in (("a", 1), ("b", 4))]
    comparison = compare_folders(folders)
    for run in as_data(comparison)["runs"]:
        metrics = run["metrics"]
        assert (metrics["latency_p50_s_low"], metrics["latency_p50_s_high"]) == (40.0, 61.0)
        assert metrics["time_to_first_token_p50_s_low"] == pytest.approx(4.0)
        assert metrics["latency_p99_s_low"] == 97.0, "P(X <= 96) is 1.8 %, P(X <= 97) is 7.9 %"
        assert "latency_p99_s_high" not in metrics, "the largest of 100 is under p99 in 37 % of cases"
        assert "inter_token_latency_p50_s_low" not in metrics
    assert comparison.metrics[folders[0]]["latency_p50_s_low"] == 40.0, "what MLflow gets"


def test_rows_of_a_batch_are_one_sample_of_the_interval(write_run: Write):
    """16 batches of 4: of 16 calls, 3 to 12 lie under the median; of 64 rows it would look twice as exact."""
    outcomes: list[Outcome] = [
        completion(f"{batch}-{row}", batch=batch, when=timing(20.0 * batch, latency_s=batch + 1.0))
        for batch in range(16)
        for row in range(4)
    ]
    (run,) = as_data(compare_folders([run_of(write_run, "a", outcomes)]))["runs"]
    assert (run["metrics"]["latency_p50_s_low"], run["metrics"]["latency_p50_s_high"]) == (4.0, 13.0)


def test_prompts_of_one_list_have_no_interval_and_four_calls_neither(write_run: Write):
    listed: list[Outcome] = [completion(str(i), when=timing(latency_s=i + 1.0)) for i in range(100)]
    few: list[Outcome] = [completion(str(i), batch=i, when=timing(i, latency_s=i + 1.0)) for i in range(4)]
    folders = [run_of(write_run, "a", listed, "batch.size=100"), run_of(write_run, "b", few, "batch.size=1")]
    for run in as_data(compare_folders(folders))["runs"]:
        assert "latency_p50_s" in run["metrics"]
        assert not [name for name in run["metrics"] if name.startswith("latency") and name.endswith(("_low", "_high"))]


def test_a_run_that_its_own_limits_bound_says_so(write_run: Write):
    """16 requests of 1 s in flight would be 16 a second; at 600 a minute they are 10: each waits 0.6 s in 1.6 s."""
    bound, free = {"queued_p50_s": 0.6, "latency_p50_s": 1.0}, {"queued_p50_s": 0.05, "latency_p50_s": 1.0}
    folders = [
        write_run("a", sentences(2), "batch.size=16", "limits.requests_per_minute=600", metrics=bound),
        write_run("b", sentences(2), "batch.size=4", metrics=free),
        write_run("c", sentences(2), "batch.size=auto", metrics=bound),
    ]
    notes = note_texts(compare_folders(folders))
    assert (
        "a (waited 0.60 s, took 1.00 s). Their speed is bound by limits.requests_per_minute=600.0, and not by batch.size"
    ) in notes
    assert "b (waited" not in notes
    assert "c (waited" not in notes, "auto waits for room until it knows how much there is"


@pytest.mark.parametrize(
    ("overrides", "retries", "cause"),
    [
        ([], 3.0, "bound by the pauses that the service asked for"),
        ([], 0.0, "bound by this client, which sends one request after another"),
        (["limits.max_cost_usd=5"], 3.0, "bound by limits.max_cost_usd=5.0 or the pauses that the service asked for"),
    ],
)
def test_what_calls_waited_for_is_said_as_far_as_it_is_known(
    overrides: list[str], retries: float, cause: str, write_run: Write
):
    """A service that throttled no request asked for no pause."""
    waited = {"queued_p50_s": 3.2, "latency_p50_s": 1.1, "retries": retries}
    assert cause in note_texts(compare_folders([write_run("d", sentences(2), *overrides, metrics=waited)]))


def test_milliseconds_in_which_requests_are_built_are_no_limit(write_run: Write):
    waited = {"queued_p50_s": 0.004, "latency_p50_s": 0.001}
    assert "waited" not in note_texts(compare_folders([write_run("d", sentences(2), metrics=waited)]))


def test_a_cost_with_lost_answers_is_said_to_be_a_lower_bound_and_does_not_win(write_run: Write):
    lost = {"cost_usd": 1.0, "cost_at_most_usd": 3.5, "completed_prompts": 1000.0}
    folders = [
        write_run("lost", sentences(2), "batch.size=1", metrics=lost),
        write_run("whole", sentences(2), "batch.size=4", metrics={"cost_usd": 2.0, "completed_prompts": 1000.0}),
    ]
    comparison = compare_folders(folders)
    assert "the costs of these runs are lower bounds: lost ($1.0000 to $3.5000)" in note_texts(comparison)
    table = speed_table(comparison, width=0)
    assert [row[table.columns.index("$/1k")].strip() for row in table.rows] == ["1.00", "2.00"]
    assert "lower bound" not in note_texts(compare_folders(folders[1:]))


def test_unlike_shares_of_cached_input_are_a_note(write_run: Write):
    tokens = {"input_tokens": 100.0}
    cold = write_run("a", sentences(2), "batch.size=1", metrics=tokens)
    warm = write_run("b", sentences(2), "batch.size=4", metrics={**tokens, "cached_input_tokens": 80.0})
    assert "from its prompt cache: a (0%), b (80%)" in note_texts(compare_folders([cold, warm]))
    alike = write_run("c", sentences(2), "batch.size=4", metrics={**tokens, "cached_input_tokens": 85.0})
    assert "prompt cache" not in note_texts(compare_folders([warm, alike]))
