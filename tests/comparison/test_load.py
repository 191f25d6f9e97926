"""Run folders become runs; their texts are matched by prompt and choice."""

import re
from pathlib import Path

from runner.comparison.compare import compare_folders
from runner.comparison.present.tables import speed_table
from tests.comparison.helpers import Write, note_texts, only_divergence, sentences
from tests.factories import completion, failure


def test_a_failure_is_neither_equal_nor_an_empty_text(write_run: Write):
    reference = write_run("a", [completion("1", text=""), failure("2"), failure("3"), completion("4", text="x")],
                          "batch.size=1")  # fmt: skip
    run = write_run("b", [failure("1"), completion("2", text=""), failure("3"), completion("4", text="x")])
    comparison = compare_folders([reference, run])
    texts = only_divergence(comparison)
    assert (texts.compared, texts.equal, texts.only_reference, texts.only_run) == (1, 1, 1, 1)
    assert "only the reference completed 1 prompt, only the run 1" in note_texts(comparison)


def test_answers_are_matched_by_prompt_and_choice_whatever_their_order(write_run: Write):
    both = [completion(p, text=f"{p} {c}", choice=c) for p in "ab" for c in (0, 1)]
    run = write_run("b", both[::-1])
    assert only_divergence(compare_folders([write_run("a", both, "batch.size=1"), run])).exact_match_ratio == 1


def test_numbers_are_compared_as_numbers_and_no_request_is_blamed_for_missing_outcomes(
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
        r"Run 1: its texts are not compared with run 0: 1 has no outcomes.*\bby$", note_texts(comparison), re.MULTILINE
    )


def test_a_run_that_is_named_twice_counts_once(write_run: Write):
    folder = write_run("a", sentences(2))
    assert len(compare_folders([folder, folder.parent / "." / folder.name]).runs) == 1


def test_no_code_that_came_with_a_model_is_run_to_compare(write_run: Write, tmp_path: Path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"auto_map": {"AutoTokenizer": ["evil.Evil", null]}, "model_type": "evil"}')
    (model / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["evil.Evil", null]}}')
    (model / "evil.py").write_text(f"open({str(tmp_path / 'pwned')!r}, 'w')\nclass Evil: pass\n")
    asked = ("provider=transformers", f"model.id={model}", "provider.trust_remote_code=true")
    runs = [write_run("a", sentences(4), *asked, "batch.size=1"), write_run("b", sentences(4, other_from=3), *asked)]
    assert only_divergence(compare_folders(runs)).unit == "word"
    assert not (tmp_path / "pwned").exists()
