"""How texts differ: the figures agree with independent computations."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import app
from runner.comparison.compare import compare_folders
from runner.comparison.divergence import Divergence, diverge
from runner.comparison.load import ComparedText
from runner.comparison.matching import match_answers
from runner.record.folder import RunFolder
from tests.comparison.helpers import (
    Texts,
    first_difference,
    levenshtein,
    median_first_difference,
    middle,
    only_divergence,
)
from tests.conftest import Compose
from tests.factories import questions_file

texts_of_runs = st.dictionaries(st.text(max_size=3), st.text(max_size=20), max_size=6)


def answers(texts: Texts) -> dict[tuple[str, int], ComparedText | None]:
    return {(prompt_id, 0): ComparedText(text, "stop", len(text), len(text)) for prompt_id, text in texts.items()}


def diverged(reference: Texts, run: Texts) -> Divergence:
    return diverge(match_answers(answers(reference), answers(run)), has_one_vocabulary=False)


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
    four, sixteen = (compared.divergence for compared in comparison.compared)
    assert four is not None
    assert sixteen is not None
    reference = {
        r["prompt_id"]: r for r in map(json.loads, (tmp_path / "1" / "outcomes.jsonl").read_text().splitlines())
    }
    pairs = [(reference[record["prompt_id"]], record) for record in changed]
    differ = [(a["text"], b["text"]) for a, b in pairs if a["text"] != b["text"]]
    assert (four.compared, four.differing) == (64, len(differ))
    assert four.exact_match_ratio == 1 - len(differ) / 64
    assert sixteen.exact_match_ratio == 1
    assert four.characters is not None
    assert four.units is not None
    equal = [a["text"] for a, b in pairs if a["text"] == b["text"]]
    assert four.characters.median == median_first_difference(
        [first_difference(a, b) for a, b in differ], [len(text) for text in equal]
    )
    assert four.units.median == median_first_difference(
        [first_difference(a.split(), b.split()) for a, b in differ], [len(text.split()) for text in equal]
    )
    assert four.unit == "token", "an echo's tokens are its words"
    similar = [1 - levenshtein(a, b) / max(len(a), len(b)) for a, b in differ]
    assert four.similarity_of_differing == pytest.approx(middle(similar))
    assert four.similarity == pytest.approx((sum(similar) + len(equal)) / 64)
    assert sum(four.finish_reasons.values()) == sum(a["finish_reason"] != b["finish_reason"] for a, b in pairs)
    assert four.mean_token_change == pytest.approx(sum(b["output_tokens"] - a["output_tokens"] for a, b in pairs) / 64)
    assert sum(count for *_, count in four.characters.histogram) == len(differ)
    metrics = comparison.metrics
    assert metrics[tmp_path / "4"]["exact_match_ratio"] == four.exact_match_ratio
    rates = {name: RunFolder(tmp_path / name).read_summary().metrics["output_tokens_per_s"] for name in ("1", "16")}  # type: ignore[union-attr]
    assert metrics[tmp_path / "16"]["speedup"] == pytest.approx(rates["16"] / rates["1"])
    compared = {"speedup", "output_tokens_speedup", "exact_match_ratio"}
    assert not compared & metrics[tmp_path / "1"].keys(), "the reference is not compared with itself"


@given(texts_of_runs)
def test_a_run_does_not_differ_from_itself(texts: Texts):
    runs = diverged(texts, texts)
    assert (runs.compared, runs.differing, runs.moved.count, runs.copied.count, runs.emptied) == (
        len(texts),
        0,
        0,
        0,
        0,
    )
    assert runs.exact_match_ratio == (1 if texts else None)
    assert (runs.characters, runs.units, runs.similarity_of_differing, runs.examples) == (None, None, None, ())


@given(st.text(alphabet="ab \U0001f600\ud800", max_size=12), st.text(alphabet="ab \U0001f600\ud800", max_size=12))
def test_a_pair_of_texts_parts_where_it_parts_and_is_as_alike_from_either_side(first: str, second: str):
    there, back = diverged({"p": first}, {"p": second}), diverged({"p": second}, {"p": first})
    if first == second:
        assert there.differing == back.differing == 0
        return
    assert there.characters is not None
    assert there.units is not None
    assert there.characters.median == first_difference(first, second)
    assert there.units.median == first_difference(first.split(), second.split())
    assert there.similarity == back.similarity
    assert there.similarity == pytest.approx(1 - levenshtein(first, second) / max(len(first), len(second)))


@pytest.mark.real_model
def test_the_embedded_models_divergence_agrees_with_its_own_tokenizer(config: Compose, tmp_path: Path):
    few = (*questions_file(tmp_path), "generation.max_tokens=16", "batch.warmup=0")
    for size, dtype in ((1, "float32"), (8, "bfloat16")):
        app.run(config(f"batch.size={size}", f"provider.dtype={dtype}", *few), tmp_path / str(size))
    texts = only_divergence(compare_folders([tmp_path / "1", tmp_path / "8"]))
    one, eight = (
        {r["prompt_id"]: r for r in map(json.loads, (tmp_path / size / "outcomes.jsonl").read_text().splitlines())}
        for size in ("1", "8")
    )
    differ = [name for name in one if one[name]["text"] != eight[name]["text"]]
    assert (texts.compared, texts.differing) == (8, len(differ))
    if differ:
        from transformers import AutoTokenizer

        from runner.providers.transformers import embedded

        tokenizer = AutoTokenizer.from_pretrained(embedded.resolve("embedded/SmolLM2-135M-Instruct"))

        def tokens(record: dict[str, Any]) -> list[Any]:
            return list(record.get("token_ids") or tokenizer.tokenize(record["text"]))

        parted = [first_difference(tokens(one[name]), tokens(eight[name])) for name in differ]
        assert texts.units is not None
        assert texts.unit == "token"
        lengths = [one[name]["output_tokens"] for name in one if name not in differ]
        assert texts.units.median == median_first_difference(parted, lengths)
