"""provider=openai and provider=azure against a local server: what leaves, what comes back, and what goes wrong."""

import itertools
import json
import os
import ssl
import statistics
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import genai_prices
import pytest

from runner import app
from runner.config.schema import RunConfig
from runner.errors import AccessError, BudgetError, ConfigError, ServiceError
from runner.pricing import find_price
from runner.providers.factory import build
from runner.types import Completion, Failure, Outcome, Usage
from tests.conftest import Compose
from tests.factories import generate, prompts
from tests.servers.openai_server import OpenAIServer

KEY = "planted-key-3f9c"
ENDPOINTS = ("chat", "responses", "completions")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)


@pytest.fixture
def hosted(config: Compose) -> Any:
    def made(server: OpenAIServer, *overrides: str) -> RunConfig:
        composed = config("provider=openai", f"provider.base_url={server.url}/v1", "batch.size=4", *overrides)
        return composed.with_mode(composed.batch.mode or "concurrent")

    return made


def completions(outcomes: list[Outcome]) -> dict[tuple[str, int], Completion]:
    return {(outcome.prompt_id, outcome.choice): outcome for outcome in outcomes if isinstance(outcome, Completion)}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_every_endpoint_gives_text_tokens_end_and_times(endpoint: str, stream: bool, hosted: Any):
    with OpenAIServer(first_token_s=0.05) as server:
        config = hosted(server, f"provider.endpoint={endpoint}", f"provider.stream={stream}", "generation.max_tokens=3")
        found = completions(generate(config, prompts("one two", "one two three four")))
    short, cut = found["p0", 0], found["p1", 0]
    assert (short.text, short.finish_reason, cut.text, cut.finish_reason) == (
        "one two",
        "stop",
        "one two three",
        "length",
    )
    assert (short.usage.input_tokens, short.usage.output_tokens, cut.usage.input_tokens) == (2, 2, 4)
    assert short.model == "gpt-5.4-mini-2026", "what answered, not what was asked for"
    assert (short.timing.time_to_first_token_s is not None) == stream
    assert {asked.path for asked in server.asked} == {f"/v1/{'chat/completions' if endpoint == 'chat' else endpoint}"}
    assert all(asked.headers["authorization"] == f"Bearer {KEY}" for asked in server.asked)


def test_what_was_configured_is_what_leaves(hosted: Any):
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


def test_several_answers_share_the_usage_of_their_request(hosted: Any):
    with OpenAIServer() as server:
        found = completions(generate(hosted(server, "generation.n=3"), prompts("a b c d")))
    assert [found["p0", choice].text for choice in range(3)] == ["a b c d"] * 3
    assert [found["p0", choice].usage.output_tokens for choice in range(3)] == [4, 4, 4]


def test_a_static_batch_is_one_request_with_a_list_of_prompts(hosted: Any):
    with OpenAIServer() as server:
        config = hosted(server, "provider.endpoint=completions", "batch.mode=static", "batch.size=3", "generation.n=2")
        found = completions(generate(config, prompts("a", "b b", "c c c", "d d d d")))
    assert sorted(len(asked.body["prompt"]) for asked in server.asked) == [1, 3]
    assert {(key, done.text) for key, done in found.items()} == {
        ((f"p{i}", choice), text) for i, text in enumerate(("a", "b b", "c c c", "d d d d")) for choice in (0, 1)
    }
    assert sum(done.usage.output_tokens for done in found.values()) == 20
    assert len({done.timing for done in found.values()}) == 2, "a batch's latency is its prompts'"


def test_a_server_that_refuses_lists_gives_failures_that_say_so(hosted: Any):
    def refuse(_: int, body: dict[str, Any]) -> dict[str, Any] | None:
        return (
            {"status": 400, "body": {"error": {"message": "prompt must be a string"}}}
            if isinstance(body["prompt"], list)
            else None
        )

    with OpenAIServer(fault=refuse) as server:
        outcomes = generate(hosted(server, "provider.endpoint=completions", "batch.mode=static"), prompts("a", "b"))
    assert len(outcomes) == 2
    for outcome in outcomes:
        assert isinstance(outcome, Failure)
        assert "prompt must be a string" in outcome.error.message
        assert "batch.mode=concurrent" in outcome.error.message


def test_a_poisonous_prompt_in_a_list_is_no_word_against_lists(hosted: Any):
    def refuse(_: int, body: dict[str, Any]) -> dict[str, Any] | None:
        return {"status": 400, "body": {"error": {"message": "too long"}}} if "bad" in body["prompt"] else None

    with OpenAIServer(fault=refuse) as server:
        config = hosted(server, "provider.endpoint=completions", "batch.mode=static", "batch.order=given")
        outcomes = generate(config, prompts("a", "b", "c", "bad"))
    (failed,) = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert failed.error.message == "400: too long"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["generation.n=2"], r"sent 1 of 2 answers: generation\.n is not honoured by this server"),
        (["provider.endpoint=completions", "batch.mode=static"], r"sent 1 of 3 answers.*batch\.mode=concurrent"),
    ],
    ids=["n", "list"],
)
def test_a_server_that_sends_fewer_answers_than_asked_for_is_not_asked_again(
    overrides: list[str], says: str, stream: bool, hosted: Any
):
    with OpenAIServer(fault=lambda *_: {"answers": 1}) as server:
        config = hosted(server, f"provider.stream={stream}", "batch.size=3", *overrides)
        with pytest.raises(AccessError, match=says):
            generate(config, prompts("a", "b", "c"))
        assert len(server.asked) <= 3, "each was sent once at most"


def test_a_key_that_a_server_is_known_to_ignore_is_refused(config: Compose):
    for provider in ("ollama", "transformers-serve"):
        with pytest.raises(ConfigError, match=r"generation\.n=2"):
            build(config(f"provider={provider}", "generation=sampled", "generation.n=2"))


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["generation.top_k=5", "generation=sampled"], ["generation.top_k=5", "'openai'"]),
        (["provider.endpoint=responses", "generation.n=2"], ["generation.n=2"]),
        (["provider.endpoint=responses", "generation.stop_sequences=[x]"], ["stop_sequences"]),
        (["provider.endpoint=responses", "provider.prediction=x"], ["provider.prediction", "chat"]),
        (["batch.mode=static"], ["batch.mode='static'", "set provider.endpoint=completions", "'chat'"]),
        (["batch.mode=static", "provider.endpoint=responses"], ["set provider.endpoint=completions", "'responses'"]),
        (["provider.endpoint=completions", "provider.reasoning_effort=low"], ["provider.reasoning_effort='low'"]),
        (["provider.endpoint=completions", "provider.service_tier=flex"], ["provider.service_tier='flex'"]),
        (["provider.endpoint=completions", "provider.prediction=x"], ["provider.prediction='x'"]),
        (
            ["provider.endpoint=completions", "provider.max_tokens_field=max_completion_tokens"],
            ["provider.max_tokens_field='max_completion_tokens'", "max_tokens only"],
        ),
        (["provider.endpoint=responses", "provider.max_tokens_field=max_tokens"], ["max_output_tokens only"]),
        (["provider.prediction=x", "provider.reasoning_effort=none"], ["provider.reasoning_effort='none'"]),
        (["provider.prediction=x", "generation=sampled", "generation.n=2"], ["generation.n=2"]),
        (["model.revision=main"], ["model.revision='main'", "'openai'"]),
        (["generation.temperature=3"], ["generation.temperature=3"]),
        (["limits.max_cost_usd=1"], ["limits.max_cost_usd", "model.price"]),
        (["provider.api_key_env=NOT_SET_HERE"], ["NOT_SET_HERE", "provider.api_key_env"]),
    ],
)
def test_what_cannot_be_honoured_is_refused_before_anything_is_sent(
    overrides: list[str], parts: list[str], hosted: Any
):
    with OpenAIServer() as server:
        with pytest.raises(ConfigError) as caught:
            generate(hosted(server, *overrides), prompts("hi"))
        assert not server.asked
    for part in parts:
        assert part in str(caught.value)


def test_a_throttled_half_completes_and_nothing_is_sent_during_the_pause(hosted: Any):
    announced: list[float] = []

    def half(number: int, _: dict[str, Any]) -> dict[str, Any] | None:
        if number % 2:
            return None
        announced.append(time.perf_counter())
        return {"status": 429, "headers": {"Retry-After": "1"}, "body": {"error": {"message": "slow down"}}}

    with OpenAIServer(fault=half, first_token_s=0.02) as server:
        found = completions(generate(hosted(server), prompts(*map(str, range(12)))))
    assert len(found) == 12
    assert sum(done.attempts for done in found.values()) == len(server.asked)
    assert max(done.attempts for done in found.values()) > 1
    on_their_way_s = 0.1  # a request that left before the answer arrived cannot be called back
    for at in announced:
        assert not [asked for asked in server.asked if at + on_their_way_s < asked.arrived < at + 1.0]


PASSING: list[dict[str, Any]] = [
    {"status": 500, "body": {"error": {"message": "oops"}}},
    {"status": 503, "raw": b"<html>busy</html>", "headers": {"content-type": "text/html"}},
    {"status": 429, "headers": {"retry-after-ms": "20"}},
    {"status": 408},
    {"raw": b"{ not json", "headers": {"content-type": "application/json"}},
    {"raw": b"<html>hello</html>", "headers": {"content-type": "text/html"}},
    {"raw": b"", "headers": {"content-type": "text/event-stream"}},
]


@pytest.mark.parametrize(
    ("fault", "stream"), [*itertools.product(PASSING, (True, False)), ({"cut": 1}, True), ({"cut": 0}, True)], ids=str
)
def test_what_may_pass_is_tried_again_and_the_latency_has_it_all(fault: dict[str, Any], stream: bool, hosted: Any):
    with OpenAIServer(fault=lambda number, _: fault if number == 0 else None) as server:
        (outcome,) = generate(hosted(server, f"provider.stream={stream}"), prompts("a b c"))
    assert isinstance(outcome, Completion), outcome
    assert (outcome.text, outcome.attempts) == ("a b c", 2)
    first, second = server.asked
    assert outcome.timing.latency_s >= second.arrived - first.arrived - 0.05


def test_no_attempt_left_is_a_failure_that_counts_them(hosted: Any):
    with OpenAIServer(
        fault=lambda number, body: {"status": 500} if body["messages"][0]["content"] == "bad" else None
    ) as server:
        outcomes = generate(hosted(server, "limits.max_attempts=2"), prompts("good", "bad", "fine"))
    (failed,) = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert (failed.prompt_id, failed.attempts, failed.error.retryable) == ("p1", 2, True)
    assert len(completions(outcomes)) == 2
    assert len(server.asked) == 4


def test_a_refused_prompt_is_a_failure_and_not_asked_again(hosted: Any):
    with OpenAIServer(
        fault=lambda number, _: {"status": 400, "body": {"error": {"message": "too long"}}} if number == 0 else None
    ) as server:
        outcomes = generate(hosted(server, "batch.size=1"), prompts("a", "b"))
    assert isinstance(outcomes[0], Failure)
    assert (outcomes[0].error.message, outcomes[0].error.retryable) == ("400: too long", False)
    assert len(server.asked) == 2


def test_a_hanging_answer_ends_at_the_timeout(hosted: Any):
    with OpenAIServer(fault=lambda number, _: {"hang": 30} if number == 0 else None) as server:
        (outcome,) = generate(hosted(server, "limits.timeout_s=0.3"), prompts("a"))
    assert isinstance(outcome, Completion)
    assert outcome.attempts == 2


FATAL = {
    401: ["401", "provider.api_key_env"],
    402: ["402", "the quota is used up"],
    404: ["404", "model.id='gpt-5.4-mini'"],
    403: ["403", "permissions"],
}


@pytest.mark.parametrize("status", FATAL)
def test_what_no_request_can_change_stops_the_run_at_once(status: int, hosted: Any):
    with OpenAIServer(fault=lambda *_: {"status": status, "body": {"error": {"message": "no"}}}) as server:
        with pytest.raises(AccessError) as caught:
            generate(hosted(server), prompts(*map(str, range(50))))
        assert len(server.asked) <= 4
    for part in FATAL[status]:
        assert part in str(caught.value)
    assert KEY not in str(caught.value)


def test_a_used_up_quota_stops_the_run_and_keeps_what_was_done(hosted: Any, tmp_path: Path):
    def quota(number: int, _: dict[str, Any]) -> dict[str, Any] | None:
        return (
            {"status": 429, "body": {"error": {"message": "pay", "code": "insufficient_quota"}}}
            if number >= 5
            else None
        )

    with OpenAIServer(fault=quota) as server, pytest.raises(ServiceError, match="insufficient_quota"):
        app.run(hosted(server, "batch.size=1", "name=quota"), tmp_path)
    assert len(server.asked) == 6, "not retried"
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["status"], summary["metrics"]["completed_prompts"]) == ("FAILED", 5)


def sse(*events: dict[str, Any]) -> dict[str, Any]:
    raw = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    return {"raw": raw, "headers": {"content-type": "text/event-stream"}}


def failed_response(code: str) -> dict[str, Any]:
    response = {"id": "r", "object": "response", "status": "failed", "output": [], "usage": None, "model": "m"}
    error = {"code": code, "message": "said in the stream"}
    return {"type": "response.failed", "response": {**response, "error": error}, "sequence_number": 1}


STREAMED = [
    # endpoint, what the stream says, whether it is sent again, whether it stops the run
    ("chat", {"error": {"message": "x", "code": "server_error"}}, True, False),
    ("chat", {"error": {"message": "x", "type": "overloaded_error"}}, True, False),
    ("chat", {"error": {"message": "x"}}, True, False),
    ("chat", {"error": {"message": "x", "code": 400, "type": "BadRequestError"}}, False, False),
    ("chat", {"error": {"message": "x", "code": 503}}, True, False),
    ("chat", {"error": {"message": "x", "type": "invalid_request_error"}}, False, False),
    ("chat", {"error": {"message": "x", "code": "insufficient_quota"}}, False, True),
    ("completions", {"error": {"message": "x", "type": "insufficient_quota"}}, False, True),
    ("responses", failed_response("server_error"), True, False),
    ("responses", failed_response("rate_limit_exceeded"), True, False),
    ("responses", failed_response("invalid_prompt"), False, False),
    ("responses", failed_response("bio_policy"), False, False),
    ("responses", {"type": "error", "code": "insufficient_quota", "message": "x", "sequence_number": 1}, False, True),
    ("responses", {"type": "error", "code": None, "message": "x", "sequence_number": 1}, True, False),
]


@pytest.mark.parametrize(("endpoint", "event", "again", "fatal"), STREAMED, ids=str)
def test_an_error_inside_a_stream_means_what_it_means_outside(
    endpoint: str, event: dict[str, Any], again: bool, fatal: bool, hosted: Any
):
    with OpenAIServer(fault=lambda number, _: sse(event) if number == 0 else None) as server:
        config = hosted(server, f"provider.endpoint={endpoint}", "batch.size=1")
        if fatal:
            with pytest.raises(AccessError, match="insufficient_quota"):
                generate(config, prompts("a b"))
        else:
            (outcome,) = generate(config, prompts("a b"))
            assert isinstance(outcome, Completion) == again
        assert len(server.asked) == (2 if again else 1)


def test_an_error_inside_a_stream_counts_against_the_budget(hosted: Any):
    price = "model.price={input_usd_per_million: 1000, output_usd_per_million: 1000}"
    with (
        OpenAIServer(fault=lambda *_: sse({"error": {"message": "x", "code": 400}})) as server,
        pytest.raises(BudgetError, match=r"\$0\.047000 are spent"),
    ):
        settings = (price, "generation.max_tokens=10", "batch.size=1", "limits.max_cost_usd=0.06")
        generate(hosted(server, *settings), prompts("a b c", "d e f"))


OWN_WORDS: list[tuple[Any, str]] = [
    ({"detail": "prompt: expected a string"}, "prompt: expected a string"),
    ({"detail": [{"loc": ["body", "n"], "msg": "no"}]}, '[{"loc": ["body", "n"], "msg": "no"}]'),
    ({"error": "inputs must have less than 4 tokens"}, "inputs must have less than 4 tokens"),
    ({"object": "error", "message": "no such thing"}, "no such thing"),
    (b"upstream says\nno", "upstream says no"),
    (b"word " * 1000, "word word"),
]


@pytest.mark.parametrize(("body", "words"), OWN_WORDS, ids=["detail", "details", "text", "message", "plain", "long"])
def test_a_servers_own_words_are_kept_whatever_their_shape(body: Any, words: str, hosted: Any):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with OpenAIServer(fault=lambda *_: {"status": 422, "raw": raw}) as server:
        (failed,) = generate(hosted(server), prompts("a"))
    assert isinstance(failed, Failure)
    assert failed.error.message.startswith(f"422: {words}")
    assert len(failed.error.message) <= 510


def test_a_server_that_says_not_to_ask_again_is_not_asked_again(hosted: Any):
    with OpenAIServer(fault=lambda *_: {"status": 503, "headers": {"x-should-retry": "false"}}) as server:
        (failed,) = generate(hosted(server), prompts("a"))
    assert isinstance(failed, Failure)
    assert (len(server.asked), failed.error.retryable) == (1, False)


@pytest.mark.parametrize("odd", ["nan", "inf", "-5", "soon"])
def test_a_wait_that_makes_no_sense_is_not_obeyed(odd: str, hosted: Any):
    with OpenAIServer(
        fault=lambda number, _: {"status": 429, "headers": {"Retry-After": odd}} if not number else None
    ) as s:
        (outcome,) = generate(hosted(s), prompts("a"))
    assert isinstance(outcome, Completion)
    assert outcome.timing.latency_s < 5


def test_a_wait_until_a_date_is_waited(hosted: Any):
    def later(number: int, _: dict[str, Any]) -> dict[str, Any] | None:
        until = formatdate(time.time() + 3, usegmt=True)
        return None if number else {"status": 429, "headers": {"Retry-After": until}}

    with OpenAIServer(fault=later) as server:
        generate(hosted(server), prompts("a"))
    first, second = server.asked
    assert second.arrived - first.arrived > 1.5


@pytest.mark.parametrize(
    ("endpoint", "thinks"), [("chat", "reasoning_content"), ("chat", "reasoning"), ("responses", "reasoning")]
)
def test_the_first_token_is_the_first_thought(endpoint: str, thinks: str, hosted: Any):
    with OpenAIServer(token_s=0.3, fault=lambda *_: {"thinks": thinks}) as server:
        (done,) = completions(generate(hosted(server, f"provider.endpoint={endpoint}"), prompts("a b"))).values()
    assert done.text == "a b"
    assert done.timing.time_to_first_token_s is not None
    assert done.timing.latency_s - done.timing.time_to_first_token_s > 0.5


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("endpoint", ["chat", "responses"])
def test_input_from_the_cache_has_a_price_of_its_own(endpoint: str, stream: bool, hosted: Any, tmp_path: Path):
    price = "{input_usd_per_million: 100, cached_input_usd_per_million: 10, output_usd_per_million: 1000}"
    (tmp_path / "p.txt").write_text("a b c d e f\n")
    settings = (f"provider.endpoint={endpoint}", f"provider.stream={stream}", f"model.price={price}")
    source = ("prompts=file", f"prompts.path={tmp_path / 'p.txt'}")
    with OpenAIServer(fault=lambda *_: {"cached": 4}) as server:
        summary = app.run(hosted(server, *settings, *source), tmp_path / "run")
    assert summary.metrics["cost_usd"] == pytest.approx((2 * 100 + 4 * 10 + 6 * 1000) / 1e6)
    (line,) = (tmp_path / "run" / "outcomes.jsonl").read_text().splitlines()
    assert json.loads(line)["cached_input_tokens"] == 4


def test_a_cache_that_did_nothing_is_not_on_record(hosted: Any, tmp_path: Path):
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


def test_the_address_in_the_environment_is_on_record_and_has_no_price(
    config: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    with OpenAIServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        summary = app.run(config("provider=openai", "prompts=memo"), tmp_path)
    assert "cost_usd" not in summary.metrics
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["provider"]["base_url"] == f"{server.url}/v1"
    assert len(server.asked) == 2


def test_the_configured_address_wins_over_the_environments(hosted: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with OpenAIServer() as server:
        assert completions(generate(hosted(server), prompts("a")))


@pytest.mark.parametrize("variable", ["OPENAI_BASE_URL", "AZURE_OPENAI_ENDPOINT"])
def test_a_password_in_the_environments_address_is_refused(
    variable: str, config: Compose, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(variable, "http://user:hush@host/v1")
    provider = "openai" if variable.startswith("OPENAI") else "azure"
    with pytest.raises(ConfigError, match=variable) as caught, build(config(f"provider={provider}")) as opened:
        opened.describe()
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("value", ["kéy-with-accent", "planted\n", "two words"])
def test_a_key_that_no_header_can_carry_is_refused(value: str, hosted: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", value)
    with OpenAIServer() as server:
        with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
            generate(hosted(server), prompts("a"))
        assert not server.asked
    assert value.strip() not in str(caught.value)


def test_an_unreachable_host_is_one_message(hosted: Any):
    with OpenAIServer() as server:
        config = hosted(server, "limits.max_attempts=2")
    with pytest.raises(AccessError, match=r"cannot reach 127\.0\.0\.1.*provider's address"):
        generate(config, prompts("hi"))


def test_a_certificate_that_nobody_signed_is_one_message(hosted: Any, tmp_path: Path):
    trustme = pytest.importorskip("trustme")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with OpenAIServer(tls=context) as server, pytest.raises(AccessError, match=r"TLS.*certificate"):
        generate(hosted(server), prompts("hi"))


def test_the_budget_stops_before_the_request_that_would_pass_it(hosted: Any, tmp_path: Path):
    price = "model.price={input_usd_per_million: 1000, output_usd_per_million: 1000}"
    settings = (price, "generation.max_tokens=10", "batch.size=1", "limits.max_cost_usd=0.3", "name=budget")
    with OpenAIServer() as server, pytest.raises(BudgetError, match=r"limits\.max_cost_usd=0\.3"):
        app.run(hosted(server, *settings), tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    metrics = summary["metrics"]
    assert 0 < metrics["completed_prompts"] < 64
    assert metrics["cost_usd"] == pytest.approx((metrics["input_tokens"] + metrics["output_tokens"]) / 1000)
    assert metrics["cost_usd"] <= 0.3
    assert len(server.asked) == metrics["completed_prompts"], "what was sent is what was kept"


_NO_USAGE = b'{"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}]}'


@pytest.mark.parametrize(
    "fault",
    [
        {"hang": 5},
        {"cut": 1},
        {"raw": b"data: " + _NO_USAGE + b"\n\ndata: [DONE]\n\n"},
        {"raw": b"data: {}\n\n"},
        {"raw": b"data: {,\n\n"},
    ],
    ids=["timeout", "cut", "no-usage", "no-choices", "no-json"],
)
def test_an_attempt_whose_answer_was_lost_counts_against_the_budget(fault: dict[str, Any], hosted: Any):
    price = "model.price={input_usd_per_million: 1000, output_usd_per_million: 1000}"
    limits = ("limits.max_cost_usd=0.06", "limits.timeout_s=0.3")  # one request: $0.047 at most
    with (
        OpenAIServer(fault=lambda *_: fault) as server,
        pytest.raises(BudgetError, match=r"\$0\.047000 are spent"),
    ):
        generate(hosted(server, price, "generation.max_tokens=10", "batch.size=1", *limits), prompts("a b c", "d e f"))
    assert len(server.asked) == 1


def test_requests_per_minute_are_spread(hosted: Any):
    with OpenAIServer() as server:
        generate(hosted(server, "limits.requests_per_minute=300"), prompts(*map(str, range(15))))
    arrived = [asked.arrived for asked in server.asked]
    assert arrived[-1] - arrived[0] > 1.5, "5 at once, then 5 a second"


def test_256_requests_are_in_flight_at_once(hosted: Any):
    with OpenAIServer(hold_until_open=256) as server:
        generate(hosted(server, "batch.size=256", "limits.timeout_s=60"), prompts(*map(str, range(300))))
    assert server.most_open == 256


def test_the_whole_demo_set_through_the_command_line(tmp_path: Path, store: str):
    with OpenAIServer(first_token_s=0.01, token_s=0.001) as server:
        command = [
            sys.executable,
            "-m",
            "runner",
            "provider=openai",
            f"provider.base_url={server.url}/v1",
            f"tracking.uri={store}",
        ]
        command += [
            "hydra.run.dir=out",
            "model.price={input_usd_per_million: 1, output_usd_per_million: 2}",
            "name=openai-demo",
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "out" / "summary.json").read_text())["metrics"]
    assert metrics["completed_prompts"] == len(server.asked) == 64
    for name in (
        "time_to_first_token_p50_s",
        "inter_token_latency_p50_s",
        "input_tokens",
        "output_tokens",
        "cost_usd",
        "retries",
    ):
        assert name in metrics
    assert "prompt_padding_ratio" not in metrics
    environment = json.loads((tmp_path / "out" / "environment.json").read_text())
    assert environment["provider"]["system_fingerprint"] == "fp_local"
    assert environment["provider"]["price"] == "model.price", "where the cost is from is on record"


ECHOED = f"unknown header Authorization: Bearer {KEY}"


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (None, 0),
        ({"status": 401, "body": {"error": {"message": ECHOED}}}, 2),
        ({"status": 400, "body": {"detail": "word " * 96 + ECHOED}}, 1),
        (sse({"error": {"message": ECHOED, "code": 400, "type": KEY}}), 1),
    ],
    ids=["done", "401", "400", "stream"],
)
def test_the_key_is_written_nowhere(fault: dict[str, Any] | None, code: int, tmp_path: Path):
    with OpenAIServer(fault=lambda *_: fault) as server:
        command = [
            sys.executable,
            "-m",
            "runner",
            "provider=openai",
            f"provider.base_url={server.url}/v1",
            "tracking.traces=all",
            "prompts.limit=8",
        ]
        environment = os.environ | {"OPENAI_API_KEY": KEY, "HYDRA_FULL_ERROR": "1"}
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=120, env=environment, check=False
        )
    assert done.returncode == code
    written = b"".join(path.read_bytes() for path in (tmp_path / "outputs").rglob("*") if path.is_file())
    assert len(written) > 10_000, "the store is among it"
    assert KEY.encode() not in written
    assert KEY not in done.stdout + done.stderr


def test_openai_imports_no_torch(tmp_path: Path):
    with OpenAIServer() as server:
        command = [
            sys.executable,
            "-X",
            "importtime",
            "-m",
            "runner",
            "provider=openai",
            f"provider.base_url={server.url}/v1",
            "prompts=memo",
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    imported = {
        line.rpartition("|")[2].strip().partition(".")[0]
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert "openai" in imported
    assert not imported & {"torch", "transformers", "boto3"}


def azure(config: Compose, server: OpenAIServer, *overrides: str) -> RunConfig:
    composed = config("provider=azure", f"provider.azure_endpoint={server.url}/", "model.id=my-deployment", *overrides)
    return composed.with_mode("concurrent")


def test_azure_speaks_the_v1_api_and_the_dated_one(config: Compose):
    with OpenAIServer() as server:
        v1 = generate(azure(config, server), prompts("a b"))
        dated = generate(azure(config, server, "provider.api_version=2024-10-21"), prompts("a b"))
    assert all(isinstance(outcome, Completion) and outcome.text == "a b" for outcome in (*v1, *dated))
    first, second = server.asked
    assert (first.path, first.headers["authorization"]) == ("/openai/v1/chat/completions", f"Bearer {KEY}")
    assert (second.path, second.headers["api-key"]) == (
        "/openai/deployments/my-deployment/chat/completions?api-version=2024-10-21",
        KEY,
    )
    assert first.body["model"] == "my-deployment"


@pytest.mark.parametrize("path", ["/openai/v1/", "/openai/v1", "/openai/deployments/x/chat/completions?api-version=1"])
def test_azures_target_uri_may_be_pasted(path: str, config: Compose):
    with OpenAIServer() as server:
        pasted = config("provider=azure", f"provider.azure_endpoint='{server.url}{path}'", "model.id=my-deployment")
        generate(pasted.with_mode("concurrent"), prompts("a b"))
    assert [asked.path for asked in server.asked] == ["/openai/v1/chat/completions"]


def test_azure_takes_no_address_from_openais_variable(config: Compose, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with OpenAIServer() as server:
        generate(azure(config, server), prompts("a"))
        generate(azure(config, server, "provider.api_version=2024-10-21"), prompts("a"))
    assert len(server.asked) == 2


def test_azure_refuses_what_its_endpoints_have_no_field_for(config: Compose):
    with pytest.raises(ConfigError, match=r"batch\.mode='static'.*provider\.endpoint=completions"):
        build(config("provider=azure", "batch.mode=static"))
    with pytest.raises(ConfigError, match=r"model\.revision='1'.*'azure'"):
        build(config("provider=azure", "model.revision='1'"))


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
            said = opened.describe()
        assert (said["gen_ai.provider.name"], said["gen_ai.operation.name"], said["sends_seed"]) == facts


def test_azure_says_what_it_needs(config: Compose, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT", raising=False)
    with (
        pytest.raises(ConfigError, match=r"provider\.azure_endpoint=.*AZURE_OPENAI_ENDPOINT"),
        build(config("provider=azure")),
    ):
        pass
    monkeypatch.delenv("AZURE_OPENAI_API_KEY")
    with (
        pytest.raises(ConfigError, match="AZURE_OPENAI_API_KEY"),
        build(config("provider=azure", "provider.azure_endpoint=http://x")),
    ):
        pass


def test_auto_finds_what_the_service_takes_and_reports_its_path(hosted: Any, tmp_path: Path):
    server = OpenAIServer(first_token_s=0.05)
    server.fault = lambda *_: {"status": 429, "headers": {"retry-after-ms": "20"}} if server.open > 12 else None
    with server:
        summary = app.run(
            hosted(server, "batch.size=auto", *_many(tmp_path, 300)),
            tmp_path / "out",
        )
    assert summary.metrics["completed_prompts"] == 300
    path = [requests for _, requests in summary.series["batch/requests_in_flight"]]
    assert path[0] == 4
    assert 12 < max(path) <= 32, "it looked beyond, and came back"
    settled = path[len(path) // 2 :]
    assert 5 <= statistics.median(settled) <= 16
    assert any(later < earlier for earlier, later in itertools.pairwise(path)), "multiplicative decrease"


def test_auto_is_for_concurrent_requests_only(config: Compose):
    with pytest.raises(ConfigError, match=r"batch\.size='auto'.*'static'"):
        build(config("provider=transformers", "batch.size=auto"))


def _many(folder: Path, count: int) -> tuple[str, str]:
    path = folder / "many.txt"
    path.write_text("".join(f"prompt number {number}\n" for number in range(count)))
    return "prompts=file", f"prompts.path={path}"


def test_the_whole_demo_set_through_azure(config: Compose, tmp_path: Path):
    with OpenAIServer() as server:
        summary = app.run(
            config("provider=azure", f"provider.azure_endpoint={server.url}", "name=azure-demo"), tmp_path
        )
    assert summary.exit_code == 0
    assert summary.metrics["completed_prompts"] == 64
    assert {"time_to_first_token_p50_s", "inter_token_latency_p50_s"} <= set(summary.metrics)
    assert "cost_usd" not in summary.metrics, "a deployment's price is not known"


def test_tokens_per_minute_are_spread(hosted: Any):
    with OpenAIServer() as server:
        limits = ("limits.tokens_per_minute=6000", "generation.max_tokens=40")  # 100 a second, some 45 a request
        generate(hosted(server, *limits), prompts(*map(str, range(6))))
    arrived = [asked.arrived for asked in server.asked]
    assert arrived[-1] - arrived[0] > 1.0


def test_a_static_run_over_http_is_recorded_and_its_connections_are_closed(hosted: Any, tmp_path: Path):
    with OpenAIServer() as server:
        static = ("provider.endpoint=completions", "batch.mode=static", "batch.size=16", "name=static-http")
        summary = app.run(hosted(server, *static), tmp_path)
    assert (summary.metrics["completed_prompts"], len(server.asked)) == (64, 4)
    assert "tail_wait_ratio" not in summary.metrics, "what a server computes for nothing cannot be seen from here"
