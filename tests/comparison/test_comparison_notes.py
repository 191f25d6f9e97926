"""Alarms are raised for planted faults, and for nothing that rounding explains."""

from pathlib import Path

import pytest

from runner.comparison import text_notes
from runner.comparison.compare import compare_folders
from tests.comparison.helpers import Texts, Write, alarms, only_divergence, sentences


def test_outcomes_attached_to_the_wrong_prompts_raise_the_alarm(write_run: Write):
    texts = sentences(20)
    swapped = texts | {"3": texts["4"], "4": texts["3"]}
    comparison = compare_folders([write_run("a", texts, "batch.size=1"), write_run("b", swapped)])
    assert only_divergence(comparison).moved.count == 2
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
    assert only_divergence(comparison).moved.count == 2
    assert "outcomes may be attached to the wrong prompts" in alarms(comparison)


def test_answers_that_are_all_one_prompt_late_raise_the_alarm(write_run: Write):
    texts = {str(n): f"answer {n}" for n in range(20)}
    late = {str(n): f"answer {n - 1}" for n in range(1, 20)} | {"0": "answer 19"}
    assert "attached to the wrong prompts" in alarms(
        compare_folders([write_run("a", texts, "batch.size=1"), write_run("b", late)])
    )


def test_a_text_that_a_second_prompt_comes_to_have_too_is_not_misattributed(write_run: Write):
    neutral, positive = '{"sentiment": "neutral"}', '{"sentiment": "positive"}'
    labels = {str(n): positive for n in range(20)} | {"7": neutral}
    comparison = compare_folders([write_run("a", labels, "batch.size=1"), write_run("b", labels | {"3": neutral})])
    assert only_divergence(comparison).moved.count == 0, "prompt 7 still has it"
    assert not alarms(comparison)
    one = sentences(20)
    comparison = compare_folders(
        [write_run("c", one, "batch.size=1"), write_run("d", one | {"3": one["4"], "4": "quite another text"})]
    )
    assert "wrong prompts" not in alarms(comparison), "one text is a coincidence"


def test_two_models_that_refuse_other_prompts_with_one_sentence_are_no_alarm(write_run: Write):
    refused, second = "I am sorry, but I cannot help with that.", sentences(20, other_from=0)
    first = sentences(20) | {"3": refused, "5": "As an assistant I cannot say that."}
    second |= {"4": refused, "6": "As an assistant I cannot say that."}
    comparison = compare_folders(
        [write_run("a", first, "model.id=one", "batch.size=1"), write_run("b", second, "model.id=two")]
    )
    assert only_divergence(comparison).moved.count == 2
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
    assert "20 of the 20 that differ part at the very first token: check the padding side" in alarms(comparison)


def test_few_empty_answers_among_many_are_no_alarm(write_run: Write):
    texts = sentences(300)
    reference = write_run("a", texts, "batch.size=1")
    assert not alarms(compare_folders([reference, write_run("b", texts | {"1": "", "2": ""})]))
    many = alarms(compare_folders([reference, write_run("c", texts | {str(n): "" for n in range(9)})]))
    assert "9 of 300 answers are empty where the reference, run a, has a text" in many


def test_one_answer_given_to_every_row_of_its_batch_raises_the_alarm(write_run: Write):
    texts = sentences(16)
    first_rows = {str(n): texts[str(n // 8 * 8)] for n in range(16)}
    comparison = compare_folders([write_run("a", texts, "batch.size=1"), write_run("b", first_rows, "batch.size=8")])
    assert only_divergence(comparison).copied.count == 14, "all but the first rows, whose answers they are"
    assert "run b: 14 prompts that have a text of their own in the reference, run a, share one with others" in alarms(
        comparison
    )


def test_one_answer_given_to_both_rows_of_batches_of_two_raises_the_alarm(write_run: Write):
    texts = sentences(16)
    first_rows = {str(n): texts[str(n // 2 * 2)] for n in range(16)}
    comparison = compare_folders([write_run("a", texts, "batch.size=1"), write_run("b", first_rows, "batch.size=2")])
    assert only_divergence(comparison).copied.count == 8
    assert "run b: 8 prompts that have a text of their own" in alarms(comparison)


def test_few_prompts_that_come_to_share_an_answer_two_by_two_are_no_alarm(write_run: Write):
    """Prompts that ask the same in other words: three of ten that differ come to have the answer of their like."""
    texts, later = sentences(40), sentences(40, other_from=33)
    shared = {"0": texts["1"], "2": texts["3"], "4": texts["5"]}
    comparison = compare_folders([write_run("a", texts, "batch.size=1"), write_run("b", later | shared)])
    assert only_divergence(comparison).differing == 10
    assert not alarms(comparison)


@pytest.mark.parametrize(("flipped", "is_alarm"), [(2, False), (4, False), (5, True)])
def test_few_answers_that_part_at_the_start_are_an_alarm_only_beyond_their_interval(
    write_run: Write, flipped: int, is_alarm: bool
):
    """Wilson's lower end of 4 of 20 is 8.1 %, and of 5 of 20 11.2 %: above the 10 % that rounding explains."""
    texts = {str(n): f"Yes, that is so in case {n}." for n in range(20)}
    other = texts | {str(n): f"No, not in case {n}." for n in range(flipped)}
    raised = alarms(compare_folders([write_run("a", texts, "batch.size=1"), write_run("b", other)]))
    assert ("part at the very first token" in raised) == is_alarm
    assert is_alarm or not raised


def test_two_empty_answers_of_a_hundred_are_no_alarm(write_run: Write):
    """Wilson's lower end of 2 of 100 is 0.6 %, which is not above 1 %."""
    texts = sentences(100)
    runs = [write_run("a", texts, "batch.size=1"), write_run("b", texts | {"1": "", "2": ""})]
    assert not alarms(compare_folders(runs))


def test_differences_that_their_margins_explain_raise_no_alarm(write_run: Write):
    one, two = ({str(n): f"{start} in case {n}" for n in range(20)} for start in ("Yes", "No"))
    comparison = compare_folders([write_run("a", one, "batch.size=1"), write_run("b", two)])
    assert alarms(comparison)
    assert not list(text_notes.alarms(comparison.compared, near_ties={"b"}))


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
    assert only_divergence(wrong).unit == "token", "the model's own"
    assert "part at the very first token: check the padding side" in alarms(wrong)
    assert not alarms(compare_folders([one, left]))
