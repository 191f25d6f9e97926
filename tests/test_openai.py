"""provider=openai and provider=azure against a local server: what leaves, what comes back, and what goes wrong."""

import itertools
import json
import os
import ssl
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from runner import app
from runner.config import RunConfig
from runner.errors import AccessError, BudgetError, ConfigError, ServiceError
from runner.interrupts import Stop
from runner.pacing import Paced, paced
from runner.providers.base import build
from runner.records import Completion, Failure, Message, Outcome, Prompt
from tests.conftest import Compose
from tests.openai_server import OpenAIServer
from tests.outcomes import generated

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


def prompts(*texts: str) -> list[Prompt]:
    return [Prompt(id=f"p{i}", messages=(Message(role="user", content=text),)) for i, text in enumerate(texts)]


def generate(config: RunConfig, asked: list[Prompt]) -> list[Outcome]:
    provider = build(config)
    with provider:
        calls = paced(provider, config, Stop())
        outcomes = generated(calls, asked, config.params(), config.batch)
        if isinstance(calls, Paced):
            calls.close()
    return outcomes


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
        generate(hosted(server, *knobs, "provider.prediction=again"), prompts("hi"))
        generate(hosted(server, "provider.endpoint=responses"), prompts("hi"))
        generate(
            hosted(
                server, "provider.max_tokens_field=max_tokens", "provider.reasoning_effort=null", "provider.seed=false"
            ),
            prompts("hi"),
        )
    chat, response, compatible = (asked.body for asked in server.asked)
    assert chat == {
        "model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 64, "temperature": 0.7,
        "top_p": 0.95, "stop": ["END"], "n": 2, "seed": 7, "service_tier": "flex", "reasoning_effort": "none",
        "prediction": {"type": "content", "content": "again"}, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    assert response == {
        "model": "gpt-5.4-mini", "input": [{"role": "user", "content": "hi"}], "max_output_tokens": 64, "temperature": 0.0,
        "reasoning": {"effort": "none"}, "store": False, "stream": True,
    }  # fmt: skip
    assert {"max_tokens", "temperature"} <= set(compatible)
    assert not {"seed", "reasoning_effort", "max_completion_tokens"} & set(compatible)


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
    assert all(
        isinstance(outcome, Failure) and "prompt must be a string" in outcome.error.message for outcome in outcomes
    )
    assert len(outcomes) == 2


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["generation.top_k=5", "generation=sampled"], ["generation.top_k=5", "'openai'"]),
        (["provider.endpoint=responses", "generation.n=2"], ["generation.n=2"]),
        (["provider.endpoint=responses", "generation.stop_sequences=[x]"], ["stop_sequences"]),
        (["provider.endpoint=responses", "provider.prediction=x"], ["provider.prediction", "chat"]),
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


@pytest.mark.parametrize(
    "fault", [None, {"status": 401, "body": {"error": {"message": f"Incorrect API key provided: {KEY[:4]}***"}}}]
)
def test_the_key_is_written_nowhere(fault: dict[str, Any] | None, tmp_path: Path):
    with OpenAIServer(fault=lambda *_: fault) as server:
        command = [
            sys.executable,
            "-m",
            "runner",
            "provider=openai",
            f"provider.base_url={server.url}/v1",
            "tracking.traces=all",
        ]
        environment = os.environ | {"OPENAI_API_KEY": KEY, "HYDRA_FULL_ERROR": "1"}
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=120, env=environment, check=False
        )
    assert done.returncode == (2 if fault else 0)
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
