"""Where a row ends: its own tokens decide, whatever the prompt's text, its neighbours and the padding token."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from runner.config.schema import RunConfig
from runner.providers.answer_tokens import AnswerTokens
from runner.providers.transformers import TransformersProvider
from runner.providers.transformers.row_ends import RowEnds
from runner.types import Answer, Generated, Stopwatch
from tests.conftest import Compose
from tests.factories import prompts, usage_of
from tests.providers.transformers import planted
from tests.providers.transformers.models import answers, ends, with_tokenizer

TEXTS = ["a", "some words", "a much longer prompt than the others are", "mid length here"]
QUESTIONS = [
    "What is the capital of France?",
    "Count from one to five, in words.",
    "Hi",
    "Name three colours of the rainbow.",
]
SIZES = [1, 4]
PADDING = ["<end>", "q"]
"""The tiny model's end-of-sequence token, and one of its letters."""


@pytest.fixture(params=PADDING)
def tiny(config: Compose, tiny_model: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    folder = with_tokenizer(tiny_model, tmp_path / "padded", pad_token=request.param)

    def composed(size: int, *stops: str) -> RunConfig:
        base = (f"model.id={folder}", "provider.dtype=float32", "provider.device=cpu", "generation.max_tokens=12")
        return config(*base, f"batch.size={size}", f"generation.stop_sequences={list(stops)}")

    return composed


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_a_stop_sequence_that_begins_in_the_prompt_ends_no_row(size: int, tiny: Any):
    whole = answers(tiny(size), TEXTS)
    across = [text[-1] + answer.text[0] for text, answer in zip(TEXTS, whole, strict=True)]
    assert not any(stop in answer.text for stop in across for answer in whole), "no answer has one by itself"
    assert ends(answers(tiny(size, *across), TEXTS)) == ends(whole)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_a_row_that_a_stop_sequence_ends_has_the_tokens_up_to_it_while_others_go_on(size: int, tiny: Any):
    whole = answers(tiny(size), TEXTS)
    stop = whole[1].text[3:5]  # letters are tokens: the fifth token completes it
    assert sum(stop in answer.text for answer in whole) < len(TEXTS), "other rows go on"
    for answer, stopped in zip(whole, answers(tiny(size, stop), TEXTS), strict=True):
        place = answer.text.find(stop)
        if place < 0:
            assert ends([stopped]) == ends([answer])
            continue
        assert answer.token_ids is not None
        assert stopped.token_ids == answer.token_ids[: place + 2]
        assert usage_of(stopped).output_tokens == place + 2
        assert (stopped.text, stopped.finish_reason) == (answer.text[:place], "stop")


@pytest.fixture(scope="module")
def real(config: Compose) -> Iterator[TransformersProvider]:
    base = ("provider.dtype=float32", "provider.device=cpu", "generation.max_tokens=12")
    with planted.provider_of(TransformersProvider, config(*base)) as provider:
        yield provider


@pytest.mark.real_model
def test_a_real_row_is_the_same_alone_and_in_a_batch_with_any_padding_token(
    real: TransformersProvider, config: Compose
):
    """The chat template ends a prompt with a line feed: line feed + beginning of the answer spans the border."""
    questions = prompts(*QUESTIONS)
    greedy = config("generation.max_tokens=8").params()
    whole = [only(real.generate_batch([question], greedy)) for question in questions]
    across = [f"\n{answer.text[:3]}" for answer in whole]
    inside = whole[0].text[4:8]
    params = greedy.model_copy(update={"stop_sequences": (*across, inside)})
    alone = [only(real.generate_batch([question], params)) for question in questions]
    assert not any(stop in answer.text for stop in across for answer in whole), "no answer has one by itself"
    for before, after in zip(whole, alone, strict=True):
        assert after.text == before.text.partition(inside)[0]
        assert before.token_ids and after.token_ids == before.token_ids[: usage_of(after).output_tokens]
    assert usage_of(alone[0]).output_tokens < usage_of(alone[-1]).output_tokens, "one row ends while another goes on"
    for padding in ("<|im_end|>", "<|endoftext|>", "the"):
        real._encoder.tokenizer.pad_token = padding
        assert [only([result]) for result in real.generate_batch(questions, params)] == alone


def only(results: Sequence[Generated]) -> Answer:
    """Return the one answer of one result."""
    ((answer,),) = [result.answers for result in results]
    return answer


TEXT_BYTES, SPECIAL, END = range(1, 256), 256, 257


def decode(tokens: list[int]) -> str:
    """Tokens are bytes of UTF-8, and two special ones that have no text."""
    return bytes(token for token in tokens if token in TEXT_BYTES).decode("utf-8", "replace")


def row_of(tokens: list[int]) -> list[int]:
    """Return the row that `tokens` leave, one step after the other, behind the prompt STO."""
    import torch

    row = AnswerTokens(end_ids={END}, special_ids={SPECIAL, END}, stop_sequences=["STOP", "é"], decode=decode)
    criterion = RowEnds(rows=[row], prompt_width=3, watch=Stopwatch())
    for count in range(1, len(tokens) + 1):
        criterion(torch.tensor([[*b"STO", *tokens[:count]]]), None)
    return row.token_ids


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([*b"abcSTOPx"], [*b"abcSTOP"]),
        ([*b"P and on"], [*b"P and on"]),  # begins in the prompt
        ([*b"ST", *[SPECIAL] * 40, *b"OPx"], [*b"ST", *[SPECIAL] * 40, *b"OP"]),  # special tokens have no text
        ([*"naïve é!".encode()], [*"naïve é".encode()]),  # two tokens make one character
        ([*b"ab", END, *b"STOP"], [*b"ab", END]),
    ],
)
def test_a_row_ends_at_the_token_that_completes_a_stop_sequence(tokens: list[int], expected: list[int]):
    assert row_of(tokens) == expected
