"""What every provider promises to batching, dispatch and the record, checked on each against its local server."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest

from runner.config.schema import GenerationParams, RunConfig
from runner.errors import ConfigError
from runner.providers.errors import CallError
from runner.providers.factory import build
from runner.providers.protocols import (
    ConcurrentProvider,
    ContinuousProvider,
    ListProvider,
    StaticProvider,
)
from runner.types import ErrorInfo, FinishReason, Generated, Prompt
from tests.conftest import Compose
from tests.factories import prompts, usage_of
from tests.servers.bedrock_server import BedrockServer, Thinks
from tests.servers.openai_server import OpenAIServer

SECRET = "planted-secret-8c21"  # noqa: S105 - looked for in descriptions
REFUSED = "this prompt is refused"
Result = Generated | CallError


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A provider with a protocol by which it is called.

    Attributes:
        config: composes a configuration for the provider on its local server.
        protocol: how the provider is called.
        unsupported: overrides that set a generation key, or a value, which the provider does not support.
        refused: a prompt that the provider, or the service, refuses.
        requests: how many requests the local server has received.
        streams: whether answers are streamed, here a word a chunk.
        streams_tokens: whether answers are streamed token by token.
        fingerprint: what the local server says of its system.
        think: has the local server reason before its next answers; None where answers have no reasoning.
        reasoning_tokens: what the local server counts of that reasoning; None where services count none.
    """

    config: Callable[..., RunConfig]
    protocol: type[Any]
    unsupported: tuple[str, ...]
    refused: str = REFUSED
    requests: Callable[[], int] = lambda: 0
    streams: bool = False
    streams_tokens: bool = False
    fingerprint: str | None = None
    think: Callable[[], None] | None = None
    reasoning_tokens: int | None = None


PROTOCOLS = {
    "echo-static": StaticProvider,
    "echo-continuous": ContinuousProvider,
    "echo-concurrent": ConcurrentProvider,
    "transformers": StaticProvider,
    "openvino": ContinuousProvider,
    "openai-chat": ConcurrentProvider,
    "openai-responses": ConcurrentProvider,
    "openai-completions": ConcurrentProvider,
    "openai-lists": ListProvider,
    "azure": ConcurrentProvider,
    "azure-lists": ListProvider,
    "bedrock-converse": ConcurrentProvider,
    "bedrock-invoke": ConcurrentProvider,
}


def openai_overrides(name: str, url: str) -> tuple[str, ...]:
    provider, _, variant = name.partition("-")
    address = f"provider.azure_endpoint={url}/" if provider == "azure" else f"provider.base_url={url}/v1"
    endpoint = {"": "chat", "lists": "completions"}.get(variant, variant)
    mode = "static" if variant == "lists" else "concurrent"
    return f"provider={provider}", address, f"provider.endpoint={endpoint}", f"batch.mode={mode}"


def refuse_one(_: int, body: dict[str, Any]) -> dict[str, Any] | None:
    message = {"error": {"message": "refused", "type": "invalid_request_error"}}
    return {"status": 400, "body": message} if REFUSED in json.dumps(body) else None


@pytest.fixture
def make_openai(config: Compose, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Subject]]:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", SECRET)
    with OpenAIServer(fault=refuse_one, token_s=0.002) as server:

        def think() -> None:
            server.fault = lambda *_: {"reasoning": "reasoning_content", "reasoning_tokens": 7}

        yield lambda name: Subject(
            config=lambda *overrides: config(*openai_overrides(name, server.url), *overrides),
            protocol=PROTOCOLS[name],
            unsupported=("generation.temperature=1", "generation.top_k=5"),
            requests=lambda: len(server.asked),
            streams=True,
            fingerprint=None if name == "openai-responses" else "fp_local",
            think=None if name.endswith(("completions", "lists")) else think,
            reasoning_tokens=7,
        )


@pytest.fixture
def make_bedrock(
    bedrock: Callable[..., RunConfig], server: BedrockServer, aws_credentials: None, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Subject]:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    server.refused_text = REFUSED

    def make(name: str) -> Subject:
        return Subject(
            config=lambda *overrides: bedrock(*overrides, api=name.partition("-")[2]),
            protocol=PROTOCOLS[name],
            unsupported=("generation.n=2",),
            requests=lambda: len(server.seen),
            streams=True,
            think=lambda: server.faults.append(Thinks(0.002)),
        )

    return make


@pytest.fixture
def make_echo(config: Compose) -> Callable[[str], Subject]:
    return lambda name: Subject(
        config=lambda *overrides: config("provider=echo", f"provider.fail_on='{REFUSED}'", *overrides),
        protocol=PROTOCOLS[name],
        unsupported=("generation.temperature=1",),
    )


@pytest.fixture
def make_transformers(config: Compose, tiny_model: Path) -> Callable[[str], Subject]:
    settings = (f"model.id={tiny_model}", "provider.dtype=float32", "provider.device=cpu", "generation.max_tokens=12")
    return lambda name: Subject(
        config=lambda *overrides: config("provider=transformers", *settings, *overrides),
        protocol=PROTOCOLS[name],
        unsupported=("generation.n=2",),  # of a greedy answer
        refused="x" * 300,  # longer than the model's context
    )


@pytest.fixture
def make_openvino(config: Compose, tiny_gguf: Path) -> Callable[[str], Subject]:
    settings = (f"model.id={tiny_gguf}", "provider.precision=f32", "generation.max_tokens=12")
    return lambda name: Subject(
        config=lambda *overrides: config("provider=openvino", *settings, *overrides),
        protocol=PROTOCOLS[name],
        unsupported=("generation.n=2",),  # of a greedy answer
        refused="x" * 300,  # longer than the model's context
        streams_tokens=True,
    )


@pytest.fixture(params=PROTOCOLS)
def subject(request: pytest.FixtureRequest) -> Subject:
    name: str = request.param
    fixture = f"make_{name.partition('-')[0].replace('azure', 'openai')}"
    made: Subject = request.getfixturevalue(fixture)(name)
    return made


async def call_service(
    subject: Subject, provider: Any, asked: Sequence[Prompt], params: GenerationParams
) -> Sequence[Result]:
    """Send a request per prompt, or one for all; an error of a call is the result of each of its prompts."""

    async def generate(prompt: Prompt) -> Result:
        try:
            generated: Generated = await provider.generate(prompt, params)
        except CallError as error:
            return error
        return generated

    async with AsyncExitStack() as connections:
        if isinstance(provider, AbstractAsyncContextManager):
            await connections.enter_async_context(provider)
        if subject.protocol is ConcurrentProvider:
            return await asyncio.gather(*map(generate, asked))
        try:
            return list(await provider.generate_list(asked, params))
        except CallError as error:
            return [error] * len(asked)


def call(subject: Subject, provider: Any, texts: Sequence[str], params: GenerationParams) -> Sequence[Result]:
    """Generate for the texts by the subject's protocol; return the results in the texts' order."""
    asked = prompts(*texts)
    assert isinstance(provider, subject.protocol)
    if subject.protocol is StaticProvider:
        return list(provider.generate_batch(asked, params))
    if subject.protocol is ContinuousProvider:
        results = {prompt.id: result for prompt, result in provider.generate_continuously(asked, params, 2)}
        return [results[prompt.id] for prompt in asked]
    return asyncio.run(call_service(subject, provider, asked, params))


def run(subject: Subject, config: RunConfig, *texts: str) -> Sequence[Result]:
    with build(config) as provider:
        return call(subject, provider, texts, config.params())


def answered(results: Sequence[Result]) -> list[Generated]:
    """Return the results, each of which must have answers."""
    generated = []
    for result in results:
        assert isinstance(result, Generated), result
        assert result.error is None, result.error
        generated.append(result)
    return generated


TEXTS = ("one", "one two", "one two three", "one two three four")


def test_every_prompt_has_its_answers_in_the_order_of_the_prompts(subject: Subject):
    config = subject.config()
    results = answered(run(subject, config, *TEXTS))
    assert [len(result.answers) for result in results] == [1] * 4
    input_tokens = [usage_of(result.answers[0]).input_tokens for result in results]
    if subject.protocol is not ListProvider:  # a service counts a list as a whole
        assert input_tokens == sorted(input_tokens)
        assert len(set(input_tokens)) == 4
    alone = [answered(run(subject, config, text))[0].answers[0].text for text in TEXTS]
    assert [result.answers[0].text for result in results] == alone


def test_a_prompt_has_n_answers_or_n_is_refused(subject: Subject):
    supported = build(subject.config()).supported_params
    sampled = ("generation.temperature=1",) if "temperature" in supported else ()
    config = subject.config("generation.n=3", *sampled)
    if "n" in supported:
        assert [len(result.answers) for result in answered(run(subject, config, *TEXTS))] == [3] * 4
    else:
        with pytest.raises(ConfigError, match=r"generation\.n=3"):
            build(config)


def test_usage_finish_reason_and_model_are_recorded(subject: Subject):
    for result in answered(run(subject, subject.config(), *TEXTS)):
        assert result.model
        for answer in result.answers:
            assert answer.text
            assert answer.finish_reason in get_args(FinishReason)
            for count in (usage_of(answer).input_tokens, usage_of(answer).output_tokens):
                assert type(count) is int
                assert count > 0


def test_an_answer_that_reaches_max_tokens_is_cut_and_says_length(subject: Subject):
    for result in answered(run(subject, subject.config("generation.max_tokens=2"), "one two three four")):
        assert (result.answers[0].finish_reason, usage_of(result.answers[0]).output_tokens) == ("length", 2)


def test_timing_has_a_start_a_latency_and_no_later_first_token(subject: Subject):
    for result in answered(run(subject, subject.config(), *TEXTS)):
        timing = result.timing
        assert timing.started_at.utcoffset() is not None
        assert timing.elapsed_s > 0
        assert timing.time_to_first_token_s is None or 0 <= timing.time_to_first_token_s <= timing.elapsed_s


def test_a_streamed_answer_has_a_gap_between_each_two_of_its_chunks_and_no_other_answer_has_any(subject: Subject):
    for text, result in zip(TEXTS, answered(run(subject, subject.config(), *TEXTS)), strict=True):
        gaps_s, first_s = result.timing.chunk_gaps_s, result.timing.time_to_first_token_s
        chunks = {subject.streams: len(text.split()), subject.streams_tokens: usage_of(result.answers[0]).output_tokens}
        assert len(gaps_s) == chunks.get(True, 1) - 1
        assert all(0 <= gap_s == round(gap_s, 6) for gap_s in gaps_s)
        assert (first_s or 0) + sum(gaps_s) <= result.timing.elapsed_s + 1e-5


def test_reasoning_before_the_text_has_a_first_token_and_a_count_of_its_own(subject: Subject):
    if subject.think is None:
        pytest.skip("answers have no reasoning")
    subject.think()
    (result,) = answered(run(subject, subject.config(), "one two"))
    timing = result.timing
    assert result.answers[0].text.strip() == "one two"
    assert timing.time_to_first_token_s is not None
    assert timing.time_to_first_answer_token_s is not None
    assert timing.time_to_first_token_s < timing.time_to_first_answer_token_s <= timing.elapsed_s
    assert len(timing.chunk_gaps_s) == 2, "the thought and two words"
    assert usage_of(result.answers[0]).reasoning_tokens == subject.reasoning_tokens


def test_what_a_service_says_of_its_system_is_in_every_answer_and_what_it_does_not_say_is_none(subject: Subject):
    for result in answered(run(subject, subject.config(), *TEXTS)):
        assert [answer.system_fingerprint for answer in result.answers] == [subject.fingerprint]
        assert [usage_of(answer).reasoning_tokens for answer in result.answers] == [None]
        assert result.timing.time_to_first_answer_token_s is None


def test_an_unsupported_generation_key_is_refused_before_anything_is_sent(subject: Subject):
    with pytest.raises(ConfigError, match=r"generation\.(temperature|top_k|n)="):
        build(subject.config(*subject.unsupported))
    assert subject.requests() == 0


def test_a_refused_prompt_is_an_error_not_an_empty_text(subject: Subject):
    first, refused, last = run(subject, subject.config(), "one two", subject.refused, "one two three")
    if isinstance(refused, Generated):
        assert isinstance(refused.error, ErrorInfo)
        assert (refused.answers, refused.error.retryable) == ((), False)
        assert refused.error.message
    else:
        assert not refused.policy.fatal
        assert not refused.policy.retryable
    if subject.protocol is not ListProvider:  # a list fails as a whole; dispatch sends the halves again
        answered([first, last])


def test_a_description_is_json_with_its_names_and_without_a_secret(subject: Subject):
    config = subject.config()
    with build(config) as provider:
        call(subject, provider, TEXTS, config.params())
        described = json.dumps(provider.describe())
    assert {"gen_ai.provider.name", "gen_ai.operation.name", "sends_seed"} <= json.loads(described).keys()
    assert SECRET not in described


def test_a_provider_may_be_entered_again(subject: Subject):
    config = subject.config()
    provider = build(config)
    with provider:
        before = answered(call(subject, provider, TEXTS, config.params()))
    with provider:
        after = answered(call(subject, provider, TEXTS, config.params()))
    assert [result.answers for result in before] == [result.answers for result in after]
