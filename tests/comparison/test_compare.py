"""`python -m runner.compare`: what is compared with what, that the figures are right, and that planted faults are found."""

import json
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from runner import app
from runner.cli import compare, sweep
from runner.comparison.compare import Comparison, compare_folders
from runner.comparison.divergence import Divergence, diverge, split_words
from runner.comparison.load import ComparedText
from runner.comparison.present.headline import headline
from runner.comparison.present.json import as_data
from runner.comparison.present.markdown import markdown_note
from runner.comparison.present.plots import latency, pareto
from runner.comparison.present.settings import series
from runner.comparison.present.tables import speed_table, text_tables
from runner.record.folder import RunFolder
from runner.record.manifest import Status, Summary
from runner.record.prompts import PackedPrompts
from runner.record.writer import OutcomeWriter
from runner.types import Message, Outcome, Prompt
from tests.conftest import Compose
from tests.factories import completion, failure

Texts = dict[str, str]
Write = Callable[..., Path]

HOSTILE = [
    "<script>alert(1)</script>",
    "</div><img src=x onerror=alert(1)>",
    '"><iframe src="https://example.org">',
    "{{ 7 * 7 }} {% raw %}",
    "\x1b[31mred\x1b[0m \x00 \x07",
    "\u202eturned\u2066around\u2069",
    "lone \ud800 surrogate \udfff",
    "مرحبا שלום 日本語 👩‍💻",
    "<!-- --> <![CDATA[ ]]> &amp; &lt;",
]


class Page(HTMLParser):
    """The tags, attributes and texts of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.said = ""
        self.marked: list[str] = []
        self._in_mark = False
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._in_mark |= tag == "mark"

    def handle_endtag(self, tag: str) -> None:
        self._in_mark &= tag != "mark"

    def handle_data(self, data: str) -> None:
        self.said += data
        if self._in_mark:
            self.marked.append(data)


@pytest.fixture
def write_run(tmp_path: Path, config: Compose) -> Write:
    """Write a run's folder with the product's own writers: {prompt id: text}, or outcomes."""

    def write(
        name: str,
        answers: Texts | Sequence[Outcome],
        *overrides: str,
        prompts: Texts | None = None,
        metrics: dict[str, float] | None = None,
        status: Status = "FINISHED",
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        outcomes = answers if not isinstance(answers, dict) else [completion(id_, text=t) for id_, t in answers.items()]
        asked = prompts or {outcome.prompt_id: f"prompt {outcome.prompt_id}" for outcome in outcomes}
        RunFolder(folder).write_config(config("provider=echo", "batch.mode=static", *overrides))
        RunFolder(folder).write_prompts(
            PackedPrompts(Prompt(id=i, messages=(Message(role="user", content=t),)) for i, t in asked.items())
        )
        RunFolder(folder).write_summary(
            Summary(status=status, mlflow_run_id=None, metrics=metrics or {"completed_prompts": 1})
        )
        with OutcomeWriter(RunFolder(folder)) as journal:
            for outcome in outcomes:
                journal.append([outcome])
        return folder

    return write


def only(comparison: Comparison) -> Divergence:
    (one,) = comparison.compared
    assert one.divergence is not None
    return one.divergence


def alarms(comparison: Comparison) -> str:
    return "\n".join(note.text for note in comparison.notes if note.level == "alarm")


def said(comparison: Comparison) -> str:
    return "\n".join(note.text for note in comparison.notes)


def sentences(count: int, *, other_from: int | None = None) -> Texts:
    """Texts of twelve words of their own each; from `other_from` on, prompts get other words behind the fourth."""
    made = {}
    for number in range(count):
        text = [f"w{number}x{place}" for place in range(12)]
        if other_from is not None and number >= other_from:
            text[4:] = [f"v{number}x{place}" for place in range(9)]
        made[str(number)] = " ".join(text)
    return made


def levenshtein(first: str, second: str) -> int:
    """The textbook's table, row by row."""
    row = list(range(len(second) + 1))
    for at, one in enumerate(first, 1):
        above, row = row, [at]
        for place, other in enumerate(second, 1):
            row.append(min(above[place] + 1, row[-1] + 1, above[place - 1] + (one != other)))
    return row[-1]


def first_difference(first: Sequence[Any], second: Sequence[Any]) -> int:
    return next(
        (at for at, (one, other) in enumerate(zip(first, second, strict=False)) if one != other),
        min(len(first), len(second)),
    )


def middle(values: list[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def test_the_figures_agree_with_an_independent_computation(config: Compose, tmp_path: Path):
    for size, tokens in ((1, 40), (4, 40), (16, 40)):
        asked = config("provider=echo", "batch.mode=static", f"batch.size={size}", f"generation.max_tokens={tokens}")
        app.run(asked, tmp_path / str(size))
    outcomes = (tmp_path / "4" / "outcomes.jsonl").read_text().splitlines()
    changed = [json.loads(line) for line in outcomes]
    for number, record in enumerate(changed[:30]):
        record["text"] = " ".join([*record["text"].split()[:number], "quite", "another", "end"])
        record["output_tokens"] = number + 3
        record["finish_reason"] = "stop" if number % 2 else "length"
    (tmp_path / "4" / "outcomes.jsonl").write_text("".join(json.dumps(record) + "\n" for record in changed))

    comparison = compare_folders([tmp_path / "1", tmp_path / "4", tmp_path / "16"])
    four, sixteen = (one.divergence for one in comparison.compared)
    assert four is not None
    assert sixteen is not None
    ours = {r["prompt_id"]: r for r in map(json.loads, (tmp_path / "1" / "outcomes.jsonl").read_text().splitlines())}
    pairs = [(ours[record["prompt_id"]], record) for record in changed]
    differ = [(a["text"], b["text"]) for a, b in pairs if a["text"] != b["text"]]
    assert (four.compared, four.differing) == (64, len(differ))
    assert four.exact_match_ratio == 1 - len(differ) / 64
    assert sixteen.exact_match_ratio == 1
    assert four.characters is not None
    assert four.units is not None
    assert four.characters.median == middle([first_difference(a, b) for a, b in differ])
    assert four.units.median == middle([first_difference(a.split(), b.split()) for a, b in differ])
    assert four.unit == "token", "an echo's tokens are its words"
    assert four.similarity == pytest.approx(middle([1 - levenshtein(a, b) / max(len(a), len(b)) for a, b in differ]))
    assert sum(four.finish_reasons.values()) == sum(a["finish_reason"] != b["finish_reason"] for a, b in pairs)
    assert four.mean_token_change == pytest.approx(sum(b["output_tokens"] - a["output_tokens"] for a, b in pairs) / 64)
    assert sum(count for *_, count in four.characters.histogram) == len(differ)
    metrics = comparison.metrics
    assert metrics[tmp_path / "4"]["exact_match_ratio"] == four.exact_match_ratio
    rates = {name: RunFolder(tmp_path / name).read_summary().metrics["output_tokens_per_s"] for name in ("1", "16")}  # type: ignore[union-attr]
    assert metrics[tmp_path / "16"]["speedup"] == pytest.approx(rates["16"] / rates["1"])
    assert tmp_path / "1" not in metrics, "the reference is not compared with itself"


texts_of_runs = st.dictionaries(st.text(max_size=3), st.text(max_size=20), max_size=6)


def answers(texts: Texts) -> dict[tuple[str, int], ComparedText | None]:
    return {(prompt_id, 0): ComparedText(text, "stop", len(text)) for prompt_id, text in texts.items()}


@given(texts_of_runs)
def test_a_run_does_not_differ_from_itself(texts: Texts):
    found = diverge(answers(texts), answers(texts), tokenize=split_words, unit="word")
    assert (found.compared, found.differing, found.misattributed, found.emptied) == (len(texts), 0, 0, 0)
    assert found.exact_match_ratio == (1 if texts else None)
    assert (found.characters, found.units, found.similarity, found.examples) == (None, None, None, ())


@given(st.text(alphabet="ab \U0001f600\ud800", max_size=12), st.text(alphabet="ab \U0001f600\ud800", max_size=12))
def test_a_pair_of_texts_parts_where_it_parts_and_is_as_alike_from_either_side(first: str, second: str):
    there = diverge(answers({"p": first}), answers({"p": second}), tokenize=split_words, unit="word")
    back = diverge(answers({"p": second}), answers({"p": first}), tokenize=split_words, unit="word")
    if first == second:
        assert there.differing == back.differing == 0
        return
    assert there.characters is not None
    assert there.units is not None
    assert there.characters.median == first_difference(first, second)
    assert there.units.median == first_difference(first.split(), second.split())
    assert there.similarity == back.similarity
    assert there.similarity == pytest.approx(1 - levenshtein(first, second) / max(len(first), len(second)))


def test_a_failure_is_neither_equal_nor_an_empty_text(write_run: Write):
    reference = write_run("a", [completion("1", text=""), failure("2"), failure("3"), completion("4", text="x")],
                          "batch.size=1")  # fmt: skip
    run = write_run("b", [failure("1"), completion("2", text=""), failure("3"), completion("4", text="x")])
    comparison = compare_folders([reference, run])
    texts = only(comparison)
    assert (texts.compared, texts.equal, texts.only_reference, texts.only_run) == (1, 1, 1, 1)
    assert "1 prompt only the reference completed" in said(comparison)


def test_answers_are_matched_by_prompt_and_choice_whatever_their_order(write_run: Write):
    both = [completion(p, text=f"{p} {c}", choice=c) for p in "ab" for c in (0, 1)]
    run = write_run("b", both[::-1])
    assert only(compare_folders([write_run("a", both, "batch.size=1"), run])).exact_match_ratio == 1


def test_the_reference_is_the_smallest_batch_of_the_model_or_the_one_that_is_named(write_run: Write):
    same = sentences(3)
    big, small, middling = (write_run(f"s{size}", same, f"batch.size={size}") for size in (16, 1, 4))
    comparison = compare_folders([big, small, middling])
    assert {one.pair.reference.label for one in comparison.compared} == {"s1"}
    assert "the run with batch.size=1" in said(comparison)
    assert "no such run has batch.size=1" in said(compare_folders([big, middling]))
    named = compare_folders([small, middling], reference=big)
    assert {one.pair.run.label: one.pair.reference.label for one in named.compared} == {"s1": "s16", "s4": "s16"}


def test_what_batching_did_is_seen_within_every_other_setting(write_run: Write):
    texts = {"float32": sentences(4), "bfloat16": sentences(4, other_from=2)}
    found = []
    for dtype in texts:
        for size in (1, 16):
            found.append(write_run(f"{dtype}-{size}", texts[dtype], f"batch.size={size}"))
            RunFolder(found[-1]).write_environment({"provider": {"dtype": dtype}})
    comparison = compare_folders(found)
    matched = {one.pair.run.label: (one.pair.reference.label, one.exact_match_ratio) for one in comparison.compared}
    assert matched == {
        "float32-16": ("float32-1", 1.0),
        "bfloat16-1": ("float32-1", 0.5),
        "bfloat16-16": ("bfloat16-1", 1.0),
    }
    assert "Apart from the batch, run bfloat16-1 differs from run float32-1: provider.dtype bfloat16" in said(
        comparison
    )
    (table,) = text_tables(comparison)
    assert [row[table.columns.index("vs")] for row in table.rows] == ["float32-1", "float32-1", "bfloat16-1"]


def test_a_baseline_that_did_not_finish_is_named(write_run: Write):
    killed = write_run("killed", sentences(2), "batch.size=1", status="KILLED")
    notes = said(compare_folders([killed, write_run("four", sentences(4), "batch.size=4"),
                                  write_run("nine", sentences(4), "batch.size=9")]))  # fmt: skip
    assert "Reference: run four" in notes
    assert "run killed with batch.size=1 did not finish" in notes
    assert "no such run" not in notes


def test_other_models_are_a_comparison_of_outputs_and_no_divergence(write_run: Write):
    same = sentences(3)
    comparison = compare_folders(
        [write_run("a", same, "model.id=one", "batch.size=1"), write_run("b", same, "model.id=two")]
    )
    assert comparison.compared[0].pair.kind == "outputs"
    assert only(comparison).exact_match_ratio == 1
    (table,) = text_tables(comparison)
    assert table.title.startswith("Comparison of outputs")
    assert "not divergence" in said(comparison)
    assert not any("exact_match_ratio" in added for added in comparison.metrics.values())


def test_other_generation_parameters_are_named_and_only_speed_is_compared(write_run: Write):
    rates = ({"output_tokens_per_s": 10.0}, {"output_tokens_per_s": 30.0})
    one = write_run("a", sentences(3), "generation.max_tokens=8", "batch.size=1", metrics=rates[0])
    two = write_run("b", sentences(3), "generation.max_tokens=9", metrics=rates[1])
    comparison = compare_folders([one, two])
    assert comparison.compared[0].divergence is None
    assert "generation.max_tokens 9 (reference: 8)" in said(comparison)
    assert comparison.metrics == {two: {"speedup": 3.0}}


def test_sampled_runs_are_compared_with_the_same_seed_only(write_run: Write):
    sampled = ("generation.temperature=0.7", "generation.max_tokens=8")
    a = write_run("a", sentences(3), *sampled, "seed=1", "batch.size=1")
    b = write_run("b", sentences(3), *sampled, "seed=2", "batch.size=2")
    assert "same seed only: seed 2 (reference: 1)" in said(compare_folders([a, b]))
    c = write_run("c", sentences(3, other_from=0), *sampled, "seed=1", "batch.size=4")
    comparison = compare_folders([a, c])
    assert only(comparison).exact_match_ratio == 0
    assert "Sampled texts" in said(comparison)
    assert not alarms(comparison), "other batches draw other random numbers"


def test_of_other_prompt_sets_the_common_prompts_are_compared(write_run: Write):
    asked = {"1": "first", "2": "second", "3": "third"}
    one = write_run("a", sentences(4), "batch.size=1", prompts={"0": "zero", **asked})
    two = write_run("b", {"1": "other", **{p: sentences(4)[p] for p in "23"}}, prompts={**asked, "2": "changed"})
    comparison = compare_folders([one, two])
    texts = only(comparison)
    assert (texts.compared, texts.equal) == (2, 1), "prompt 2 has the same id and is another prompt"
    assert "the 2 prompts in common" in said(comparison)
    three = write_run("c", {"0": "x"}, prompts={"0": "nothing alike"})
    comparison = compare_folders([one, three])
    assert comparison.compared[0].divergence is None
    assert "no prompt in common" in said(comparison)


def test_settings_that_differ_besides_the_batch_are_named(write_run: Write):
    one = write_run("a", sentences(3), "batch.size=1")
    two = write_run("b", sentences(3), "provider.latency_s=0.5")
    for folder, dtype in ((one, "float32"), (two, "bfloat16")):
        RunFolder(folder).write_environment({"provider": {"dtype": dtype}})
    notes = said(compare_folders([one, two]))
    assert "provider.latency_s 0.5 (reference: 0" in notes
    assert "provider.dtype bfloat16 (reference: float32)" in notes


def test_repeats_become_a_median_and_a_difference_inside_their_range_is_said_to_be_so(write_run: Write):
    rates = {1: (10.0, 12.0, 14.0), 4: (13.0, 13.5, 15.0), 16: (40.0, 41.0, 45.0)}
    found = [
        write_run(f"{size}-{seed}", sentences(2), f"batch.size={size}", f"seed={seed}",
                  metrics={"output_tokens_per_s": rate, "latency_p50_s": 1.0})
        for size, measured in rates.items() for seed, rate in enumerate(measured)
    ]  # fmt: skip
    comparison = compare_folders(found)
    one, four, sixteen = comparison.rows
    figure = four.figures["output_tokens_per_s"]
    assert (figure.median, figure.low, figure.high, figure.count) == (13.5, 13.0, 15.0, 3)
    assert one.speedup is None
    assert four.speedup is not None
    assert four.speedup.median == 13.5 / 12
    assert (four.in_noise, sixteen.in_noise) == (True, False)
    assert "inside the noise" in said(comparison)
    assert speed_table(comparison).rows[1][5:6] == ("~1.12x",)


def test_repeats_on_one_side_are_enough_to_know_the_noise(write_run: Write):
    found = [write_run(f"one-{n}", sentences(2), "batch.size=1", f"repeat={n + 1}", metrics={"output_tokens_per_s": rate})
             for n, rate in enumerate((10.0, 12.0, 14.0))]  # fmt: skip
    found.append(write_run("four", sentences(2), "batch.size=4", metrics={"output_tokens_per_s": 13.0}))
    comparison = compare_folders(found)
    assert comparison.rows[1].in_noise is True
    assert "Run four: its speed-up of 1.08x (0.93 to 1.30) is inside the noise" in said(comparison)
    assert (headline(comparison) or "").startswith(
        "No difference beyond the noise of the repeats between the fastest: run one-0,one-1,one-2 (size 1, mode static) "
        "and run four (size 4, mode static)"
    )


@pytest.mark.parametrize("status", ["KILLED", "FAILED"])
def test_a_run_that_did_not_finish_wins_nothing(write_run: Write, status: str):
    figures = {1: (10.0, 3.0), 4: (20.0, 2.0), 16: (90.0, 0.1)}
    found = [
        write_run(f"r{size}", sentences(2), f"batch.size={size}", status="FINISHED" if size < 16 else status,
                  metrics={"output_tokens_per_s": rate, "latency_p50_s": latency})
        for size, (rate, latency) in figures.items()
    ]  # fmt: skip
    comparison = compare_folders(found)
    assert [row.on_front for row in comparison.rows] == [False, True, False]
    assert "Fastest: run r4" in (headline(comparison) or "")
    table = speed_table(comparison, width=0)
    for name in ("tokens/s", "p50 s"):
        assert [row[table.columns.index(name)][-1] for row in table.rows] == [" ", "*", " "]


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
    found = [write_run("one", sentences(10), "batch.size=1", metrics={"output_tokens_per_s": 1.0})]
    found += [
        write_run(f"four-{n}", sentences(10, other_from=start), "batch.size=4", f"repeat={n + 1}",
                  metrics={"output_tokens_per_s": 5.0})
        for n, start in enumerate((9, 5, 7))
    ]  # fmt: skip
    comparison = compare_folders(found)
    assert "; 70.0% of its answers" in (headline(comparison) or "")
    assert ("by batch size/exact_match_ratio/static", 4, 0.7) in list(sweep.curves(comparison))


def test_no_match_is_a_curve_between_two_models(write_run: Write):
    found = [write_run(f"m{n}", sentences(2), f"model.id=m{n}", f"batch.size={n}", metrics={"prompts_per_s": 1.0}) for n in (1, 2)]  # fmt: skip
    names = [name for name, *_ in sweep.curves(compare_folders(found))]
    assert names == ["by batch size/prompts_per_s/static m1", "by batch size/prompts_per_s/static m2"]


def test_values_that_end_alike_are_told_apart_everywhere(write_run: Write):
    ids = ("one/a-model-of-8B-parameters-Instruct", "two/a-model-of-8B-parameters-Instruct")
    found = [
        write_run(f"m{n}", sentences(2), f"model.id={id_}", "batch.size=1", metrics={"output_tokens_per_s": 1.0 + n})
        for n, id_ in enumerate(ids)
    ]
    comparison = compare_folders(found)
    assert len(set(series(comparison.runs).values())) == 2
    assert len({name for name, *_ in sweep.curves(comparison)}) == 2
    assert len({row[1] for row in speed_table(comparison).rows}) == 2
    sizes = ("org/family-of-models-135M-Instruct", "org/family-of-models-1.7B-Instruct")
    found = [write_run(f"s{n}", sentences(2), f"model.id={id_}") for n, id_ in enumerate(sizes)]
    assert list(series(compare_folders(found).runs).values()) == ["static, …135M-Instruct", "static, …1.7B-Instruct"]


def test_a_series_says_which_settings_its_values_are(write_run: Write):
    found = [write_run(f"l{n}", sentences(2), f"provider.latency_s={n}", "batch.size=1") for n in (0.001, 1)]
    assert list(series(compare_folders(found).runs).values()) == ["static, latency_s=0.001", "static, latency_s=1"]


def test_prompt_sets_that_were_swept_are_told_apart_by_one_key(write_run: Write):
    found = [
        write_run(f"p{n}", sentences(n), f"prompts.limit={n}", "batch.size=1", metrics={"output_tokens_per_s": 1.0})
        for n in (2, 3)
    ]
    comparison = compare_folders(found)
    table = speed_table(comparison)
    assert [row[table.columns.index("limit")] for row in table.rows] == ["2", "3"]
    assert [name for name in table.columns if name in ("limit", "path")] == ["limit"]


def test_numbers_are_compared_as_numbers_and_a_job_without_answers_is_not_told_what_it_was_asked(
    write_run: Write, tmp_path: Path
):
    write_run("sweep/0", sentences(2), "batch.size=1", metrics={"output_tokens_per_s": 5.0})
    composed = (tmp_path / "sweep" / "0" / "config.yaml").read_text()
    assert "temperature: 0.0" in composed
    (tmp_path / "sweep" / "1" / ".hydra").mkdir(parents=True)
    raw = re.sub(r"(\d)\.0$", r"\1", composed, flags=re.MULTILINE).replace("size: 1", "size: 4")
    (tmp_path / "sweep" / "1" / ".hydra" / "config.yaml").write_text(raw)
    comparison = compare_folders([tmp_path / "sweep" / "0", tmp_path / "sweep" / "1"])
    assert speed_table(comparison).columns[:4] == ("run", "size", "mode", "status")
    (tmp_path / "sweep" / "1" / ".hydra" / "config.yaml").write_text(raw.replace("temperature: 0", "temperature: 1"))
    comparison = compare_folders([tmp_path / "sweep" / "0", tmp_path / "sweep" / "1"])
    assert re.search(
        r"Run 1: its texts are not compared with run 0: 1 has no outcomes.*\bby$", said(comparison), re.MULTILINE
    )


def test_no_column_of_texts_is_left_out_unsaid(write_run: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    long = "a-setting-of-some-length"
    found = [
        write_run(f"2026-01-0{n}_abcdef_and_more_{long}", sentences(2), f"batch.size={n}",
                  f"provider.latency_s={n / 7}", f"batch.order={'length' if n % 2 else 'given'}",
                  f"limits.timeout_s={n}00")
        for n in (1, 2, 3)
    ]  # fmt: skip
    comparison = compare_folders(found)
    (narrow,), (wide,) = text_tables(comparison), text_tables(comparison, width=0)
    assert "similar" in narrow.left_out
    assert "size" in narrow.columns, "it is what is compared"
    assert "similar" in wide.columns
    assert not wide.left_out
    compare.main([*map(str, found), "--output", str(tmp_path / "out")])
    shown = " ".join(capsys.readouterr().out.split())
    assert re.search(r"No room here for [^:]*\bsimilar\b", shown)
    assert '<th class="figure">similar</th>' in (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert re.search(r"No room here for [^:]*\bsimilar\b[^:]*: see comparison.html", markdown_note(comparison))


def test_a_row_of_many_repeats_has_a_short_name_and_its_speed(write_run: Write):
    found = [
        write_run(f"2026-01-01_10-00-0{n}_abc", sentences(2), f"batch.size={size}", f"repeat={n + 1}",
                  metrics={"output_tokens_per_s": 5.0 * size, "latency_p50_s": 1.0})
        for size, repeats in ((1, range(8)), (4, range(8, 9))) for n in repeats
    ]  # fmt: skip
    comparison = compare_folders(found)
    table = speed_table(comparison)
    assert table.rows[0][0] == "2026-01-01_10-00-00_abc +7"
    assert "tokens/s" in table.columns
    assert "Run 2026-01-01_10-00-00_abc +7: 2026-01-01_10-00-00_abc, 2026-01-01_10-00-01_abc" in said(comparison)


def test_the_front_has_what_nothing_beats_and_the_best_of_a_column_is_marked(write_run: Write):
    points = [(1.0, 10.0), (2.0, 30.0), (3.0, 20.0)]
    found = [
        write_run(f"r{at}", sentences(2), f"batch.size={at + 1}",
                  metrics={"output_tokens_per_s": rate, "latency_p50_s": latency, "cost_usd": 0.5,
                           "completed_prompts": 100, "output_tokens": 1000})
        for at, (latency, rate) in enumerate(points)
    ]  # fmt: skip
    comparison = compare_folders(found)
    assert [row.on_front for row in comparison.rows] == [True, True, False]
    table = speed_table(comparison, width=0)
    by_name = {name: [row[at] for row in table.rows] for at, name in enumerate(table.columns)}
    assert by_name["tokens/s"] == ["10.0 ", "30.0*", "20.0 "]
    assert by_name["p50 s"] == ["1.00*", "2.00 ", "3.00 "]
    assert by_name["$/1k"] == ["5.00"] * 3
    assert by_name["$/M out"] == ["500.00"] * 3
    assert "TTFT s" not in by_name, "no run has it"


def test_the_table_fits_100_columns_with_many_swept_keys(write_run: Write, capsys: pytest.CaptureFixture[str]):
    metrics = {
        "output_tokens_per_s": 123456.7, "prompts_per_s": 1234.5, "latency_p50_s": 123.45, "latency_p95_s": 234.5,
        "time_to_first_token_p50_s": 0.012, "prompt_padding_ratio": 0.5, "tail_wait_ratio": 0.5, "cost_usd": 1.0,
        "completed_prompts": 10, "output_tokens": 100,
    }  # fmt: skip
    found = [
        write_run(f"2026-01-0{n}_abcdef", sentences(2), f"batch.size={n}", f"model.id=a-quite-long/model-name-{n}-instruct",
                  f"generation.max_tokens={n}", f"batch.order={'length' if n % 2 else 'given'}", metrics=metrics)
        for n in range(1, 5)
    ]  # fmt: skip
    compare.main([*map(str, found), "--output", str(found[0].parent / "out")])
    shown = capsys.readouterr().out
    table, _, rest = shown.partition("\n- ")
    assert max(map(len, table.splitlines())) <= 100
    assert max(len(line) for line in rest.splitlines() if not line.startswith(("Page", "Data", "Plots"))) <= 100
    assert "No room here for" in shown


def test_outcomes_attached_to_the_wrong_prompts_raise_the_alarm(write_run: Write):
    texts = sentences(20)
    swapped = texts | {"3": texts["4"], "4": texts["3"]}
    comparison = compare_folders([write_run("a", texts, "batch.size=1"), write_run("b", swapped)])
    assert only(comparison).misattributed == 2
    assert "outcomes may be attached to the wrong prompts" in alarms(comparison)
    honest = compare_folders([write_run("c", texts, "batch.size=1"), write_run("d", sentences(20, other_from=15))])
    assert not alarms(honest), "texts that part in the middle are what numbers do"


def test_short_answers_that_another_prompt_has_too_are_no_alarm(write_run: Write):
    labels = {str(n): "yes" if n % 2 else "no" for n in range(20)}
    flipped = labels | {"3": "no", "4": "yes", "5": "no"}
    assert "wrong prompts" not in alarms(
        compare_folders([write_run("a", labels, "batch.size=1"), write_run("b", flipped)])
    )


def test_a_swap_of_two_long_answers_among_many_raises_the_alarm(write_run: Write):
    texts, later = sentences(200), sentences(200, other_from=150)
    swapped = later | {"3": texts["4"], "4": texts["3"]}
    comparison = compare_folders([write_run("a", texts, "batch.size=1"), write_run("b", swapped)])
    assert only(comparison).misattributed == 2
    assert "outcomes may be attached to the wrong prompts" in alarms(comparison)


def test_answers_that_are_all_one_prompt_late_raise_the_alarm(write_run: Write):
    texts = {str(n): f"answer {n}" for n in range(20)}
    late = {str(n): f"answer {n - 1}" for n in range(1, 20)} | {"0": "answer 19"}
    assert "attached to the wrong prompts" in alarms(
        compare_folders([write_run("a", texts, "batch.size=1"), write_run("b", late)])
    )


def test_a_text_that_a_second_prompt_comes_to_have_too_has_not_moved(write_run: Write):
    neutral, positive = '{"sentiment": "neutral"}', '{"sentiment": "positive"}'
    labels = {str(n): positive for n in range(20)} | {"7": neutral}
    comparison = compare_folders([write_run("a", labels, "batch.size=1"), write_run("b", labels | {"3": neutral})])
    assert only(comparison).misattributed == 0, "prompt 7 still has it"
    assert not alarms(comparison)
    one = sentences(20)
    comparison = compare_folders(
        [write_run("c", one, "batch.size=1"), write_run("d", one | {"3": one["4"], "4": "quite another text"})]
    )
    assert "wrong prompts" not in alarms(comparison), "one text is a coincidence"


def test_two_models_that_refuse_other_prompts_with_one_sentence_are_no_alarm(write_run: Write):
    refused, theirs = "I am sorry, but I cannot help with that.", sentences(20, other_from=0)
    ours = sentences(20) | {"3": refused, "5": "As an assistant I cannot say that."}
    theirs |= {"4": refused, "6": "As an assistant I cannot say that."}
    comparison = compare_folders(
        [write_run("a", ours, "model.id=one", "batch.size=1"), write_run("b", theirs, "model.id=two")]
    )
    assert only(comparison).misattributed == 2
    assert not alarms(comparison)


@pytest.mark.parametrize("provider", ["echo", "openai"])
@pytest.mark.parametrize("kind", ["japanese", "json", "labels"])
def test_texts_of_one_word_that_part_late_or_are_labels_are_no_alarm(write_run: Write, kind: str, provider: str):
    answers: dict[str, tuple[Texts, Texts]] = {
        "japanese": tuple({str(n): "日本語の文" * 8 + f"{n}" + end for n in range(20)} for end in "甲乙"),  # type: ignore[dict-item]
        "json": ({str(n): '{"sentiment":"neutral"}' for n in range(20)},
                 {str(n): '{"sentiment":"positive"}' if n < 9 else '{"sentiment":"neutral"}' for n in range(20)}),
        "labels": ({str(n): "neutral" for n in range(20)}, {str(n): "positive" if n < 2 else "neutral" for n in range(20)}),
    }  # fmt: skip
    asked = (f"provider={provider}", "batch.mode=concurrent") if provider != "echo" else ()
    one, two = answers[kind]
    comparison = compare_folders([write_run("a", one, *asked, "batch.size=1"), write_run("b", two, *asked)])
    assert not alarms(comparison)


def test_texts_of_one_word_that_part_at_their_first_character_in_most_prompts_are_an_alarm(write_run: Write):
    one, two = ({str(n): f"{start}日本語の文{n}" for n in range(20)} for start in "甲乙")
    comparison = compare_folders([write_run("a", one, "batch.size=1"), write_run("b", two)])
    assert "20 of those that differ part at the very first token: check the padding side" in alarms(comparison)


def test_few_empty_answers_among_many_are_no_alarm(write_run: Write):
    texts = sentences(300)
    reference = write_run("a", texts, "batch.size=1")
    assert not alarms(compare_folders([reference, write_run("b", texts | {"1": "", "2": ""})]))
    many = alarms(compare_folders([reference, write_run("c", texts | {str(n): "" for n in range(9)})]))
    assert "9 answers are empty where the reference, run a, has a text" in many


def outcomes_of(folder: Path, prompts: Texts, side: str, *, size: int, new: int) -> Texts:
    """Texts of a real model, padded on a side of our choice."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    texts, names = {}, list(prompts)
    for start in range(0, len(names), size):
        batch = names[start : start + size]
        inputs = tokenizer([prompts[name] for name in batch], padding=True, padding_side=side, return_tensors="pt")
        with torch.inference_mode():
            rows = model.generate(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=new,
                do_sample=False, pad_token_id=tokenizer.pad_token_id,
            )  # fmt: skip
        for name, row in zip(batch, rows, strict=True):
            texts[name] = tokenizer.decode(row[inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


def test_right_padding_raises_the_alarm_and_left_padding_does_not(write_run: Write, tiny_model: Path):
    prompts = {str(n): "abcdefgh "[: n % 8 + 1] * (n % 5 + 1) for n in range(24)}
    asked = ("provider=transformers", f"model.id={tiny_model}")

    def run(name: str, side: str, size: int) -> Path:
        texts = outcomes_of(tiny_model, prompts, side, size=size, new=12)
        return write_run(name, texts, *asked, f"batch.size={size}", prompts=prompts)

    one, left, right = run("one", "left", 1), run("left", "left", 8), run("right", "right", 8)
    wrong = compare_folders([one, right])
    assert only(wrong).unit == "token", "the model's own"
    assert "part at the very first token: check the padding side" in alarms(wrong)
    assert not alarms(compare_folders([one, left]))


def test_the_pages_texts_are_texts_whatever_they_hold(write_run: Write, tmp_path: Path):
    prompts = {f"{n} {text}": f"say {text}" for n, text in enumerate(HOSTILE)}
    reference = write_run("a", dict.fromkeys(prompts, "the same"), "batch.size=1", prompts=prompts)
    run = write_run("b", {name: f"the {name}" for name in prompts}, prompts=prompts)
    compare.main([str(reference), str(run), "--output", str(tmp_path / "out")])
    source = (tmp_path / "out" / "comparison.html").read_bytes().decode("utf-8")
    page = Page(source)
    assert not {"script", "iframe", "link", "object", "embed", "base", "form"} & set(page.tags)
    assert page.tags.count("img") == source.count("data:image/png;base64,")
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert {value[:5] for name, value in page.attributes if name in ("src", "href") and value} <= {"data:"}
    assert "<script>alert(1)</script>" in page.said
    assert "{{ 7 * 7 }} {% raw %}" in page.said
    for spelled in ("U+001B", "U+0000", "U+202E", "U+D800"):
        assert spelled in page.said
    redact = {char for char in source if unicodedata.category(char) in ("Cc", "Cf", "Cs")}
    assert redact <= {"\n", "\u200d"}
    assert "default-src 'none'" in source
    assert any("script" in part for part in page.marked)


def test_the_part_that_differs_is_marked_and_nothing_else(write_run: Write, tmp_path: Path):
    one, two = "It is a truth universally known", "It is a truth widely known"
    found = [write_run("a", {"p": one}, "batch.size=1"), write_run("b", {"p": two})]
    compare.main([*map(str, found), "--output", str(tmp_path / "out")])
    page = Page((tmp_path / "out" / "comparison.html").read_text(encoding="utf-8"))
    assert page.marked == ["universal", "wide"]


def test_a_joiner_and_a_blank_that_differ_are_seen(write_run: Write, tmp_path: Path):
    found = [
        write_run("a", {"p": "10 km, \U0001f469\U0001f4bb"}, "batch.size=1"),
        write_run("b", {"p": "10\u00a0km, \U0001f469\u200d\U0001f4bb"}),
    ]
    compare.main([*map(str, found), "--output", str(tmp_path / "out")])
    marked = Page((tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")).marked
    assert {"U+00A0", "U+200D"} <= set(marked)


def test_the_page_calls_an_alarm_an_alarm(write_run: Write, tmp_path: Path):
    texts = sentences(8)
    found = [write_run("a", texts, "batch.size=1"), write_run("b", texts | {"0": texts["1"], "1": texts["0"]})]
    compare.main([*map(str, found), "--output", str(tmp_path / "out")])
    assert "ALARM: run b" in Page((tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")).said


def test_the_page_says_how_many_texts_differ_and_shows_the_most_different(write_run: Write, tmp_path: Path):
    found = [write_run("a", sentences(80), "batch.size=1"), write_run("b", sentences(80, other_from=0))]
    compare.main([*map(str, found), "--output", str(tmp_path / "out")])
    source = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert "50 of 80 that differ" in source
    assert source.count("<article>") == 50


@pytest.mark.parametrize("size", ["auto", "3"])
def test_pictures_are_drawn_of_what_there_is_and_the_page_says_what_there_is_not(
    size: str, config: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    app.run(config("provider=echo", "batch.mode=concurrent", f"batch.size={size}"), tmp_path / "run")
    compare.main([str(tmp_path / "run"), "--output", str(tmp_path / "out")])
    assert {path.name for path in (tmp_path / "out" / "plots").iterdir()} == {
        "throughput.png",
        "latency.png",
        "pareto.png",
    }
    source = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert source.count("not drawn") == 2
    assert "nothing to compare" in capsys.readouterr().out


def test_all_five_pictures_are_drawn_of_static_batches(config: Compose, tmp_path: Path):
    sweep = tmp_path / "sweep"
    for job, size in enumerate((1, 4)):
        app.run(config("provider=echo", "batch.mode=static", f"batch.size={size}"), sweep / str(job))
    compare.main([str(sweep)])
    names = {path.name for path in (sweep / "plots").iterdir()}
    assert names == {"throughput.png", "latency.png", "work.png", "divergence.png", "pareto.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (sweep / "plots").iterdir())


def test_more_series_than_can_be_told_apart_and_names_that_are_no_latin_or_a_formula_are_drawn(
    write_run: Write, tmp_path: Path
):
    metrics = {"output_tokens_per_s": 10.0, "latency_p50_s": 1.0}
    found = [
        write_run(f"r{n}", sentences(2), f"model.id='$\\frac{n}模型'", "batch.size=1", metrics=metrics)
        for n in range(9)
    ]
    compare.main([*map(str, found), "--output", str(tmp_path / "out")])
    assert {path.name for path in (tmp_path / "out" / "plots").iterdir()} >= {
        "throughput.png",
        "latency.png",
        "pareto.png",
    }


def of_models(write_run: Write, count: int) -> Comparison:
    """Models at two batch sizes, each ten times as slow as the one before."""
    found = [
        write_run(f"m{n}-{size}", sentences(2), f"model.id=m{n}", f"batch.size={size}",
                  metrics={"output_tokens_per_s": 10.0 * size + n, "latency_p50_s": size * 10.0**n, "latency_p90_s": 20.0**n})
        for n in range(count) for size in (1, 4)
    ]  # fmt: skip
    return compare_folders(found)


def test_every_panel_of_the_latency_picture_shows_all_of_its_lines(write_run: Write):
    figure = Figure()
    latency(figure, of_models(write_run, 4))
    figure.canvas.draw()
    panels = figure.axes
    assert len(panels) == 4
    assert len({panel.get_subplotspec().get_gridspec().ncols for panel in panels}) == 1  # type: ignore[union-attr]
    assert panels[0].get_subplotspec().get_gridspec().ncols == 3, "a row of three can be read"  # type: ignore[union-attr]
    for panel in panels:
        bottom, top = panel.get_ylim()
        drawn = [float(y) for line in panel.lines for y in line.get_ydata()]  # type: ignore[union-attr]
        assert drawn
        assert bottom <= min(drawn) <= max(drawn) <= top


def test_series_beyond_those_that_can_be_told_apart_have_no_panel_and_are_points(write_run: Write):
    comparison = of_models(write_run, 9)
    panels, points = Figure(), Figure()
    latency(panels, comparison)
    assert len(panels.axes) == 6
    assert all(panel.lines for panel in panels.axes)
    assert "3 more: see the table" in panels.get_suptitle()
    pareto(points, comparison)
    (axes,) = points.axes
    drawn = {tuple(place) for part in axes.collections for place in part.get_offsets().tolist()}  # type: ignore[union-attr]
    (line,) = axes.lines
    assert set(map(tuple, line.get_xydata().tolist())) <= drawn, "the front goes through what is drawn"
    assert "3 more: see the table" in [text.get_text() for text in axes.get_legend().get_texts()]  # type: ignore[union-attr]


def test_a_long_model_name_is_no_question_mark_in_a_picture(write_run: Write):
    found = [
        write_run(f"m{n}", sentences(2), f"model.id=organisation/a-long-model-name-{n}", "batch.size=1",
                  metrics={"latency_p50_s": 1.0})
        for n in (1, 2)
    ]  # fmt: skip
    figure = Figure()
    latency(figure, compare_folders(found))
    titles = [panel.get_title() for panel in figure.axes]
    assert len(set(titles)) == 2
    assert not any("?" in title for title in titles)


def test_json_is_the_whole_comparison_and_nothing_else(write_run: Write, capsys: pytest.CaptureFixture[str]):
    found = [write_run("a", sentences(4), "batch.size=1"), write_run("b", sentences(4, other_from=3))]
    compare.main([*map(str, found), "--json"])
    data = json.loads(capsys.readouterr().out)
    assert data == json.loads(json.dumps(as_data(compare_folders(found))))
    (one,) = data["compared"]
    assert (one["kind"], one["texts"]["exact_match_ratio"]) == ("divergence", 0.75)
    assert one["texts"]["first_differing_token"]["median"] == 4
    assert "NaN" not in json.dumps(data)


def test_a_job_that_left_nothing_is_a_row_with_dashes(write_run: Write, tmp_path: Path):
    sweep = tmp_path / "sweep"
    write_run("sweep/0", sentences(2), metrics={"output_tokens_per_s": 5.0, "latency_p50_s": 1.0})
    (sweep / "1" / ".hydra").mkdir(parents=True)
    (sweep / "1" / ".hydra" / "config.yaml").write_text("batch: {size: 999, mode: null}\n")
    compare.main([str(sweep)])
    comparison = compare_folders([sweep / "0", sweep / "1"])
    row = dict(zip(speed_table(comparison).columns, speed_table(comparison).rows[1], strict=True))
    assert (row["size"], row["status"], row["tokens/s"], row["speed-up"]) == ("999", "no result", "-", "-")
    assert "| 999 |" in markdown_note(comparison)


def test_the_result_comes_first(write_run: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rates = {1: 10.0, 4: 35.0, 16: 20.0}
    for job, (size, rate) in enumerate(rates.items()):
        texts = sentences(4, other_from=3 if size > 1 else 4)
        write_run(f"sweep/{job}", texts, f"batch.size={size}", metrics={"output_tokens_per_s": rate})
    compare.main([str(tmp_path / "sweep")])
    said = "Fastest: run 1 (size 4, mode static), 35.0 output tokens/s, 3.50x run 0's; 75.0% of its answers are run 0's"
    assert said in " ".join(capsys.readouterr().out.split())
    assert said in (tmp_path / "sweep" / "comparison.html").read_text().replace("&#39;", "'")


def test_a_note_of_many_runs_keeps_its_alarms_and_says_how_many_rows_it_leaves_out(write_run: Write):
    wrong = sentences(8) | {"0": sentences(8)["1"], "1": sentences(8)["0"]}
    found = [write_run(f"r{n}", wrong if n else sentences(8), f"batch.size={n + 1}") for n in range(60)]
    note = markdown_note(compare_folders(found))
    assert len(note) < 8000, "what MLflow keeps of a tag"
    assert note.startswith("**ALARM** run r1: the text of 2 prompts is exactly another")
    assert len(re.findall(r"\n\d+ more rows: see comparison\.html\n", note)) == 2, "of both tables"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], r"'nowhere': no such run or sweep \(looked for the folder /.*\)"),
        (["empty"], r"'.*empty' is neither a run .* nor a sweep"),
        (["run", "--reference", "nowhere"], r"'nowhere': no such run"),
        (["0123456789abcdef0123456789abcdef"], r"no such run or sweep"),
    ],
)
def test_an_unknown_run_is_one_message_and_exit_code_2(
    arguments: list[str], message: str, write_run: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    write_run("run", sentences(1))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        compare.main(arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert re.search(message, error.replace("\n", " "))
    assert error.startswith("error: ")


def test_a_damaged_record_is_one_message_and_exit_code_1(write_run: Write, capsys: pytest.CaptureFixture[str]):
    one, two = write_run("a", sentences(2), "batch.size=1"), write_run("b", sentences(2))
    with (two / "outcomes.jsonl").open("ab") as file:
        file.write(b"{}\n")
    with pytest.raises(SystemExit) as ended:
        compare.main([str(one), str(two)])
    assert ended.value.code == 1
    assert "line 3: not an outcome" in capsys.readouterr().err


def test_no_code_that_came_with_a_model_is_run_to_compare(write_run: Write, tmp_path: Path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"auto_map": {"AutoTokenizer": ["evil.Evil", null]}, "model_type": "evil"}')
    (model / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["evil.Evil", null]}}')
    (model / "evil.py").write_text(f"open({str(tmp_path / 'pwned')!r}, 'w')\nclass Evil: pass\n")
    asked = ("provider=transformers", f"model.id={model}", "provider.trust_remote_code=true")
    found = [write_run("a", sentences(4), *asked, "batch.size=1"), write_run("b", sentences(4, other_from=3), *asked)]
    assert only(compare_folders(found)).unit == "word"
    assert not (tmp_path / "pwned").exists()


def test_a_run_that_is_named_twice_counts_once(write_run: Write):
    folder = write_run("a", sentences(2))
    assert len(compare_folders([folder, folder.parent / "." / folder.name]).runs) == 1


def test_help_answers_without_loading_a_library(tmp_path: Path):
    command = [sys.executable, "-X", "importtime", "-m", "runner.compare", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env=dict(os.environ))
    assert "--reference" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not {"matplotlib", "torch", "mlflow", "jinja2"} & loaded


@pytest.mark.real_model
def test_the_embedded_models_divergence_agrees_with_its_own_tokenizer(config: Compose, tmp_path: Path):
    few = ("prompts.limit=8", "generation.max_tokens=16", "batch.warmup=0")
    for size, dtype in ((1, "float32"), (8, "bfloat16")):
        app.run(config(f"batch.size={size}", f"provider.dtype={dtype}", *few), tmp_path / str(size))
    texts = only(compare_folders([tmp_path / "1", tmp_path / "8"]))
    one, eight = (
        {
            r["prompt_id"]: r["text"]
            for r in map(json.loads, (tmp_path / size / "outcomes.jsonl").read_text().splitlines())
        }
        for size in ("1", "8")
    )
    differ = [name for name in one if one[name] != eight[name]]
    assert (texts.compared, texts.differing) == (8, len(differ))
    if differ:
        from transformers import AutoTokenizer

        from runner.providers.transformers import embedded

        tokenizer = AutoTokenizer.from_pretrained(embedded.resolve("embedded/SmolLM2-135M-Instruct"))
        parted = [first_difference(tokenizer.tokenize(one[name]), tokenizer.tokenize(eight[name])) for name in differ]
        assert texts.units is not None
        assert texts.unit == "token"
        assert texts.units.median == middle([float(place) for place in parted])
