"""provider=transformers on a tiny model of random weights: rows, their ends and token counts, errors."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from runner import app
from runner.batching import static
from runner.config.schema import GenerationParams, RunConfig
from runner.errors import ConfigError, ModelError, OutOfMemoryError
from runner.metrics.summary import summarize
from runner.providers.factory import build
from runner.providers.protocols import Provider
from runner.providers.transformers.provider import TransformersProvider
from runner.record.folder import RunFolder
from runner.types import Completion, Failure, Outcome
from tests.conftest import Compose
from tests.factories import not_superseded, outcomes_of, prompts, usage_of

TEXTS = ["a", "some words", "a much longer prompt than the others are", "mid length here", "zz"]


@pytest.fixture
def tiny(config: Compose, tiny_model: Path) -> Any:
    def composed(*overrides: str) -> RunConfig:
        base = (f"model.id={tiny_model}", "provider.dtype=float32", "provider.device=cpu", "generation.max_tokens=12")
        return config(*base, *overrides)

    return composed


def generate(config: RunConfig, texts: list[str] = TEXTS) -> list[Outcome]:
    provider = build(config)
    with provider:
        return outcomes_of(provider, prompts(*texts), config.params(), config.with_mode("static").batch)


def texts_of(outcomes: list[Outcome]) -> dict[tuple[str, int], str]:
    return {(o.prompt_id, o.choice): o.text for o in outcomes if isinstance(o, Completion)}


def by_hand(folder: Path, text: str, max_tokens: int) -> list[int]:
    """Greedy tokens of one prompt, by calling the model step by step: no generate(), no padding, no cache."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids: list[int] = tokenizer(text)["input_ids"]
    new: list[int] = []
    with torch.inference_mode():
        while len(new) < max_tokens and (not new or new[-1] != tokenizer.eos_token_id):
            new.append(int(model(torch.tensor([ids + new])).logits[0, -1].argmax()))
    return new


@pytest.mark.parametrize("size", [1, 2, 5])
def test_padded_rows_are_what_each_prompt_gives_alone(size: int, tiny: Any, tiny_model: Path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for outcome in generate(tiny(f"batch.size={size}")):
        text = TEXTS[int(outcome.prompt_id[1:])]
        expected = by_hand(tiny_model, text, 12)
        assert isinstance(outcome, Completion)
        assert outcome.text == tokenizer.decode(expected, skip_special_tokens=True)
        assert outcome.token_ids == tuple(expected)
        assert usage_of(outcome).output_tokens == len(expected)
        assert usage_of(outcome).input_tokens == len(text), "letters are tokens here; padding is not counted"
        assert outcome.finish_reason == ("stop" if expected[-1] == tokenizer.eos_token_id else "length")


@pytest.fixture
def early_end(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model, whose end of sequence is a token that it says early after some prompts and not after others."""
    tokens = {text: by_hand(tiny_model, text, 12) for text in TEXTS}
    ends = {
        token: sum(token in answer[1:8] for answer in tokens.values())
        for generated in tokens.values()
        for token in generated
    }
    token = next(token for token, times in sorted(ends.items()) if 0 < times < len(TEXTS))
    folder = tmp_path / "early"
    shutil.copytree(tiny_model, folder)
    for name in ("config.json", "generation_config.json"):
        settings = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(settings | {"eos_token_id": token}))
    return folder


def test_each_row_ends_at_its_own_first_end_of_sequence(early_end: Path, tiny_model: Path, tiny: Any):
    end = json.loads((early_end / "config.json").read_text())["eos_token_id"]
    config = tiny(f"model.id={early_end}", "batch.size=5")
    outcomes = generate(config)
    tokens_out = []
    for outcome in outcomes:
        tokens = by_hand(tiny_model, TEXTS[int(outcome.prompt_id[1:])], 12)
        expected = tokens.index(end) + 1 if end in tokens else len(tokens)
        assert isinstance(outcome, Completion)
        assert usage_of(outcome).output_tokens == expected
        assert outcome.token_ids == tuple(tokens[:expected])
        assert outcome.finish_reason == ("stop" if end in tokens else "length")
        tokens_out.append(expected)
    assert len(set(tokens_out)) > 1, "the batch is ragged"
    metrics = summarize(not_superseded(outcomes), padded=True, measured_s={0: 1.0})
    lengths = [len(text) for text in TEXTS]
    assert metrics["tail_wait_ratio"] == pytest.approx(1 - sum(tokens_out) / (5 * max(tokens_out)))
    assert metrics["prompt_padding_ratio"] == pytest.approx(1 - sum(lengths) / (5 * max(lengths)))


def test_a_batch_has_one_latency_and_one_time_to_first_token(tiny: Any):
    outcomes = generate(tiny("batch.size=5"))
    assert len({outcome.timing for outcome in outcomes}) == 1
    timing = outcomes[0].timing
    assert timing.time_to_first_token_s is not None
    assert 0 < timing.time_to_first_token_s < timing.elapsed_s


def test_a_stop_sequence_ends_a_row_and_is_not_in_its_text(tiny: Any, tiny_model: Path):
    from transformers import AutoTokenizer

    whole = texts_of(generate(tiny("batch.size=5")))
    stop = whole["p1", 0][4:6]
    stopped = generate(tiny("batch.size=5", f"generation.stop_sequences=['{stop}']"))
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for outcome in stopped:
        assert isinstance(outcome, Completion)
        before, found, _ = whole[outcome.prompt_id, 0].partition(stop)
        assert outcome.text == before
        if found:
            assert outcome.finish_reason == "stop"
            assert usage_of(outcome).output_tokens == len(tokenizer(before + stop)["input_ids"])


def test_the_same_seed_gives_the_same_samples_and_another_seed_others(tiny: Any):
    sampled = ("generation=sampled", "generation.max_tokens=12", "batch.size=2", "generation.temperature=2")
    first, again, other = (texts_of(generate(tiny(*sampled, f"seed={seed}"))) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_batch_generated_alone_gives_what_it_gave_in_its_run(tiny: Any):
    config = tiny("generation=sampled", "generation.max_tokens=12", "batch.size=2", "generation.temperature=2")
    whole = texts_of(generate(config))
    provider = build(config)
    assert isinstance(provider, TransformersProvider)
    with provider:
        batch = list(static.form_batches(provider, prompts(*TEXTS), config.batch))[1]
        params = config.params(seed=static.batch_seed(config.seed, batch))
        alone = {
            (prompt.id, choice): answer.text
            for prompt, result in zip(batch, provider.generate_batch(batch, params), strict=True)
            for choice, answer in enumerate(result.answers)
        }
    assert len(alone) == 2
    assert alone == {key: text for key, text in whole.items() if key in alone}


def test_a_sampled_run_cut_between_batches_and_resumed_gives_the_texts_of_an_uninterrupted_one(
    tiny: Any, tmp_path: Path
):
    (tmp_path / "p.txt").write_text("\n".join(TEXTS))
    sampled = ("generation=sampled", "generation.max_tokens=12", "generation.temperature=2", "generation.n=2")
    source = ("prompts=file", f"prompts.path={tmp_path / 'p.txt'}")
    app.run(tiny(*sampled, *source, "batch.mode=static", "batch.size=2", "batch.warmup=0"), tmp_path / "whole")
    whole = list(RunFolder(tmp_path / "whole").outcomes.read())
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    lines = (tmp_path / "cut" / "outcomes.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "cut" / "outcomes.jsonl").write_bytes(b"".join(lines[:4]))
    app.resume(tmp_path / "cut")
    resumed = list(RunFolder(tmp_path / "cut").outcomes.read())
    assert [outcome.segment for outcome in resumed] == [0] * 4 + [1] * 6
    assert len(resumed) == len(whole)
    assert texts_of(resumed) == texts_of(whole)
    assert len(set(texts_of(whole).values())) == len(whole), "it was sampled"


def test_n_answers_belong_to_their_prompt(tiny: Any):
    greedy = texts_of(generate(tiny("batch.size=5")))
    near_greedy = (
        "generation=sampled",
        "generation.max_tokens=12",
        "generation.top_k=1",
        "generation.n=3",
        "batch.size=2",
    )
    answers = texts_of(generate(tiny(*near_greedy)))
    assert len(answers) == 3 * len(TEXTS)
    assert all(text == greedy[prompt_id, 0] for (prompt_id, _), text in answers.items())


def test_a_prompt_too_long_for_the_model_fails_alone(tiny: Any):
    long = "x" * 250
    outcomes = generate(tiny("batch.size=3"), ["short", long, "other"])
    (failed,) = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert failed.prompt_id == "p1"
    assert "250 input tokens" in failed.error.message
    assert "256" in failed.error.message
    assert len(texts_of(outcomes)) == 2
    only = generate(tiny("batch.size=1"), [long])
    assert isinstance(only[0], Failure)


def test_a_prompt_that_has_no_utf8_fails_alone(tiny: Any):
    outcomes = generate(tiny("batch.size=3"), ["short", "half \ud800 of a pair", "other"])
    (failed,) = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert (failed.prompt_id, failed.error.type, failed.error.retryable) == ("p1", "UnsendablePrompt", False)
    assert "lone surrogate (U+D800)" in failed.error.message
    assert len(texts_of(outcomes)) == 2


def test_what_the_checkpoint_would_add_to_generation_is_left_out(tiny: Any, tiny_model: Path, tmp_path: Path):
    folder = tmp_path / "opinionated"
    shutil.copytree(tiny_model, folder)
    path = folder / "generation_config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"repetition_penalty": 5.0, "do_sample": True, "top_k": 3})
    )
    assert texts_of(generate(tiny(f"model.id={folder}"))) == texts_of(generate(tiny()))


def test_a_chat_template_is_applied_where_there_is_one_and_can_be_turned_off(
    tiny: Any, tiny_model: Path, tmp_path: Path
):
    folder = tmp_path / "chat"
    shutil.copytree(tiny_model, folder)
    template = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}[assistant]"
    (folder / "chat_template.jinja").write_text(template)
    chat, plain = (
        generate(tiny(f"model.id={folder}", f"provider.chat_template={use}"), ["hi"]) for use in ("true", "false")
    )
    assert isinstance(chat[0], Completion)
    assert isinstance(plain[0], Completion)
    assert usage_of(chat[0]).input_tokens == len("[user]hi[assistant]")
    assert usage_of(plain[0]).input_tokens == len("hi")


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile on a CPU needs a C++ compiler")
@pytest.mark.slow  # one compilation takes half a minute
def test_a_compiled_model_gives_the_same_texts(tiny: Any):
    few = ("generation.max_tokens=3", "batch.size=2")
    compiled = generate(tiny("provider.compile=true", *few), TEXTS[:2])
    assert texts_of(compiled) == texts_of(generate(tiny(*few), TEXTS[:2]))


def test_what_was_resolved_is_described_until_the_model_is_released(tiny: Any):
    provider: Provider = build(tiny("provider.attn_implementation=eager"))
    with provider:
        described = provider.describe()
    assert described["device"] == "cpu"
    assert described["dtype"] == "float32"
    assert described["attn_implementation"] == "eager"
    with pytest.raises(RuntimeError):
        provider.describe()


def test_out_of_memory_names_the_batch_and_what_to_try(tiny: Any, monkeypatch: pytest.MonkeyPatch):
    import resource

    config: RunConfig = tiny("batch.size=4000", "generation.max_tokens=200")
    provider = build(config)
    assert isinstance(provider, TransformersProvider)
    with provider:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + 50 * 2**20, hard))
        try:
            with pytest.raises(OutOfMemoryError) as caught:
                provider.generate_batch(prompts(*["some words " * 3] * 4000), config.params())
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    for part in ("4000 prompts", "33 input tokens", "batch.size=2000", "provider.dtype=bfloat16"):
        assert part in str(caught.value)


def test_a_model_that_is_not_there_names_the_local_alternatives(tiny: Any):
    with pytest.raises(ModelError) as caught, build(tiny("model.id=nobody/nothing")):
        pass
    for part in ("'nobody/nothing'", "model.id=FOLDER", "model=transformers/default"):
        assert part in str(caught.value)


def test_a_device_that_is_not_there_is_refused(tiny: Any):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ConfigError, match=r"provider\.device='cuda:1'.*cpu"), build(tiny("provider.device=cuda:1")):
        pass


def test_remote_code_is_off_and_turning_it_on_is_logged(tiny: Any, caplog: pytest.LogCaptureFixture):
    assert build(tiny()).__enter__() and "trust_remote_code" not in caplog.text
    with build(tiny("provider.trust_remote_code=true")):
        assert "trust_remote_code is on" in caplog.text


def test_generation_parameters_reach_the_model(tiny: Any):
    params: GenerationParams = tiny("generation=sampled", "generation.top_k=7").params()
    provider = build(tiny())
    assert isinstance(provider, TransformersProvider)
    with provider:
        sent = provider._model._generation_config(params)
    assert (sent.max_new_tokens, sent.temperature, sent.top_p, sent.top_k, sent.do_sample) == (12, 0.7, 0.95, 7, True)
