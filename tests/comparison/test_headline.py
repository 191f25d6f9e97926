"""The first sentence of a comparison."""

from pathlib import Path

import pytest

from runner.cli import compare, sweep
from runner.comparison.compare import compare_folders
from runner.comparison.present.headline import headline
from tests.comparison.helpers import Write, sentences


def test_nothing_is_the_fastest_of_a_tie_or_of_runs_that_were_not_asked_the_same(write_run: Write):
    rate = {"prompts_per_s": 10.0}
    one = write_run("a", sentences(2), "batch.size=1", metrics=rate)
    tie = headline(compare_folders([one, write_run("b", sentences(2), "batch.size=4", metrics=rate)]))
    assert tie == "The same rate: run a (size 1, mode static) and run b (size 4, mode static), 10.0 prompts/s each"
    more = {"prompts_per_s": 50.0}
    others = [
        write_run("c", sentences(2), "model.id=other", metrics=more),
        write_run("d", sentences(2), "generation.max_tokens=9", metrics=more),
        write_run("e", sentences(3), metrics=more),
    ]
    assert [headline(compare_folders([one, other])) for other in others] == [None, None, None]


def test_the_matches_of_repeats_are_their_range(write_run: Write):
    runs = [write_run("one", sentences(10), "batch.size=1", metrics={"prompts_per_s": 1.0})]
    runs += [
        write_run(f"four-{n}", sentences(10, other_from=start), "batch.size=4", f"repeat={n + 1}",
                  metrics={"prompts_per_s": 5.0})
        for n, start in enumerate((9, 5, 7))
    ]  # fmt: skip
    comparison = compare_folders(runs)
    assert "; 50.0% to 90.0% of 10 answers are run one's to the letter" in (headline(comparison) or "")
    assert ("by batch size/exact_match_ratio/static", 4, 0.7) in list(sweep.curves(comparison))


def test_a_change_of_length_is_said_beside_the_rate(write_run: Write):
    runs = [
        write_run("a", sentences(2), "batch.size=1", metrics={"prompts_per_s": 1.0, "output_tokens_per_s": 10.0}),
        write_run("b", sentences(2), "batch.size=4", metrics={"prompts_per_s": 2.0, "output_tokens_per_s": 24.0}),
    ]
    sentence = headline(compare_folders(runs)) or ""
    assert sentence.endswith("interval; answers have 10.0 to 12.0 output tokens per prompt")
    assert "2.00x run a's, 2.40x its output tokens/s" in sentence


def test_a_winner_of_few_prompts_and_many_tokens_is_not_alone_in_the_sentence(write_run: Write):
    """The reference is the fastest: the other answers at twice the length, and a third is not ranked."""
    lost = {"completed_prompts": 1.0, "failed_prompts": 1.0}
    runs = [
        write_run("a", sentences(2), "batch.size=1", metrics={"prompts_per_s": 2.0, "output_tokens_per_s": 10.0}),
        write_run("b", sentences(2), "batch.size=4", metrics={"prompts_per_s": 1.0, "output_tokens_per_s": 10.0}),
        write_run("c", sentences(2), "batch.size=16", metrics={"prompts_per_s": 9.0, **lost}),
    ]
    sentence = headline(compare_folders(runs)) or ""
    assert sentence.endswith(
        "; answers have 5.0 to 10.0 output tokens per prompt; not ranked: run c (1 of 2 prompts failed)"
    )


def test_unequal_numbers_of_repeats_are_said(write_run: Write):
    runs = [
        write_run(f"sweep/{n}", sentences(2), f"batch.size={size}", f"repeat={repeat}", metrics={"prompts_per_s": rate})
        for n, (size, repeat, rate) in enumerate([(1, 1, 1.0), (4, 1, 5.0), (4, 2, 5.1), (4, 3, 5.2)])
    ]
    assert (headline(compare_folders(runs)) or "").startswith("Measured 1 to 3 times, so nothing is called faster")


def test_the_result_comes_first(write_run: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rates = {1: 10.0, 4: 35.0, 16: 20.0}
    for job, (size, rate) in enumerate(rates.items()):
        texts = sentences(4, other_from=3 if size > 1 else 4)
        write_run(f"sweep/{job}", texts, f"batch.size={size}", metrics={"prompts_per_s": rate})
    compare.main([str(tmp_path / "sweep")])
    sentence = (
        "Measured once each, so nothing is called faster: the highest rate is that of run 1 (size 4, mode static), 35.0 "
        "prompts/s, 3.50x run 0's; 75.0% of 4 answers are run 0's to the letter; repeat=3 or more gives an interval"
    )
    assert sentence in " ".join(capsys.readouterr().out.split())
    assert sentence in (tmp_path / "sweep" / "comparison.html").read_text().replace("&#39;", "'")


def test_a_repeated_reference_has_the_label_of_its_row_and_a_rate_of_a_night_has_two_digits(write_run: Write):
    runs = [
        write_run(f"sweep/{n}", sentences(2), f"batch.size={size}", f"repeat={repeat}", metrics={"prompts_per_s": rate})
        for n, (size, repeat, rate) in enumerate(
            [(1, 1, 0.002), (4, 1, 0.0071), (1, 2, 0.002), (4, 2, 0.0072), (1, 3, 0.0021), (4, 3, 0.0073)]
        )
    ]
    comparison = compare_folders(runs)
    reference = next(row.label for row in comparison.rows if len(row.runs) == 3 and row.speedup is None)
    assert "," in reference
    sentence = headline(comparison) or ""
    assert "0.0072 prompts/s" in sentence
    assert f"run {reference}'s" in sentence
