"""Rows of speed: repeats, speed-ups with intervals, the Pareto front and the best of a column. Each figure is worked out by hand."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from runner.comparison.compare import Comparison, compare_folders
from runner.comparison.present.headline import headline
from runner.comparison.present.tables import speed_table
from tests.comparison.helpers import Write, note_texts, sentences


def write_sweep(write_run: Write, rates: dict[int, Sequence[float]], *overrides: str, **metrics: float) -> list[Path]:
    """Write a sweep of batch sizes, each with its prompts/s by repeat."""
    sizes = list(rates)
    return [
        write_run(f"sweep/{sizes.index(size) + len(sizes) * block}", sentences(2), f"batch.size={size}",
                  f"repeat={block + 1}", *overrides, metrics={"prompts_per_s": rate, **metrics})
        for size, measured in rates.items() for block, rate in enumerate(measured)
    ]  # fmt: skip


def interval(comparison: Comparison, row: int) -> tuple[float, float, float]:
    speedup = comparison.rows[row].speedup
    assert speedup is not None
    assert speedup.estimate is not None
    return speedup.estimate.low, speedup.ratio, speedup.estimate.high


def test_a_speed_up_is_the_mean_of_the_blocks_logarithms_with_a_t_interval(write_run: Write):
    """Ratios 2, 2.1 and 1.9: mean log 0.692313, standard error 0.028894, t(2) = 4.302653."""
    comparison = compare_folders(write_sweep(write_run, {1: (10.0, 11.0, 12.0), 4: (20.0, 23.1, 22.8)}))
    assert interval(comparison, 1) == pytest.approx((1.7647, 1.9983, 2.2629), abs=1e-4)
    assert comparison.rows[0].speedup is None
    figure = comparison.rows[1].figures["prompts_per_s"]
    assert (figure.median, figure.low, figure.high, figure.count) == (22.8, 20.0, 23.1, 3)


def test_what_hits_a_whole_block_is_no_noise(write_run: Write):
    """The machine slows down fourfold from block to block; ratios 1.1, 1.11 and 1.09 are beyond noise all the same."""
    comparison = compare_folders(write_sweep(write_run, {1: (40.0, 20.0, 10.0), 4: (44.0, 22.2, 10.9)}))
    low, ratio, high = interval(comparison, 1)
    assert (low, ratio, high) == pytest.approx((1.0755, 1.1, 1.1250), abs=5e-4)
    assert (headline(comparison) or "").startswith(
        "Fastest: run 1,3,5 (size 4, mode static), 22.2 prompts/s, 1.10x (1.0"
    )


def test_a_difference_within_noise_has_no_winner(write_run: Write):
    comparison = compare_folders(write_sweep(write_run, {1: (10.0, 12.0, 14.0), 4: (13.0, 12.0, 13.5)}))
    speedup = comparison.rows[1].speedup
    assert speedup is not None
    assert speedup.in_noise is True
    assert "is not told apart from run 0" in note_texts(comparison)
    assert (headline(comparison) or "").startswith(
        "No fastest: run 1,3,5 (size 4, mode static) and run 0,2,4 (size 1, mode static) cannot be told apart in 3 repeats"
    )
    assert "*" not in "".join(cell for row in speed_table(comparison, width=0).rows for cell in row)


def test_two_repeats_are_no_interval(write_run: Write):
    comparison = compare_folders(write_sweep(write_run, {1: (10.0, 10.1), 4: (50.0, 50.1)}))
    speedup = comparison.rows[1].speedup
    assert speedup is not None
    assert (speedup.estimate, speedup.in_noise) == (None, None)
    assert (headline(comparison) or "").startswith(
        "Measured 2 times each, so nothing is called faster: the highest rate"
    )


def test_repeats_that_are_no_blocks_are_compared_by_welch(write_run: Write):
    runs = [
        write_run(f"{size}/{n}", sentences(2), f"batch.size={size}", f"seed={n}", metrics={"prompts_per_s": rate})
        for size, rates in {1: (10.0, 10.1, 9.9, 10.0), 4: (20.0, 20.4, 19.8)}.items() for n, rate in enumerate(rates)
    ]  # fmt: skip
    comparison = compare_folders(runs)
    low, ratio, high = interval(comparison, 1)
    assert 1.9 < low < 2.0 < high < 2.1
    assert ratio == pytest.approx(2.006, abs=0.002)
    assert "Fastest: run " in (headline(comparison) or "")


def test_a_hundred_and_a_hundred_point_one_have_no_fastest(write_run: Write):
    comparison = compare_folders(write_sweep(write_run, {1: (100.0,), 4: (100.1,)}))
    assert (headline(comparison) or "").startswith("Measured once each, so nothing is called faster")


def test_a_label_of_one_run_is_whole_and_of_several_at_most_as_long_as_a_column(write_run: Write):
    long = "a-name-of-more-than-eighteen-characters"
    runs = [write_run(long, sentences(2), "batch.size=1")]
    runs += [write_run(f"{long}-{n}", sentences(2), "batch.size=4", f"repeat={n + 1}") for n in range(2)]
    comparison = compare_folders(runs)
    assert [row.label for row in comparison.rows] == [long, f"{long}-0 +1"]
    assert f"Run {long}-0 +1: {long}-0, {long}-1" in note_texts(comparison)
    assert f"Run {long}:" not in note_texts(comparison)


@pytest.mark.parametrize("status", ["KILLED", "FAILED"])
def test_a_run_that_did_not_finish_wins_nothing(write_run: Write, status: str):
    figures = {1: (10.0, 3.0), 4: (20.0, 2.0), 16: (90.0, 0.1)}
    runs = [
        write_run(f"r{size}", sentences(2), f"batch.size={size}", status="FINISHED" if size < 16 else status,
                  metrics={"prompts_per_s": rate, "latency_p50_s": latency})
        for size, (rate, latency) in figures.items()
    ]  # fmt: skip
    comparison = compare_folders(runs)
    assert [row.on_front for row in comparison.rows] == [False, True, False]
    assert "that of run r4" in (headline(comparison) or "")
    assert comparison.rows[2].speedup is None


def test_a_run_with_half_of_its_prompts_failed_wins_nothing_and_says_so(write_run: Write):
    failed = {"failed_prompts": 32.0, "completed_prompts": 32.0}
    runs = [
        write_run("a", sentences(2), "batch.size=1", metrics={"prompts_per_s": 1.0, "latency_p50_s": 1.0}),
        write_run("b", sentences(2), "batch.size=4", metrics={"prompts_per_s": 2.0, "latency_p50_s": 1.0}),
        write_run("c", sentences(2), "batch.size=16", metrics={"prompts_per_s": 9.0, "latency_p50_s": 0.1, **failed}),
    ]
    comparison = compare_folders(runs)
    assert [row.on_front for row in comparison.rows] == [False, True, False]
    assert "that of run b" in (headline(comparison) or "")
    assert "Run c: 32 of 64 prompts failed; its speed is not ranked" in note_texts(comparison)


def test_a_long_winded_run_that_takes_twice_as_long_is_half_as_fast(write_run: Write):
    """3.2 times the tokens in twice the time: 1.6 times the tokens/s, and half of the prompts/s."""
    runs = [
        write_run("short", sentences(2), "batch.size=1", metrics={"prompts_per_s": 2.0, "output_tokens_per_s": 10.0}),
        write_run("long", sentences(2), "batch.size=4", metrics={"prompts_per_s": 1.0, "output_tokens_per_s": 16.0}),
    ]
    comparison = compare_folders(runs)
    speedup = comparison.rows[1].speedup
    assert speedup is not None
    assert (speedup.ratio, speedup.output_tokens_ratio) == pytest.approx((0.5, 1.6))
    assert "the highest rate is that of run short" in (headline(comparison) or "")


def test_a_speed_up_needs_one_model_that_was_asked_the_same(write_run: Write):
    rate = {"prompts_per_s": 1.0}
    one = write_run("a", sentences(2), metrics=rate)
    for name, overrides in {"m": ["model.id=other"], "g": ["generation.max_tokens=9"]}.items():
        comparison = compare_folders([one, write_run(name, sentences(2), *overrides, metrics=rate)])
        assert [row.speedup for row in comparison.rows] == [None, None]


def test_the_front_has_what_nothing_beats_and_what_does_not_vary_has_its_best_marked(write_run: Write):
    points = [(1.0, 10.0), (2.0, 30.0), (3.0, 20.0)]
    runs = [
        write_run(f"r{index}", sentences(2), f"batch.size={index + 1}",
                  metrics={"prompts_per_s": rate, "latency_p50_s": latency, "cost_usd": 0.5 + index,
                           "completed_prompts": 100, "output_tokens": 1000})
        for index, (latency, rate) in enumerate(points)
    ]  # fmt: skip
    comparison = compare_folders(runs)
    assert [row.on_front for row in comparison.rows] == [True, True, False]
    table = speed_table(comparison, width=0)
    by_name = {name: [row[index] for row in table.rows] for index, name in enumerate(table.columns)}
    assert by_name["prompts/s"] == ["10.0", "30.0", "20.0"], "measured once: no best"
    assert by_name["$/1k"] == ["5.00*", "15.00 ", "25.00 "]
    assert "TTFT s" not in by_name, "no run has it"


def test_repeats_that_do_not_vary_are_no_evidence(write_run: Write):
    comparison = compare_folders(write_sweep(write_run, {1: (100.0,) * 3, 4: (100.1,) * 3}))
    speedup = comparison.rows[1].speedup
    assert speedup is not None
    assert speedup.ratio == pytest.approx(1.001)
    assert (speedup.estimate, speedup.in_noise) == (None, None)
    assert (headline(comparison) or "").startswith("No fastest: ")


def test_a_ratio_counts_the_blocks_that_both_have_and_lies_in_its_interval(write_run: Write):
    """The reference ran on alone in blocks 4 and 5, ten times as slow: its own median says nothing of the others."""
    rates: dict[int, Sequence[float]] = {1: (10.0, 11.0, 12.0, 1.0, 1.1), 4: (9.5, 10.4, 11.3)}
    comparison = compare_folders(write_sweep(write_run, rates))
    low, ratio, high = interval(comparison, 1)
    assert low < ratio < high < 1
    assert ratio == pytest.approx((0.95 * (10.4 / 11) * (11.3 / 12)) ** (1 / 3))
    assert (headline(comparison) or "").startswith("No fastest: "), "size 4 has the higher median, and lost each block"


def test_seeds_beside_repeats_are_blocks_of_their_own(write_run: Write):
    """The machine slows down from block to block, so that only pairs tell 10 % apart."""
    runs = [
        write_run(f"sweep/{4 * block + 2 * seed + (size > 1)}", sentences(2), f"batch.size={size}", f"seed={seed}",
                  f"repeat={block + 1}", metrics={"prompts_per_s": rate * (1.0 if size == 1 else 1.1 + 0.01 * seed)})
        for block, rate in enumerate((40.0, 20.0, 10.0)) for seed in (0, 1) for size in (1, 4)
    ]  # fmt: skip
    comparison = compare_folders(runs)
    speedup = comparison.rows[1].speedup
    assert speedup is not None
    assert speedup.estimate is not None
    assert speedup.estimate.blocks == 6
    assert (headline(comparison) or "").startswith("Fastest: ")


def test_runs_of_which_nothing_is_known_are_not_ranked(write_run: Write):
    runs = [
        write_run(name, sentences(2), f"batch.size={size}", metrics={"prompts_per_s": rate})
        for name, size, rate in (("a", 1, 1.0), ("b", 4, 9.0))
    ]
    for run in runs:
        (run / "config.yaml").unlink()
    comparison = compare_folders(runs)
    assert headline(comparison) is None
    assert [row.speedup for row in comparison.rows] == [None, None]


def test_a_key_that_an_older_run_lacks_is_null(write_run: Write):
    runs = [
        write_run(name, sentences(2), f"batch.size={size}", metrics={"prompts_per_s": rate})
        for name, size, rate in (("old", 1, 1.0), ("new", 4, 9.0))
    ]
    config = runs[0] / "config.yaml"
    config.write_text("".join(line for line in config.read_text().splitlines(True) if "top_k:" not in line))
    comparison = compare_folders(runs)
    assert comparison.rows[1].speedup is not None


def test_figures_of_zero_are_in_no_ratio(write_run: Write):
    comparison = compare_folders(
        write_sweep(write_run, {1: (10.0, 11.0, 12.0), 4: (20.0, 21.0, 25.0)}, latency_p50_s=0.0)
    )
    table = speed_table(comparison, width=0)
    assert "*" not in "".join(row[table.columns.index("p50 s")] for row in table.rows)


def test_less_is_better_where_it_is(write_run: Write):
    latencies = {1: (2.0, 2.1, 1.9), 4: (1.0, 1.2, 1.1)}
    runs = [
        write_run(f"sweep/{2 * block + (size > 1)}", sentences(2), f"batch.size={size}", f"repeat={block + 1}",
                  metrics={"prompts_per_s": 1.0, "latency_p50_s": latency})
        for size, measured in latencies.items() for block, latency in enumerate(measured)
    ]  # fmt: skip
    table = speed_table(compare_folders(runs), width=0)
    assert [row[table.columns.index("p50 s")][-1] for row in table.rows] == [" ", "*"]
