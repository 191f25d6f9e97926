"""provider=openai against a local server: what is sent, and what the responses become."""

import json
from pathlib import Path

import genai_prices
import pytest

from runner import app
from runner.pricing import find_price
from runner.providers.factory import build
from runner.types import Usage
from tests.conftest import Compose
from tests.factories import completions, generate, prompts, usage_of
from tests.servers.openai_server import KEY, OpenAIServer

ENDPOINTS = ("chat", "responses", "completions")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_every_endpoint_gives_text_tokens_end_and_times(endpoint: str, stream: bool, hosted: Compose):
    with OpenAIServer(first_token_s=0.05) as server:
        config = hosted(server, f"provider.endpoint={endpoint}", f"provider.stream={stream}", "generation.max_tokens=3")
        by_choice = completions(generate(config, prompts("one two", "one two three four")))
    short, cut = by_choice["p0", 0], by_choice["p1", 0]
    assert (short.text, short.finish_reason, cut.text, cut.finish_reason) == (
        "one two",
        "stop",
        "one two three",
        "length",
    )
    assert (usage_of(short).input_tokens, usage_of(short).output_tokens, usage_of(cut).input_tokens) == (2, 2, 4)
    assert short.model == "gpt-5.4-mini-2026", "the model that answered, as the service names it"
    assert (short.timing.time_to_first_token_s is not None) == stream
    assert {asked.path for asked in server.asked} == {f"/v1/{'chat/completions' if endpoint == 'chat' else endpoint}"}
    assert all(asked.headers["authorization"] == f"Bearer {KEY}" for asked in server.asked)


def test_what_is_configured_is_what_is_sent(hosted: Compose):
    knobs = (
        "generation=sampled",
        "generation.stop_sequences=[END]",
        "generation.n=2",
        "seed=7",
        "provider.service_tier=flex",
    )
    with OpenAIServer() as server:
        generate(hosted(server, *knobs, "provider.reasoning_effort=none"), prompts("hi"))
        generate(hosted(server, "provider.prediction=again"), prompts("hi"))
        generate(hosted(server, "provider.endpoint=responses", "provider.reasoning_effort=low"), prompts("hi"))
        generate(hosted(server, "provider.max_tokens_field=max_tokens", "provider.seed=false"), prompts("hi"))
        generate(hosted(server, "provider.endpoint=completions"), prompts("hi"))
    chat, predicted, response, compatible, completion = (asked.body for asked in server.asked)
    assert chat == {
        "model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 64, "temperature": 0.7,
        "top_p": 0.95, "stop": ["END"], "n": 2, "seed": 7, "service_tier": "flex", "reasoning_effort": "none",
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    assert predicted == {
        "model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 64, "temperature": 0.0, "seed": 0,
        "prediction": {"type": "content", "content": "again"}, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    assert response == {
        "model": "gpt-5.4-mini", "input": [{"role": "user", "content": "hi"}], "max_output_tokens": 64, "temperature": 0.0,
        "reasoning": {"effort": "low"}, "store": False, "stream": True,
    }  # fmt: skip
    assert {"max_tokens", "temperature"} <= set(compatible)
    assert not {"seed", "reasoning_effort", "max_completion_tokens"} & set(compatible), (
        "models that do not reason refuse any"
    )
    assert completion == {
        "model": "gpt-5.4-mini", "prompt": "hi", "max_tokens": 64, "temperature": 0.0, "seed": 0,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip


def test_several_answers_share_the_usage_of_their_request(hosted: Compose):
    with OpenAIServer() as server:
        by_choice = completions(generate(hosted(server, "generation.n=3"), prompts("a b c d")))
    assert [by_choice["p0", choice].text for choice in range(3)] == ["a b c d"] * 3
    assert [usage_of(by_choice["p0", choice]).output_tokens for choice in range(3)] == [4, 4, 4]


@pytest.mark.parametrize(
    ("endpoint", "reasoning_field"), [("chat", "reasoning_content"), ("chat", "reasoning"), ("responses", "reasoning")]
)
def test_the_first_token_is_the_first_piece_of_reasoning(endpoint: str, reasoning_field: str, hosted: Compose):
    with OpenAIServer(token_s=0.3, fault=lambda *_: {"reasoning": reasoning_field}) as server:
        (done,) = completions(generate(hosted(server, f"provider.endpoint={endpoint}"), prompts("a b"))).values()
    assert done.text == "a b"
    first_s, answer_s = done.timing.time_to_first_token_s, done.timing.time_to_first_answer_token_s
    assert first_s is not None
    assert answer_s is not None
    assert answer_s - first_s > 0.2, "0.3 s between the thought and the text"
    assert done.timing.elapsed_s - first_s > 0.5


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("endpoint", ["chat", "responses"])
def test_reasoning_tokens_are_read_from_the_usage_and_are_part_of_the_output(
    endpoint: str, stream: bool, hosted: Compose
):
    with OpenAIServer(fault=lambda *_: {"reasoning_tokens": 5}) as server:
        config = hosted(server, f"provider.endpoint={endpoint}", f"provider.stream={stream}")
        (done,) = completions(generate(config, prompts("a b"))).values()
    assert (usage_of(done).output_tokens, usage_of(done).reasoning_tokens) == (7, 5)


def test_reasoning_tokens_of_several_answers_add_up_to_those_of_their_request(hosted: Compose):
    with OpenAIServer(fault=lambda *_: {"reasoning_tokens": 5}) as server:
        done = completions(generate(hosted(server, "generation.n=3"), prompts("a b c")))
    # 9 tokens of text and 5 of reasoning, over three answers of equal length
    assert sorted(usage_of(choice).output_tokens for choice in done.values()) == [4, 5, 5]
    assert sorted(usage_of(choice).reasoning_tokens or 0 for choice in done.values()) == [1, 2, 2]


def test_the_gaps_are_those_with_which_the_server_sent_its_chunks(hosted: Compose):
    with OpenAIServer(token_s=0.15) as server:
        (done,) = completions(generate(hosted(server), prompts("a b c"))).values()
    (first, _, last) = (sent_at for _, sent_at in server.asked[0].sent_at)
    assert len(done.timing.chunk_gaps_s) == 2
    assert sum(done.timing.chunk_gaps_s) == pytest.approx(last - first, abs=0.1)


def test_gaps_of_several_answers_are_between_chunks_of_one_answer(hosted: Compose):
    with OpenAIServer(token_s=0.1) as server:
        done = completions(generate(hosted(server, "generation.n=2"), prompts("a b c")))
    assert len({choice.timing for choice in done.values()}) == 1, "the prompt's"
    gaps_s = done["p0", 0].timing.chunk_gaps_s
    assert len(gaps_s) == 4, "two of each answer"
    assert sum(gaps_s) > 0.6, "an answer has a chunk in 0.2 s, though one comes in 0.1 s: 4 x 0.2 s"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("endpoint", ["chat", "responses"])
def test_input_from_the_cache_has_a_price_of_its_own(endpoint: str, stream: bool, hosted: Compose, tmp_path: Path):
    price = "{input_usd_per_million: 100, cached_input_usd_per_million: 10, output_usd_per_million: 1000}"
    (tmp_path / "p.txt").write_text("a b c d e f\n")
    settings = (f"provider.endpoint={endpoint}", f"provider.stream={stream}", f"model.price={price}")
    source = ("prompts=file", f"prompts.path={tmp_path / 'p.txt'}")
    with OpenAIServer(fault=lambda *_: {"cached": 4}) as server:
        summary = app.run(hosted(server, *settings, *source), tmp_path / "run")
    assert summary.metrics["cost_usd"] == pytest.approx((2 * 100 + 4 * 10 + 6 * 1000) / 1e6)
    (line,) = (tmp_path / "run" / "outcomes.jsonl").read_text().splitlines()
    assert json.loads(line)["cached_input_tokens"] == 4


def test_a_cache_that_did_nothing_is_not_on_record(hosted: Compose, tmp_path: Path):
    with OpenAIServer(fault=lambda *_: {"cached": 0}) as server:
        app.run(hosted(server, "prompts=memo"), tmp_path / "run")
    assert "cache" not in (tmp_path / "run" / "outcomes.jsonl").read_text()


def test_a_long_context_and_a_cached_one_cost_what_the_list_says(config: Compose):
    model = config("provider=openai", "model.id=gpt-5.4").model
    price = find_price(model, "openai")
    assert price is not None
    for usage in (
        Usage(input_tokens=1000, output_tokens=100),
        Usage(input_tokens=1000, output_tokens=100, cached_input_tokens=600),
        Usage(input_tokens=272_000, output_tokens=100),
        Usage(input_tokens=272_001, output_tokens=100),
        Usage(input_tokens=300_000, output_tokens=100, cached_input_tokens=200_000),
    ):
        token_count = genai_prices.Usage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cached_input_tokens,
        )
        listed = genai_prices.calc_price(token_count, model_ref="gpt-5.4", provider_id="openai")
        assert price.usage_usd(usage) == pytest.approx(float(listed.total_price))


def test_what_a_provider_is_called_is_on_record(config: Compose):
    expected = {
        "openai": ("openai", "chat", True),
        "openai provider.endpoint=completions": ("openai", "text_completion", True),
        "openai provider.endpoint=responses": ("openai", "chat", False),
        "azure provider.azure_endpoint=http://host": ("azure.ai.openai", "chat", True),
        "echo": ("echo", "chat", False),
    }
    for provider, facts in expected.items():
        with build(config(*f"provider={provider}".split())) as opened:
            description = opened.describe()
        assert (
            description["gen_ai.provider.name"],
            description["gen_ai.operation.name"],
            description["sends_seed"],
        ) == facts


def test_256_requests_are_in_flight_at_once(hosted: Compose):
    with OpenAIServer(hold_until_open=256) as server:
        generate(hosted(server, "batch.size=256", "limits.timeout_s=60"), prompts(*map(str, range(300))))
    assert server.most_open == 256
