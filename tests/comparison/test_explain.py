"""Differences are explained by their margins: near-ties, or unexplained."""

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from runner import app
from runner.cli import compare
from runner.comparison.compare import Comparison, compare_folders
from runner.comparison.explain import (
    Explanation,
    NoiseBound,
    TokenDifference,
    judge,
    noise_bound,
    token_differences,
)
from runner.comparison.explain_pairs import ExplainRequest
from runner.comparison.explained_notes import verdict
from runner.comparison.present.page import render
from runner.comparison.present.plots.margins import draw_margins
from runner.comparison.present.tables import text_tables
from runner.types import Completion
from tests.comparison.helpers import Write, alarms, note_texts, sentences
from tests.conftest import Compose
from tests.factories import completion
from tests.providers.transformers import planted

WORDS = ["alpha", "beta", "gamma", "delta", "moon", "river", "old", "town", "sky", "blue", "why", "list"]
BOUND = NoiseBound(max_change=0.25, positions=64, copies=8)


def answer(prompt_id: str, *token_ids: int, text: str = "") -> Completion:
    return replace(completion(prompt_id, text=text), token_ids=token_ids)


def difference(prompt_id: str = "p") -> TokenDifference:
    return TokenDifference(prompt_id=prompt_id, common=(1,), reference_token=2, run_token=3)


def test_the_position_where_answers_part_is_that_of_the_first_different_token():
    differences, token_ids, without_ids = token_differences(
        [answer("a", 5, 6, 7), answer("b", 5, 6), answer("c", 9)],
        [answer("c", 9), answer("a", 5, 8, 7), answer("b", 5)],
    )  # a: 5 is common, then 6 against 8; b: 5 is common, and the run has ended where the reference has 6
    assert differences == [
        TokenDifference(prompt_id="a", common=(5,), reference_token=6, run_token=8),
        TokenDifference(prompt_id="b", common=(5,), reference_token=6, run_token=None),
    ]
    assert [entry.position for entry in differences] == [1, 1]
    assert token_ids == {"a": (5, 6, 7), "b": (5, 6), "c": (9,)}
    assert without_ids == 0


def test_equal_tokens_with_another_text_are_a_difference_that_nothing_explains():
    differences, _, _ = token_differences([answer("a", 5, 6, text="x")], [answer("a", 5, 6, text="y")])
    assert differences == [TokenDifference(prompt_id="a", common=(5, 6), reference_token=None, run_token=None)]
    assert not judge(differences[0], ("", ""), None, BOUND).is_near_tie


def test_answers_without_token_ids_are_counted_apart():
    reference = [completion("a", text="x"), completion("b", text="x"), answer("c", 1, text="x")]
    run = [completion("a", text="y"), completion("b", text="x"), completion("c", text="y")]
    differences, token_ids, without_ids = token_differences(reference, run)
    assert (differences, token_ids, without_ids) == ([], {}, 2)  # a and c have another text


@pytest.mark.parametrize(
    ("margin", "is_near_tie"),
    [(0.25, True), (-0.25, True), (0.0, True), (0.26, False), (-3.0, False), (None, False), (math.nan, False)],
)
def test_a_margin_up_to_the_largest_change_is_a_near_tie(margin: float | None, is_near_tie: bool):
    assert judge(difference(), ("x", "y"), margin, BOUND).is_near_tie is is_near_tie


def test_the_bound_is_the_largest_change_and_counts_the_positions_that_have_one():
    bound = noise_bound([0.1, -0.3, math.nan, 0.2], copies=4)
    assert bound == NoiseBound(max_change=0.3, positions=3, copies=4)


def test_metrics_are_of_the_measured_differences_and_absent_without_them():
    entries = tuple(judge(difference(), ("x", "y"), margin, BOUND) for margin in (0.1, 0.2, 0.5, None))
    explanation = Explanation(differences=9, explained=entries, bound=BOUND)
    assert explanation.metrics == {"near_tie_ratio": 0.5, "unexplained_differences": 2.0}  # 0.1 and 0.2 of four
    assert [entry.margin for entry in explanation.unexplained] == [None, 0.5]
    assert verdict(explanation) == "2 of 4 differences in a random sample (of 9) are near-ties"
    assert not explanation.are_all_near_ties
    assert Explanation(differences=3, reason="no weights").metrics == {}
    assert Explanation().metrics == {"unexplained_differences": 0.0}, "all tokens are equal"


def test_a_sample_of_near_ties_does_not_stand_for_all():
    entry = judge(difference(), ("x", "y"), 0.1, BOUND)
    assert Explanation(differences=1, explained=(entry,), bound=BOUND).are_all_near_ties
    assert not Explanation(differences=2, explained=(entry,), bound=BOUND).are_all_near_ties
    assert not Explanation(differences=1, explained=(entry,), bound=BOUND, without_ids=1).are_all_near_ties


def with_margins(write_run: Write, *margins: float | None, runs: tuple[str, str] = ("a", "b")) -> Comparison:
    """Return a comparison of two runs with a difference for each margin."""
    texts = {str(n): "x" for n in range(len(margins))}
    one, two = runs
    comparison = compare_folders([write_run(one, texts, "batch.size=1"), write_run(two, dict.fromkeys(texts, "y"))])
    entries = tuple(judge(difference(str(n)), ("x", "y"), margin, BOUND) for n, margin in enumerate(margins))
    explanation = Explanation(differences=len(margins), explained=entries, bound=BOUND)
    return replace(comparison, compared=(replace(comparison.compared[0], explanation=explanation),))


def test_a_table_with_a_part_of_the_margins_says_of_how_many(write_run: Write):
    comparison = with_margins(write_run, None, *(n / 100 for n in range(11)))
    (*_, table), (*_, whole) = text_tables(comparison), text_tables(comparison, width=0)
    assert (table.title, len(table.rows)) == ("Margins (10 of 12: the unexplained first, then the largest)", 10)
    assert table.rows[0][table.columns.index("verdict")] == "unexplained"
    assert (whole.title, len(whole.rows)) == ("Margins", 12)


def test_a_long_table_of_margins_is_folded_on_the_page_so_that_the_notes_are_near(write_run: Write):
    page = render(with_margins(write_run, *(n / 100 for n in range(21))), [], title="a")
    assert "<details><summary>Margins: 21 rows</summary>" in page
    assert "<h3>Margins</h3>" in render(with_margins(write_run, 0.1, runs=("c", "d")), [], title="a")


def test_the_caption_of_the_margins_file_is_below_its_legend(write_run: Write):
    """The PNG has the caption at its lower end, where nothing else may be."""
    figure = Figure(layout="constrained")
    draw_margins(figure, with_margins(write_run, 0.1))
    figure.draw_without_rendering()
    (legend,), (axes,) = figure.legends, figure.axes
    assert legend.get_window_extent().y0 > axes.get_window_extent().y1


def test_the_picture_says_which_differences_have_no_point(write_run: Write):
    assert draw_margins(Figure(), with_margins(write_run, None, 0.1)) == (
        "A point is an answer. Margins up to 0.001 are drawn at 0.001. Unexplained without a margin, so without a point: 1."
    )


# A model of random weights, whose logits in bfloat16 tie often


@pytest.fixture(scope="module")
def runs(config: Compose, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders by dtype and kind: alone, in batches, and in batches with each planted fault."""
    folder = tmp_path_factory.mktemp("explained")
    texts = [" ".join(WORDS[number % 5 : number % 5 + 1 + number % 7]) + f" {number}" for number in range(48)]
    (folder / "prompts.txt").write_text("\n".join(texts))
    base = (f"model.id={tiny_model}", "provider.device=cpu", "generation.max_tokens=24", "batch.warmup=0",
            "prompts=file", f"prompts.path={folder / 'prompts.txt'}", "batch.mode=static")  # fmt: skip
    for dtype in ("bfloat16", "float32"):
        app.run(config(*base, f"provider.dtype={dtype}", "batch.size=1"), folder / dtype / "alone")
        batched = config(*base, f"provider.dtype={dtype}", "batch.size=8")
        app.run(batched, folder / dtype / "batched")
        for kind in planted.FAULTS:
            planted.run(kind, batched, folder / dtype / kind.__name__)
    return folder


def explained(folder: Path, *names: str, is_bounded: bool = False) -> Comparison:
    request = ExplainRequest(is_bounded=is_bounded)
    return compare_folders([folder / name for name in names], explain=request)


def only(comparison: Comparison) -> Explanation:
    (entry,) = comparison.compared
    assert entry.explanation is not None
    return entry.explanation


@pytest.mark.slow
def test_every_difference_of_a_sound_harness_in_bfloat16_is_a_near_tie(runs: Path):
    comparison = explained(runs / "bfloat16", "alone", "batched")
    explanation = only(comparison)
    assert explanation.differences > 0, "the test needs a difference"
    assert explanation.are_all_near_ties
    assert explanation.bound is not None
    assert explanation.bound.positions >= 64
    assert explanation.bound.copies == 8
    assert alarms(comparison) == ""
    assert "near-tie" in note_texts(comparison)
    assert comparison.metrics[(runs / "bfloat16" / "batched").resolve()]["near_tie_ratio"] == 1


@pytest.mark.slow
def test_float32_has_nothing_to_explain_and_loads_no_model(runs: Path):
    comparison = explained(runs / "float32", "alone", "batched")
    assert only(comparison) == Explanation()
    assert "no answer differs by a token: nothing to explain" in note_texts(comparison)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("fault", [kind.__name__ for kind in planted.FAULTS])
def test_a_planted_fault_is_not_explained_by_rounding(fault: str, dtype: str, runs: Path):
    comparison = explained(runs / dtype, "alone", fault)
    assert only(comparison).unexplained
    assert "not explained by rounding" in alarms(comparison)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["no signature", "another model"])
def test_the_model_of_a_run_from_elsewhere_is_not_loaded_unasked(change: str, runs: Path, tmp_path: Path):
    for name in ("alone", "batched"):
        shutil.copytree(runs / "bfloat16" / name, tmp_path / name)
        config = tmp_path / name / "config.yaml"
        if change == "no signature":
            (tmp_path / name / "run.hmac").unlink()
        else:
            config.write_text(re.sub(r"(?m)^  id: .*", "  id: /from/elsewhere", config.read_text()))
    comparison = explained(tmp_path, "alone", "batched")
    assert only(comparison).explained == ()
    assert "not loaded unasked: give its weights with --model PATH" in note_texts(comparison)


@pytest.mark.slow
def test_an_explanation_that_takes_too_long_is_left_out_and_says_how_to_get_it(runs: Path):
    folder = runs / "hurried"
    for name in ("alone", "batched"):
        shutil.copytree(runs / "bfloat16" / name, folder / name)
        path = folder / name / "summary.json"
        summary = json.loads(path.read_text())
        summary["metrics"] |= {"load_s": 60.0, "duration_s": 1.0}  # a load of 60 s is more than a tenth of 122 s
        path.write_text(json.dumps(summary))
    explanation = only(explained(folder, "alone", "batched", is_bounded=True))
    assert explanation.explained == ()
    assert explanation.reason is not None
    assert "a tenth of the runs' duration is 12.2 s" in explanation.reason


@pytest.mark.slow
def test_the_command_shows_margins_everywhere_and_takes_weights(
    runs: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    names = [str(runs / "bfloat16" / name) for name in ("alone", "batched", "FirstAnswerForAll")]
    compare.main([*names, "--explain", "--model", str(tiny_model), "--output", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "Differences explained by margins" in printed
    assert "ALARM   run FirstAnswerForAll" in printed
    data = json.loads((tmp_path / "out" / "comparison.json").read_text())
    sound, faulty = (entry["explanation"] for entry in data["compared"])
    assert sound["near_ties"] == sound["differences"] == len(sound["margins"])
    assert sound["noise_bound"]["positions"] >= 64
    assert sound["measured_with"]["dtype"] == "bfloat16"
    assert faulty["unexplained"] > 0
    assert data["runs"][2]["metrics"]["unexplained_differences"] == faulty["unexplained"]
    assert (tmp_path / "out" / "plots" / "margins.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert page.count("unexplained</td>") == faulty["unexplained"]


# Requests that explain nothing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--model", "x"], "--model 'x' is for --explain"), (["--explain", "--model", "x"], "--model 'x' has no weights")],
)
def test_weights_that_are_none_or_not_needed_are_one_message(
    arguments: list[str], message: str, write_run: Write, capsys: pytest.CaptureFixture[str]
):
    folder = write_run("run", sentences(1))
    with pytest.raises(SystemExit) as ended:
        compare.main([str(folder), *arguments])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_runs_of_a_provider_without_logits_are_not_explained_and_it_is_no_error(write_run: Write):
    folders = [write_run("a", sentences(3), "batch.size=1"), write_run("b", sentences(3, other_from=1), "batch.size=2")]
    request = ExplainRequest()
    comparison = compare_folders(folders, explain=request)
    assert (
        "Run b, against run a: 2 differences are not explained: provider 'echo' does not give the logits of two tokens"
        in note_texts(comparison)
    )
    assert only(comparison).without_ids == 2
    unrequested = compare_folders(folders, explain=replace(request, is_bounded=True))
    assert unrequested.compared[0].explanation is None
