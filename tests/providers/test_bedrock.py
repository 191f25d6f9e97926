"""Bedrock: real boto3 against a local server; what left, what came back, and what is made of errors."""

import asyncio
import http.client
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runner import app
from runner.batching.base import PendingPrompts
from runner.config.schema import RunConfig
from runner.errors import AccessError, ConfigError, ServiceError
from runner.pricing import find_price
from runner.providers.errors import CallError
from runner.providers.factory import build
from runner.types import Completion, Failure, Message, Outcome, Prompt
from tests.conftest import Compose
from tests.factories import generate
from tests.servers.bedrock_server import BedrockServer, Cached, Cut, Hang, InBand, NoUsage, Refusal, StopReason, Thinks

FAMILIES = {
    "anthropic": "us.anthropic.claude-haiku-4-5-20251001-v1:0",
    "nova": "arn:aws:bedrock:us-east-1:123456789012:inference-profile/eu.amazon.nova-lite-v1:0",
    "llama3": "apac.meta.llama3-1-8b-instruct-v1:0",
    "llama4": "global.meta.llama4-scout-17b-instruct-v1:0",
    "mistral": "mistral.mistral-large-2402-v1:0",
    "titan": "amazon.titan-text-express-v1",
}
THROTTLED = Refusal(429, "ThrottlingException", "Too many tokens, please wait before trying again.", retry_after="0")
SECRET = "not-a-real-secret-key"  # noqa: S105 - looked for in headers and messages

Configured = Callable[..., RunConfig]


@pytest.fixture
def server() -> Iterator[BedrockServer]:
    with BedrockServer() as serving:
        yield serving


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_BEARER_TOKEN_BEDROCK", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAFAKE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))


@pytest.fixture
def bedrock(config: Compose, server: BedrockServer) -> Configured:
    def composed(*overrides: str, **settings: object) -> RunConfig:
        here = {"region": "us-east-1", "endpoint_url": server.url, **settings}
        chosen = [f"provider.{name}={'null' if value is None else value}" for name, value in here.items()]
        return config("provider=bedrock", "batch.mode=concurrent", *chosen, *overrides)

    return composed


def prompt(text: str, *, id: str = "p", system: str | None = None) -> Prompt:
    before = (Message(role="system", content=system),) if system else ()
    return Prompt(id=id, messages=(*before, Message(role="user", content=text)))


def ask(config: RunConfig, one: Prompt) -> Completion:
    with build(config) as provider:
        generated = asyncio.run(provider.generate(one, config.params()))  # type: ignore[attr-defined]
    (outcome,) = PendingPrompts(prompts=[one]).finish_call([(one, generated)], batch=0)
    assert isinstance(outcome, Completion)
    return outcome


def refused(config: RunConfig) -> CallError:
    with pytest.raises(CallError) as caught:
        ask(config, prompt("one two three"))
    return caught.value


def through_pacing(config: RunConfig, prompts: list[Prompt]) -> list[Outcome]:
    return generate(config, prompts)


@pytest.mark.parametrize("stream", [True, False])
def test_converse_gives_text_tokens_and_finish_reason(stream: bool, bedrock: Configured):
    done = ask(bedrock(stream=stream), prompt("the quick brown fox", system="Be brief."))
    assert (done.text, done.finish_reason) == ("the quick brown fox", "stop")
    assert (done.usage.input_tokens, done.usage.output_tokens) == (6, 4)
    assert done.model == "amazon.nova-micro-v1:0"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("api", ["converse", "invoke"])
def test_only_a_streamed_answer_has_a_time_to_first_token(stream: bool, api: str, bedrock: Configured):
    timing = ask(bedrock(stream=stream, api=api), prompt("a b")).timing
    if stream:
        assert 0 < (timing.time_to_first_token_s or 0) <= timing.latency_s
    else:
        assert timing.time_to_first_token_s is None


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_invoke_speaks_the_familys_bodies(family: str, stream: bool, bedrock: Configured):
    config = bedrock(f"model.id={FAMILIES[family]}", "generation.max_tokens=3", api="invoke", stream=stream)
    done = ask(config, prompt("the quick brown fox"))
    assert (done.text.strip(), done.finish_reason) == ("the quick brown", "length")
    assert (done.usage.input_tokens, done.usage.output_tokens) == (4, 3)
    assert ask(config, prompt("two words")).finish_reason == "stop"


@pytest.mark.parametrize("family", FAMILIES)
def test_invoke_sends_every_knob_that_the_family_has(family: str, bedrock: Configured, server: BedrockServer):
    knobs = {"temperature": "0.5", "top_p": "0.25", "top_k": "7", "stop_sequences": "[END]"}
    base = (f"model.id={FAMILIES[family]}", "generation.temperature=1")
    honoured = build(bedrock(*base, api="invoke")).supported_params
    chosen = [f"generation.{name}={value}" for name, value in knobs.items() if name in honoured]
    ask(bedrock(*base, *chosen, api="invoke", stream=False), prompt("hello there"))
    sent = json.dumps(server.seen[-1].body)
    values = {"temperature": "0.5", "top_p": "0.25", "top_k": "7", "stop_sequences": '["END"]'}
    assert {name for name, value in values.items() if f": {value}" in sent} == honoured


def test_a_system_message_reaches_every_family(bedrock: Configured, server: BedrockServer):
    for family, model_id in FAMILIES.items():
        ask(bedrock(f"model.id={model_id}", api="invoke"), prompt("hello", system="Answer in verse."))
        assert "Answer in verse." in json.dumps(server.seen[-1].body), family


def test_the_converse_request_holds_what_was_set_and_nothing_else(bedrock: Configured, server: BedrockServer):
    config = bedrock("generation.max_tokens=9", "generation.stop_sequences=[END]", stream=False)
    ask(config, prompt("hello", system="Be brief."))
    (seen,) = server.seen
    assert (seen.operation, seen.model_id) == ("Converse", "amazon.nova-micro-v1:0")
    assert seen.body == {
        "messages": [{"role": "user", "content": [{"text": "hello"}]}],
        "system": [{"text": "Be brief."}],
        "inferenceConfig": {"maxTokens": 9, "temperature": 0.0, "stopSequences": ["END"]},
    }
    assert seen.headers["Authorization"].startswith("AWS4-HMAC-SHA256")
    assert SECRET not in str(seen.headers)


@pytest.mark.parametrize(
    ("model_id", "fields"),
    [(FAMILIES["anthropic"], {"top_k": 5}), (FAMILIES["nova"], {"inferenceConfig": {"topK": 5}})],
)
def test_converse_sends_top_k_as_the_family_calls_it(
    model_id: str, fields: dict[str, Any], bedrock: Configured, server: BedrockServer
):
    ask(bedrock(f"model.id={model_id}", "generation.temperature=1", "generation.top_k=5"), prompt("hello"))
    assert server.seen[0].body["additionalModelRequestFields"] == fields


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["generation.n=2"], "generation.n=2"),
        (["generation.temperature=1.5"], "Bedrock takes 0 to 1"),
        (["model.revision=v1"], "model.revision='v1'"),
        (["model.id=meta.llama3-8b-instruct-v1:0", "generation.temperature=1", "generation.top_k=5"], "top_k=5"),
        (["model.id=qwen.qwen3-32b-v1:0", "provider.api=invoke"], "set provider.api=converse"),
        (["model.id=mistral.ministral-3-8b-instruct", "provider.api=invoke"], "set provider.api=converse"),
        ([f"model.id={FAMILIES['llama3']}", "provider.api=invoke", "generation.stop_sequences=[x]"], "stop_sequences"),
        (["provider.endpoint_url=localhost"], "provider.endpoint_url: give an address"),
        (["provider.endpoint_url='http://user:hush@host'"], "without a user name or password"),
    ],
)
def test_what_bedrock_cannot_honour_is_refused_before_a_run(overrides: list[str], words: str, bedrock: Configured):
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")) as caught:
        build(bedrock(*overrides))
    assert "hush" not in str(caught.value)


def test_what_was_resolved_is_described_without_a_secret(bedrock: Configured, server: BedrockServer):
    with build(bedrock()) as provider:
        described = dict(provider.describe())
    assert described.pop("boto3")[0].isdigit()
    assert described == {
        "region": "us-east-1", "endpoint": server.url, "api": "converse", "stream": True, "sends_seed": False,
        "gen_ai.provider.name": "aws.bedrock", "gen_ai.operation.name": "chat",
    }  # fmt: skip


def test_a_throttled_request_is_sent_again_and_its_attempts_are_counted(bedrock: Configured, server: BedrockServer):
    server.faults.extend([THROTTLED, THROTTLED])
    (done,) = through_pacing(bedrock(), [prompt("hello again")])
    assert isinstance(done, Completion)
    assert (done.text, done.attempts, len(server.seen)) == ("hello again", 3, 3)


def test_the_sdk_itself_repeats_nothing(bedrock: Configured, server: BedrockServer):
    server.faults.append(THROTTLED)
    error = refused(bedrock())
    assert (error.policy.retryable, error.policy.throttled, error.policy.fatal, error.retry_after_s) == (
        True,
        True,
        False,
        0.0,
    )
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (503, "ServiceUnavailableException"),
        (429, "ModelNotReadyException"),
        (408, "ModelTimeoutException"),
        (424, "ModelStreamErrorException"),
        (500, "InternalServerException"),
        (502, "SomethingNew"),
    ],
)
def test_a_passing_error_may_be_repeated_and_holds_no_one_else_back(
    status: int, code: str, bedrock: Configured, server: BedrockServer
):
    server.faults.append(Refusal(status, code, "try later"))
    error = refused(bedrock())
    assert (error.type, error.policy.retryable, error.policy.throttled, error.policy.fatal) == (
        code,
        True,
        False,
        False,
    )
    assert error.message == "try later"


@pytest.mark.parametrize("api", ["converse", "invoke"])
@pytest.mark.parametrize(
    ("code", "retryable", "throttled"),
    [
        ("throttlingException", True, True),
        ("modelStreamErrorException", True, False),
        ("internalServerException", True, False),
        ("serviceUnavailableException", True, False),
        ("validationException", False, False),
    ],
)
def test_an_error_inside_a_stream_is_an_error(
    code: str, retryable: bool, throttled: bool, api: str, bedrock: Configured, server: BedrockServer
):
    server.faults.append(InBand(code, "half way"))
    error = refused(bedrock(api=api))
    assert error.type == code[0].upper() + code[1:]
    assert (error.message, error.policy.retryable, error.policy.throttled) == ("half way", retryable, throttled)


def test_a_stream_that_failed_half_way_is_asked_for_again_from_its_start(bedrock: Configured, server: BedrockServer):
    server.faults.append(InBand("modelStreamErrorException", "half way"))
    (done,) = through_pacing(bedrock(), [prompt("one two three")])
    assert isinstance(done, Completion)
    assert (done.text, done.attempts) == ("one two three", 2)


@pytest.mark.parametrize("api", ["converse", "invoke"])
@pytest.mark.parametrize("clean", [True, False])
def test_a_cut_stream_is_a_failure_not_a_short_text(clean: bool, api: str, bedrock: Configured, server: BedrockServer):
    server.faults.append(Cut(clean))
    (failed,) = through_pacing(bedrock("limits.max_attempts=1", api=api), [prompt("one two three")])
    assert isinstance(failed, Failure)
    assert failed.error.retryable


@pytest.mark.parametrize(("api", "family"), [("converse", "nova"), *(("invoke", family) for family in FAMILIES)])
@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_without_token_counts_is_a_failure(
    stream: bool, api: str, family: str, bedrock: Configured, server: BedrockServer
):
    server.faults.append(NoUsage())
    assert refused(bedrock(f"model.id={FAMILIES[family]}", api=api, stream=stream)).type == "UsageMissing"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
        ("tool_use", "tool_calls"),
    ],
)
def test_stop_reasons_have_one_name_each(said: str, reason: str, bedrock: Configured, server: BedrockServer):
    server.faults.append(StopReason(said))
    assert ask(bedrock(), prompt("hello")).finish_reason == reason


def test_a_new_stop_reason_is_unknown_and_logged(
    bedrock: Configured, server: BedrockServer, caplog: pytest.LogCaptureFixture
):
    server.faults.append(StopReason("bored"))
    assert ask(bedrock(), prompt("hello")).finish_reason == "unknown"
    assert "stop reason 'bored' is not known" in caplog.text


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (Refusal(403, "AccessDeniedException", "User: x is not authorized"), "bedrock:InvokeModel"),
        (Refusal(403, "UnrecognizedClientException", "The security token is invalid."), "AWS_ACCESS_KEY_ID"),
        (Refusal(403, "ExpiredTokenException", "expired"), "aws sso login"),
        (Refusal(404, "ResourceNotFoundException", "no such model"), "set model.id"),
        (Refusal(400, "ValidationException", "The provided model identifier is invalid."), "model.id='amazon.nova"),
        (
            Refusal(400, "ValidationException", "Invocation with on-demand throughput isn\u2019t supported."),
            "inference profile",
        ),
        (Refusal(400, "ServiceQuotaExceededException", "quota"), "Service Quotas"),
        (Refusal(429, "ThrottlingException", "Too many tokens per day, please wait."), "per day.*Service Quotas"),
    ],
)
def test_what_no_request_can_get_past_ends_the_run_and_says_what_to_do(
    refusal: Refusal, words: str, bedrock: Configured, server: BedrockServer
):
    server.faults.append(refusal)
    with pytest.raises(AccessError, match=words):
        through_pacing(bedrock(), [prompt("hello")])
    assert len(server.seen) == 1


def test_a_day_that_is_used_up_inside_a_stream_is_fatal_too(bedrock: Configured, server: BedrockServer):
    server.faults.append(InBand("throttlingException", "Too many tokens per day, please wait before trying again."))
    error = refused(bedrock())
    assert (error.policy.fatal, error.policy.retryable, error.policy.not_billed) == (True, False, False)


@pytest.mark.parametrize(("api", "family"), [("converse", "nova"), ("invoke", "nova"), ("invoke", "anthropic")])
def test_the_first_token_is_the_first_thought(api: str, family: str, bedrock: Configured, server: BedrockServer):
    server.faults.append(Thinks(0.5))
    done = ask(bedrock(f"model.id={FAMILIES[family]}", api=api), prompt("two words"))
    assert done.text.strip() == "two words"
    assert done.timing.time_to_first_token_s is not None
    assert done.timing.latency_s - done.timing.time_to_first_token_s > 0.4


@pytest.mark.parametrize("stream", [True, False])
def test_tokens_from_the_cache_are_input_at_their_own_price(stream: bool, bedrock: Configured, server: BedrockServer):
    server.faults.append(Cached(30))
    done = ask(bedrock(stream=stream), prompt("word " * 40))
    assert (done.usage.input_tokens, done.usage.cached_input_tokens) == (40, 30)
    price = find_price(bedrock().model, "aws")
    assert price is not None
    assert price.usage_usd(done.usage) == pytest.approx((10 * 0.035 + 30 * 0.00875 + 40 * 0.14) / 1e6)


@pytest.mark.parametrize("secret", ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"])
def test_credentials_that_a_gateway_repeats_are_not_kept(
    secret: str, bedrock: Configured, server: BedrockServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(secret, "planted-credential-5a1d")
    server.faults.append(Refusal(400, "ValidationException", "bad header: planted-credential-5a1d"))
    assert refused(bedrock()).message == "bad header: ***"


@pytest.mark.parametrize(
    ("retry_after", "wait_s"),
    [("7", 7.0), ("nan", None), ("-1", None), ("inf", None), ("Mon, 01 Jan 2001 00:00:00 GMT", 0.0)],
)
def test_what_a_gateway_asks_to_wait_is_understood(
    retry_after: str, wait_s: float | None, bedrock: Configured, server: BedrockServer
):
    server.faults.append(Refusal(429, "ThrottlingException", "slow down", retry_after=retry_after))
    assert refused(bedrock()).retry_after_s == wait_s


def test_access_lost_in_the_middle_stops_the_run(bedrock: Configured, server: BedrockServer):
    server.faults.extend([StopReason("end_turn"), Refusal(403, "ExpiredTokenException", "expired")])
    with pytest.raises(ServiceError, match="aws sso login"):
        through_pacing(bedrock("batch.size=1"), [prompt(text, id=text) for text in "abc"])
    assert len(server.seen) == 2


def test_a_signature_that_is_refused_is_not_quoted(bedrock: Configured, server: BedrockServer):
    message = "The signature does not match.\nx-amz-security-token:SESSION-TOKEN"
    for code in ("InvalidSignatureException", "IncompleteSignatureException", "ValidationException"):
        server.faults.append(Refusal(403, code, message))
        assert "SESSION-TOKEN" not in str(refused(bedrock()))


def test_a_request_that_is_invalid_is_one_failure(bedrock: Configured, server: BedrockServer):
    server.faults.append(Refusal(400, "ValidationException", "messages: text is too long"))
    outcomes = through_pacing(bedrock("batch.size=1"), [prompt("a", id="a"), prompt("b", id="b")])
    failed, done = outcomes
    assert isinstance(failed, Failure)
    assert isinstance(done, Completion)
    assert (failed.error.type, failed.error.message) == ("ValidationException", "messages: text is too long")
    assert not failed.error.retryable


def test_no_service_at_the_address_is_a_connection_error(bedrock: Configured):
    error = refused(bedrock(endpoint_url="http://127.0.0.1:9"))
    assert (error.type, error.policy.retryable, error.policy.fatal) == ("ConnectionError", True, False)


def test_https_to_a_plain_server_is_fatal(bedrock: Configured, server: BedrockServer):
    error = refused(bedrock(endpoint_url=server.url.replace("http", "https")))
    assert (error.type, error.policy.fatal) == ("SSLError", True)


def test_without_credentials_and_region_one_message_names_both(bedrock: Configured, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ConfigError, match=r"set provider\.region.*AWS_ACCESS_KEY_ID") as caught:
        build(bedrock(region=None)).__enter__()
    assert "\n" not in str(caught.value)


def test_the_region_may_come_from_the_environment(bedrock: Configured, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with build(bedrock(region=None)) as provider:
        assert provider.describe()["region"] == "eu-west-1"


@pytest.mark.parametrize(
    ("variables", "settings"),
    [
        ({"AWS_SECRET_ACCESS_KEY": ""}, {}),
        ({}, {"profile": "nobody"}),
        ({}, {"region": "'no such region'"}),
    ],
)
def test_half_a_configuration_is_refused_in_one_message(
    variables: dict[str, str], settings: dict[str, str], bedrock: Configured, monkeypatch: pytest.MonkeyPatch
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        build(bedrock(**settings)).__enter__()
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bearer_token_needs_no_other_credentials_over_https(bedrock: Configured, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bearer-secret")
    with build(bedrock(endpoint_url=None)) as provider:
        assert "bearer-secret" not in str(provider.describe())
    with pytest.raises(ConfigError, match="https"):
        build(bedrock()).__enter__()


def test_a_bearer_token_is_not_sent_over_plain_http(
    bedrock: Configured, server: BedrockServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bearer-secret")
    ask(bedrock(), prompt("hello"))
    assert "bearer-secret" not in str(server.seen[0].headers)


@pytest.mark.parametrize("stream", [True, False])
def test_as_many_requests_as_the_batch_size_are_really_in_flight(
    stream: bool, bedrock: Configured, server: BedrockServer
):
    server.barrier = threading.Barrier(96)
    config = bedrock("batch.size=96", stream=stream)
    outcomes = through_pacing(config, [prompt(f"prompt {number}", id=f"{number}") for number in range(192)])
    assert {done.text for done in outcomes if isinstance(done, Completion)} == {f"prompt {n}" for n in range(192)}
    assert max(seen.in_flight for seen in server.seen) == 96
    assert len({seen.port for seen in server.seen}) == 96, "every connection is kept and used again"


def test_an_attempt_that_was_given_up_does_not_hold_the_next_one_back(bedrock: Configured, server: BedrockServer):
    release = threading.Event()
    server.faults.append(Hang(release))
    config = bedrock("limits.timeout_s=2", "limits.max_attempts=2", stream=False)
    try:
        (done,) = through_pacing(config, [prompt("hello")])
    finally:
        release.set()
    assert isinstance(done, Completion)
    assert (done.attempts, len(server.seen)) == (2, 2)


def test_a_call_that_never_ends_does_not_keep_the_process_alive(server: BedrockServer, tmp_path: Path):
    release = threading.Event()
    server.faults.append(Hang(release))
    run = [sys.executable, "-m", "runner", "provider=bedrock", "provider.region=us-east-1", "prompts.limit=1",
           f"provider.endpoint_url={server.url}", "provider.stream=false", "limits.timeout_s=0.5",
           "limits.max_attempts=1", f"tracking.uri=sqlite:///{tmp_path}/mlflow.db"]  # fmt: skip
    try:
        done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    finally:
        release.set()
    assert done.returncode == 1, done.stderr
    assert len(server.seen) == 1


def test_the_stand_in_refuses_what_botocores_own_model_refuses(server: BedrockServer):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    connection.request("POST", "/model/x/converse", json.dumps({"inferenceConfig": {"topK": "five"}}))
    answer = json.loads(connection.getresponse().read())
    connection.close()
    assert "topK" in answer["message"]


@pytest.mark.parametrize("api", ["converse", "invoke"])
def test_the_whole_demo_set_through_bedrock(api: str, bedrock: Configured, tmp_path: Path):
    summary = app.run(bedrock(f"provider.api={api}", f"name=bedrock-{api}"), tmp_path / "run")
    assert summary.exit_code == 0
    assert summary.metrics["completed_prompts"] == 64
    assert {"time_to_first_token_p50_s", "inter_token_latency_p50_s", "cost_usd"} <= set(summary.metrics)
    kept = b"".join(path.read_bytes() for path in (tmp_path / "run").iterdir())
    assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in kept
