"""What provider=openvino generates, on a tiny model of random weights: answers, their ends, seeds, what is alive at once."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from runner.config.schema import RunConfig
from runner.providers.factory import build
from runner.providers.openvino import OpenVinoProvider, files
from runner.providers.openvino.codec import Codec
from runner.providers.openvino.sequences import Sequences
from runner.types import Completion, Prompt
from tests.conftest import Compose
from tests.factories import numbered, prompts, usage_of
from tests.providers.openvino.models import END, answers, convert

TEXTS = ("a", "some words", "a much longer prompt than the others are", "mid length here", "zz", "12\n\n1")
SAMPLED = ("generation.temperature=2", "generation.max_tokens=8")


@pytest.fixture(scope="module")
def tiny(config: Compose, tiny_gguf: Path) -> Callable[..., RunConfig]:
    settings = (f"model.id={tiny_gguf}", "provider.precision=f32", "generation.max_tokens=24", "batch.size=3")
    return lambda *overrides: config("provider=openvino", *settings, *overrides)


@pytest.fixture(scope="module")
def loaded(tiny: Callable[..., RunConfig]) -> Iterator[OpenVinoProvider]:
    """The provider of `tiny`, loaded once."""
    with build(tiny()) as provider:
        assert isinstance(provider, OpenVinoProvider)
        yield provider


@pytest.fixture(scope="module")
def by_hand(tiny_gguf: Path) -> Callable[[str], list[int]]:
    """24 greedy tokens of a prompt, by transformers from the same file: step by step, without a cache."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    dense = GgufConfig(gguf_file=tiny_gguf.name, dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        tiny_gguf.parent, gguf_file=tiny_gguf.name, dtype=torch.float32, quantization_config=dense
    )

    @cache
    def generate(text: str) -> list[int]:
        new: list[int] = []
        with torch.inference_mode():
            while len(new) < 24 and END not in new:
                new.append(int(model(torch.tensor([ids_of(text) + new])).logits[0, -1].argmax()))
        return new

    return generate


def ids_of(text: str) -> list[int]:
    """Return the template's tokens by hand: bytes are shifted by the three special tokens, and 'he' is token 259."""
    body = [1, *(byte + 3 for byte in b"user\n" + text.encode()), 2, 13, 1, *(byte + 3 for byte in b"assistant\n")]
    ids: list[int] = []
    for token in body:
        merged = bool(ids) and ids[-1] == ord("h") + 3 and token == ord("e") + 3
        ids[-1 if merged else len(ids) :] = [259] if merged else [token]
    return ids


@pytest.mark.parametrize("size", [1, 3, 6])
def test_in_float32_the_tokens_are_those_of_the_same_weights_in_transformers(
    size: int, tiny: Callable[..., RunConfig], loaded: OpenVinoProvider, by_hand: Callable[[str], list[int]]
):
    answered = answers(tiny(f"batch.size={size}"), *TEXTS, loaded=loaded)
    assert len(answered) == len(TEXTS)
    for (text, _), answer in answered.items():
        expected = by_hand(text)
        assert answer.token_ids == tuple(expected)
        assert answer.text == bytes(t - 3 for t in expected if 3 <= t < 259).decode("utf-8", "replace")
        assert usage_of(answer).input_tokens == len(ids_of(text))
        assert usage_of(answer).output_tokens == len(expected)
        assert answer.finish_reason == ("stop" if expected[-1] == END else "length")


def test_a_converted_folder_answers_as_its_gguf_file_whatever_its_own_generation_config_says(
    tiny: Callable[..., RunConfig], loaded: OpenVinoProvider, tiny_gguf: Path, tmp_path: Path
):
    short = "generation.max_tokens=12"  # the conversion rounds constants to half floats, which changes later tokens
    whole = answers(tiny(short), *TEXTS, loaded=loaded)
    stop = (whole["zz", 0].token_ids or ())[3]
    assert stop > END
    folder = convert(
        tiny_gguf, tmp_path / "ir", eos_token_id=[END, stop], do_sample=True, temperature=9.0, repetition_penalty=9.0
    )
    for (text, choice), answer in answers(tiny(short, f"model.id={folder}"), *TEXTS).items():
        expected = whole[text, choice].token_ids or ()
        expected = expected[: expected.index(stop) + 1] if stop in expected else expected
        assert answer.token_ids == expected
        assert answer.finish_reason == ("stop" if expected[-1] in (END, stop) else "length")
        assert usage_of(answer).input_tokens == len(ids_of(text))
    assert files.read(str(folder)).context_length == 256
    assert files.read(str(folder)).special_ids == {0, 1, 2}


def test_a_sampled_text_depends_on_seed_and_prompt_and_on_no_neighbour(
    tiny: Callable[..., RunConfig], loaded: OpenVinoProvider
):
    def sampled(size: int, seed: int, count: int, backwards: bool) -> dict[str, tuple[tuple[int, ...] | None, ...]]:
        config = tiny(*SAMPLED, "generation.n=2", f"seed={seed}", f"batch.size={size}")
        asked = numbered(count)[:: -1 if backwards else 1]
        results = loaded.generate_continuously(asked, config.params(), size)
        return {prompt.id: tuple(answer.token_ids for answer in result.answers) for prompt, result in results}

    together = sampled(5, 1, 6, False)
    assert sampled(1, 1, 6, True) == together
    assert sampled(4, 1, 2, False) == {name: together[name] for name in ("p0", "p1")}
    everything = [token_ids for both in (*together.values(), *sampled(5, 2, 6, False).values()) for token_ids in both]
    assert len(set(everything)) == 24, "each prompt, each of its answers and each seed has a text of its own"


def test_top_k_and_top_p_bound_what_is_sampled(tiny: Callable[..., RunConfig], loaded: OpenVinoProvider):
    hot = ("generation.temperature=5", "generation.max_tokens=8")
    greedy = {
        key: answer.token_ids for key, answer in answers(tiny("generation.max_tokens=8"), *TEXTS, loaded=loaded).items()
    }
    for bound in ("generation.top_k=1", "generation.top_p=0.0001"):
        assert {key: a.token_ids for key, a in answers(tiny(*hot, bound), *TEXTS, loaded=loaded).items()} == greedy
    assert {key: a.token_ids for key, a in answers(tiny(*hot), *TEXTS, loaded=loaded).items()} != greedy


def test_a_stop_sequence_ends_its_answer_and_no_other(tiny: Callable[..., RunConfig], loaded: OpenVinoProvider):
    whole = answers(tiny(), *TEXTS, loaded=loaded)
    stop = next(  # two letters in the middle of one answer, and in no other
        pair
        for pair in (whole["a", 0].text[start : start + 2] for start in range(4, 20))
        if pair.isascii() and pair.isalnum() and sum(pair in answer.text for answer in whole.values()) == 1
    )
    across = "n" + whole["zz", 0].text[:1]  # begins in the prompt's last token, the template's "assistant\n"
    stopped = answers(tiny(f"generation.stop_sequences={[stop, across]}"), *TEXTS, loaded=loaded)
    for key, answer in whole.items():
        if stop not in answer.text:
            assert (stopped[key].token_ids, stopped[key].text) == (answer.token_ids, answer.text)
            continue
        cut, _, _ = answer.text.partition(stop)
        assert (stopped[key].text, stopped[key].finish_reason) == (cut, "stop")
        token_ids = stopped[key].token_ids or ()
        assert token_ids == (answer.token_ids or ())[: len(token_ids)]
        assert bytes(token - 3 for token in token_ids if token > END).decode("utf-8", "replace").endswith(stop)
        assert usage_of(stopped[key]).output_tokens == len(token_ids)


def test_outcomes_come_as_they_end_and_a_prompt_is_taken_when_a_sequence_may_start(
    tiny: Callable[..., RunConfig], loaded: OpenVinoProvider
):
    config = tiny(*SAMPLED, "generation.max_tokens=200", "generation.temperature=1")
    taken: list[str] = []

    def take() -> Iterator[Prompt]:
        for prompt in numbered(24):
            taken.append(prompt.id)
            yield prompt

    order: list[tuple[str, int]] = []
    alive: list[int] = []
    for prompt, result in loaded.generate_continuously(take(), config.params(), 4):
        alive.append(len(taken) - len(order))
        order.append((prompt.id, len(result.answers[0].token_ids or ())))
    assert max(alive) == 4
    assert len({tokens for _, tokens in order}) > 3, "answers have different lengths"
    assert [name for name, _ in order] != taken, "a short answer overtakes a long one"
    assert sorted(name for name, _ in order) == sorted(taken)


def test_what_an_interrupt_leaves_in_the_engine_is_cancelled(tiny: Callable[..., RunConfig], loaded: OpenVinoProvider):
    config = tiny("generation.max_tokens=150")
    fresh = list(loaded.generate_continuously(prompts(*TEXTS), config.params(), 3))
    left = loaded.generate_continuously(prompts(*TEXTS), config.params(), 3)
    next(left)
    left.close()  # type: ignore[attr-defined]
    assert not loaded._pipeline.has_non_finished_requests()
    again = list(loaded.generate_continuously(prompts(*TEXTS), config.params(), 3))
    assert [(p.id, r.answers[0].token_ids) for p, r in again] == [(p.id, r.answers[0].token_ids) for p, r in fresh]


def test_a_prompt_that_the_cache_cannot_hold_fails_alone(
    tiny: Callable[..., RunConfig], loaded: OpenVinoProvider, tiny_gguf: Path
):
    from openvino_genai import ContinuousBatchingPipeline, SchedulerConfig

    scheduler = SchedulerConfig()
    scheduler.num_kv_blocks = 3  # of 32 tokens: less than a cache_gb
    pipeline = ContinuousBatchingPipeline(str(tiny_gguf), scheduler, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    codec = Codec(pipeline.get_tokenizer(), files.read(str(tiny_gguf)), use_template=True)
    config = tiny("generation.max_tokens=24")
    sequences = Sequences(
        pipeline, codec, config.params(), end_ids=frozenset({END}), model_id="tiny", context_length=256
    )
    texts = ("a", "x" * 100, "zz", "y" * 40, "mid length here")
    results = {prompt.text: result for prompt, result in sequences.generate(prompts(*texts), 4)}
    assert set(results) == set(texts)
    failed = {text: result.error for text, result in results.items() if result.error}
    assert list(failed) == ["x" * 100]
    error = failed["x" * 100]
    assert error is not None
    assert (error.type, error.retryable) == ("CacheExhausted", False)
    assert "119 input tokens and generation.max_tokens=24" in error.message
    assert "provider.cache_gb" in error.message
    alone = answers(tiny(), *(text for text in texts if text not in failed), loaded=loaded)
    for text, result in results.items():
        if not result.error:
            assert result.answers[0].token_ids == alone[text, 0].token_ids


def test_an_answer_of_several_has_its_own_end_and_first_token(tiny: Callable[..., RunConfig], loaded: OpenVinoProvider):
    answered = answers(tiny(*SAMPLED, "generation.n=3", "batch.size=2"), "a", "zz", loaded=loaded)
    assert sorted(answered) == [(text, choice) for text in ("a", "zz") for choice in range(3)]
    for text in ("a", "zz"):
        completions: list[Completion] = [answered[text, choice] for choice in range(3)]
        ends = [completion.timing.elapsed_s for completion in completions]
        assert len({completion.timing.started_at for completion in completions}) == 1
        assert ends[2] > max(ends[:2]), "two are alive at once: the third starts when one has ended"
        assert all(len(c.timing.chunk_gaps_s) == usage_of(c).output_tokens - 1 for c in completions)
