"""What a comparison may conclude of speed: each sentence of the rules with its case, and the answer worked out by hand.

Section "who is faster" is here, and in test_speed.py and test_headline.py; "was the machine fit to measure" is in
test_machine_notes.py, run/test_machine.py, run/test_warm_up.py and run/test_first_call.py.
"""

from collections.abc import Mapping, Sequence
from math import exp
from pathlib import Path

import pytest

from hydra_plugins.runner_blocks.sweeper import rotate_blocks
from runner.comparison.compare import Comparison, compare_folders
from runner.comparison.present.headline import headline
from runner.comparison.present.tables import speed_table
from tests.comparison.helpers import Write, sentences

Rates = Mapping[int, Sequence[float]]

BEYOND = tuple(exp(0.1 * factor) for factor in (0.693, 1.0, 1.307))
"""Ratios whose logarithms are 0.1 x (1 - d, 1, 1 + d) with d = 0.307: t = sqrt(3) / d = 5.64 on 2 degrees of freedom, where
p = 1 - t / sqrt(t^2 + 2) = 0.030. Alone that is beyond noise; of two such tests, Holm makes 0.060 of it."""


def write_blocks(
    write_run: Write, rates: Rates, *, figures: Mapping[str, Rates] | None = None, **metrics: float
) -> list[Path]:
    """Write runs of batch sizes in blocks; `figures` has further metrics that vary by size and block."""
    sizes = list(rates)
    return [
        write_run(
            f"sweep/{len(sizes) * block + sizes.index(size)}", sentences(2), f"batch.size={size}", f"repeat={block + 1}",
            metrics={"prompts_per_s": rate, **metrics, **{name: of[size][block] for name, of in (figures or {}).items()}},
        )
        for size, measured in rates.items() for block, rate in enumerate(measured)
    ]  # fmt: skip


def starred(comparison: Comparison, column: str) -> list[bool]:
    table = speed_table(comparison, width=0)
    return [row[table.columns.index(column)].endswith("*") for row in table.rows]


CASES: dict[str, tuple[Rates, str]] = {
    "one run each is no evidence": ({1: (100.0,), 4: (1000.0,)}, "Measured once each, so nothing is called faster"),
    "two repeats are none": ({1: (10.0, 10.1), 4: (99.0, 99.1)}, "Measured 2 times each, so nothing is called faster"),
    "three repeats against one are none": ({1: (10.0,), 4: (20.0, 21.0, 22.0)}, "Measured 1 to 3 times, so nothing"),
    "three blocks beyond noise are": (
        {1: (10.0, 10.0, 10.0), 4: tuple(10 * ratio for ratio in BEYOND)},
        "Fastest: run 1",
    ),
    "ranges that overlap may differ in every block": (
        {1: (10.0, 20.0, 40.0), 4: (11.0, 22.2, 43.6)},
        "Fastest: run 1",
    ),
    "ranges that do not overlap may be noise": ({1: (10.0, 10.9, 10.1), 4: (11.0, 11.1, 12.9)}, "No fastest"),
    "of three rows the level is corrected": (
        {1: (10.0, 10.0, 10.0), 4: tuple(10 * ratio for ratio in BEYOND), 16: (10.0, 10.0, 10.0)},
        "No fastest: run 1,4,7 (size 4, mode static), run 0,3,6 (size 1, mode static) and run 2,5,8",
    ),
    "those that cannot be told apart are named, and no others": (
        {1: (10.0, 10.1, 10.2), 4: (50.0, 51.0, 50.0), 16: (51.0, 50.0, 50.5)},
        "No fastest: run 2,5,8 (size 16, mode static) and run 1,4,7 (size 4, mode static) cannot be told apart in 3",
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_who_is_faster(case: str, write_run: Write):
    """Of ranges that do not overlap: log ratios 0.0953, 0.0182 and 0.2447 have t = 1.79 on 2 degrees, p = 0.22."""
    rates, start = CASES[case]
    assert (headline(compare_folders(write_blocks(write_run, rates))) or "").startswith(start)


@pytest.mark.parametrize("case", list(CASES))
def test_a_star_of_the_ranking_figure_is_the_headlines_winner(case: str, write_run: Write):
    rates, start = CASES[case]
    stars = starred(compare_folders(write_blocks(write_run, rates)), "prompts/s")
    assert stars == ([False, True] if start.startswith("Fastest: run 1") else [False] * len(rates))


@pytest.mark.parametrize("columns", [1, 2])
def test_stars_of_several_columns_are_corrected_together(columns: int, write_run: Write):
    """p = 0.030 for each: one column has a star; two have none, for 2 x 0.030 is above 0.05."""
    latencies = {1: (1.0,) * 3, 4: tuple(1 / ratio for ratio in BEYOND)}
    names = ("latency_p50_s", "time_to_first_token_p50_s")[:columns]
    rates = {1: (1.0, 1.1, 0.9), 4: (1.0, 1.0, 1.1)}
    comparison = compare_folders(write_blocks(write_run, rates, figures=dict.fromkeys(names, latencies)))
    assert starred(comparison, "p50 s") == [False, columns == 1]


def test_a_cost_by_the_hour_is_a_time_and_needs_to_be_beyond_noise(write_run: Write):
    """Half the price per prompt, measured once: by tokens it is exact, by the hour it may be chance."""
    figures = {"cost_usd": {1: (2.0,), 4: (1.0,)}}
    rates = {1: (1.0,), 4: (2.0,)}
    runs = write_blocks(write_run, rates, figures=figures, completed_prompts=1000.0)
    assert starred(compare_folders(runs), "$/1k") == [False, True]
    for run in runs:
        config = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(config.replace("  price: null", "  price: {usd_per_hour: 3.0}"))
    assert not any(starred(compare_folders(runs), "$/1k"))


def test_a_cost_by_the_hour_that_is_lower_in_every_block_has_its_star(write_run: Write):
    """Half the time costs half: log ratios around log 2 with a spread of 0.01, t = 120 on 2 degrees of freedom."""
    costs = {1: (2.0, 2.02, 1.98), 4: (1.0, 1.0, 1.0)}
    rates = {1: (1.0, 0.99, 1.01), 4: (2.0, 2.0, 2.0)}
    runs = write_blocks(write_run, rates, figures={"cost_usd": costs}, completed_prompts=1000.0)
    for run in runs:
        config = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(config.replace("  price: null", "  price: {usd_per_hour: 3.0}"))
    assert starred(compare_folders(runs), "$/1k") == [False, True]


@pytest.mark.parametrize(("tokens_per_s", "is_said"), [(20.8, False), (21.2, True)])
def test_output_lengths_are_said_from_five_percent_on(tokens_per_s: float, is_said: bool, write_run: Write):
    """Twice the prompts/s at 10 tokens a prompt are 20 tokens/s; 20.8 are 4 % longer answers, 21.2 are 6 %."""
    rates, tokens = {1: (1.0,), 4: (2.0,)}, {1: (10.0,), 4: (tokens_per_s,)}
    comparison = compare_folders(write_blocks(write_run, rates, figures={"output_tokens_per_s": tokens}))
    assert ("output tokens per prompt" in (headline(comparison) or "")) == is_said


def test_a_run_with_failures_wins_nothing_and_the_sentence_has_the_denominator(write_run: Write):
    """35 of 64 answers are the reference's: 54.7 %."""
    texts = sentences(64)
    runs = [
        write_run("one", texts, "batch.size=1", metrics={"prompts_per_s": 1.0}),
        write_run("four", sentences(64, other_from=35), "batch.size=4", metrics={"prompts_per_s": 2.0}),
        write_run("lost", texts, "batch.size=16",
                  metrics={"prompts_per_s": 9.0, "completed_prompts": 32.0, "failed_prompts": 32.0}),
    ]  # fmt: skip
    sentence = headline(compare_folders(runs)) or ""
    assert "the highest rate is that of run four" in sentence
    assert "54.7% of 64 answers are run one's to the letter" in sentence
    assert sentence.endswith("not ranked: run lost (32 of 64 prompts failed)")


def test_runs_of_two_models_have_no_speed_up_and_no_headline_but_each_group_its_front(write_run: Write):
    runs = [
        write_run(f"{model}-{size}", sentences(2), f"model.id={model}", f"batch.size={size}",
                  metrics={"prompts_per_s": rate, "latency_p50_s": 1.0})
        for model, size, rate in (("a", 1, 1.0), ("a", 4, 2.0), ("b", 1, 5.0), ("b", 4, 9.0))
    ]  # fmt: skip
    comparison = compare_folders(runs)
    assert headline(comparison) is None
    assert [row.on_front for row in comparison.rows] == [False, True, False, True]
    against = {row.label: row.reference for row in comparison.rows if row.speedup}
    assert against == {"a-4": "a-1", "b-4": "b-1"}


def test_blocks_have_every_configuration_once_in_a_rotated_order_that_the_seed_moves():
    """Block r starts r + seed places further, modulo three configurations."""
    jobs = [[f"repeat={block}", f"batch.size={size}"] for size in (1, 4, 16) for block in (1, 2, 3)]
    sizes = [job[1].partition("=")[2] for job in rotate_blocks(jobs)]
    assert sizes == ["1", "4", "16", "4", "16", "1", "16", "1", "4"]
    moved = [job[1].partition("=")[2] for job in rotate_blocks([[*job, "seed=1"] for job in jobs])]
    assert moved == ["4", "16", "1", "16", "1", "4", "1", "4", "16"]
