"""Rows of speed: repeats, speed-ups, the Pareto front and the best of a column."""

import pytest

from runner.comparison.compare import compare_folders
from runner.comparison.present.headline import headline
from runner.comparison.present.tables import speed_table
from tests.comparison.helpers import Write, note_texts, sentences


def test_repeats_become_a_median_and_a_difference_inside_their_range_is_noise(write_run: Write):
    rates = {1: (10.0, 12.0, 14.0), 4: (13.0, 13.5, 15.0), 16: (40.0, 41.0, 45.0)}
    runs = [
        write_run(f"{size}-{seed}", sentences(2), f"batch.size={size}", f"seed={seed}",
                  metrics={"output_tokens_per_s": rate, "latency_p50_s": 1.0})
        for size, measured in rates.items() for seed, rate in enumerate(measured)
    ]  # fmt: skip
    comparison = compare_folders(runs)
    one, four, sixteen = comparison.rows
    figure = four.figures["output_tokens_per_s"]
    assert (figure.median, figure.low, figure.high, figure.count) == (13.5, 13.0, 15.0, 3)
    assert one.speedup is None
    assert four.speedup is not None
    assert four.speedup.median == 13.5 / 12
    assert (four.in_noise, sixteen.in_noise) == (True, False)
    assert "inside the noise" in note_texts(comparison)
    assert speed_table(comparison).rows[1][5:6] == ("~1.12x",)


def test_repeats_on_one_side_are_enough_to_know_the_noise(write_run: Write):
    runs = [write_run(f"one-{n}", sentences(2), "batch.size=1", f"repeat={n + 1}", metrics={"output_tokens_per_s": rate})
             for n, rate in enumerate((10.0, 12.0, 14.0))]  # fmt: skip
    runs.append(write_run("four", sentences(2), "batch.size=4", metrics={"output_tokens_per_s": 13.0}))
    comparison = compare_folders(runs)
    assert comparison.rows[1].in_noise is True
    assert "Run four: its speed-up of 1.08x (0.93 to 1.30) is inside the noise" in note_texts(comparison)
    assert (headline(comparison) or "").startswith(
        "No difference beyond the noise of the repeats between the fastest: run one-0,one-1,one-2 (size 1, mode static) "
        "and run four (size 4, mode static)"
    )


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
                  metrics={"output_tokens_per_s": rate, "latency_p50_s": latency})
        for size, (rate, latency) in figures.items()
    ]  # fmt: skip
    comparison = compare_folders(runs)
    assert [row.on_front for row in comparison.rows] == [False, True, False]
    assert "Fastest: run r4" in (headline(comparison) or "")
    table = speed_table(comparison, width=0)
    for name in ("tokens/s", "p50 s"):
        assert [row[table.columns.index(name)][-1] for row in table.rows] == [" ", "*", " "]


def test_the_front_has_what_nothing_beats_and_the_best_of_a_column_is_marked(write_run: Write):
    points = [(1.0, 10.0), (2.0, 30.0), (3.0, 20.0)]
    runs = [
        write_run(f"r{index}", sentences(2), f"batch.size={index + 1}",
                  metrics={"output_tokens_per_s": rate, "latency_p50_s": latency, "cost_usd": 0.5,
                           "completed_prompts": 100, "output_tokens": 1000})
        for index, (latency, rate) in enumerate(points)
    ]  # fmt: skip
    comparison = compare_folders(runs)
    assert [row.on_front for row in comparison.rows] == [True, True, False]
    table = speed_table(comparison, width=0)
    by_name = {name: [row[index] for row in table.rows] for index, name in enumerate(table.columns)}
    assert by_name["tokens/s"] == ["10.0 ", "30.0*", "20.0 "]
    assert by_name["p50 s"] == ["1.00*", "2.00 ", "3.00 "]
    assert by_name["$/1k"] == ["5.00"] * 3
    assert by_name["$/M out"] == ["500.00"] * 3
    assert "TTFT s" not in by_name, "no run has it"
