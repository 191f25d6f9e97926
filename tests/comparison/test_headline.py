"""The first sentence of a comparison."""

from pathlib import Path

import pytest

from runner.cli import compare, sweep
from runner.comparison.compare import compare_folders
from runner.comparison.present.headline import headline
from tests.comparison.helpers import Write, sentences


def test_nothing_is_the_fastest_of_a_tie_or_of_runs_that_were_not_asked_the_same(write_run: Write):
    rate = {"output_tokens_per_s": 10.0}
    one = write_run("a", sentences(2), "batch.size=1", metrics=rate)
    tie = headline(compare_folders([one, write_run("b", sentences(2), "batch.size=4", metrics=rate)]))
    assert tie == "Equally fast: run a (size 1, mode static) and run b (size 4, mode static), 10.0 output tokens/s"
    more = {"output_tokens_per_s": 50.0}
    others = [
        write_run("c", sentences(2), "model.id=other", metrics=more),
        write_run("d", sentences(2), "generation.max_tokens=9", metrics=more),
        write_run("e", sentences(3), metrics=more),
    ]
    assert [headline(compare_folders([one, other])) for other in others] == [None, None, None]


def test_the_match_of_repeats_is_their_median(write_run: Write):
    runs = [write_run("one", sentences(10), "batch.size=1", metrics={"output_tokens_per_s": 1.0})]
    runs += [
        write_run(f"four-{n}", sentences(10, other_from=start), "batch.size=4", f"repeat={n + 1}",
                  metrics={"output_tokens_per_s": 5.0})
        for n, start in enumerate((9, 5, 7))
    ]  # fmt: skip
    comparison = compare_folders(runs)
    assert "; 70.0% of its answers" in (headline(comparison) or "")
    assert ("by batch size/exact_match_ratio/static", 4, 0.7) in list(sweep.curves(comparison))


def test_the_result_comes_first(write_run: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rates = {1: 10.0, 4: 35.0, 16: 20.0}
    for job, (size, rate) in enumerate(rates.items()):
        texts = sentences(4, other_from=3 if size > 1 else 4)
        write_run(f"sweep/{job}", texts, f"batch.size={size}", metrics={"output_tokens_per_s": rate})
    compare.main([str(tmp_path / "sweep")])
    sentence = (
        "Fastest: run 1 (size 4, mode static), 35.0 output tokens/s, 3.50x run 0's; 75.0% of its answers are run 0's"
    )
    assert sentence in " ".join(capsys.readouterr().out.split())
    assert sentence in (tmp_path / "sweep" / "comparison.html").read_text().replace("&#39;", "'")
