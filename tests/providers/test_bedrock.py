"""provider=bedrock: real boto3 against a local server; requests, answers, usage and configuration."""

import http.client
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from runner import app
from runner.errors import ConfigError
from runner.pricing import find_price
from runner.providers.factory import build
from runner.types import Completion
from tests.factories import generate, usage_of
from tests.providers.bedrock import FAMILIES, SECRET, ComposeBedrock, complete, prompt
from tests.servers.bedrock_server import BedrockServer, Cached, StopReason, Thinks

pytestmark = pytest.mark.usefixtures("aws_credentials")


@pytest.mark.parametrize("stream", [True, False])
def test_converse_gives_text_tokens_and_finish_reason(stream: bool, bedrock: ComposeBedrock):
    done = complete(bedrock(stream=stream), prompt("the quick brown fox", system="Be brief."))
    assert (done.text, done.finish_reason) == ("the quick brown fox", "stop")
    assert (usage_of(done).input_tokens, usage_of(done).output_tokens) == (6, 4)
    assert done.model == "amazon.nova-micro-v1:0"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("api", ["converse", "invoke"])
def test_only_a_streamed_answer_has_a_time_to_first_token(stream: bool, api: str, bedrock: ComposeBedrock):
    timing = complete(bedrock(stream=stream, api=api), prompt("a b")).timing
    if stream:
        assert 0 < (timing.time_to_first_token_s or 0) <= timing.elapsed_s
    else:
        assert timing.time_to_first_token_s is None


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_invoke_uses_the_familys_bodies(family: str, stream: bool, bedrock: ComposeBedrock):
    config = bedrock(f"model.id={FAMILIES[family]}", "generation.max_tokens=3", api="invoke", stream=stream)
    done = complete(config, prompt("the quick brown fox"))
    assert (done.text.strip(), done.finish_reason) == ("the quick brown", "length")
    assert (usage_of(done).input_tokens, usage_of(done).output_tokens) == (4, 3)
    assert complete(config, prompt("two words")).finish_reason == "stop"


@pytest.mark.parametrize("family", FAMILIES)
def test_invoke_sends_every_parameter_that_the_family_has(family: str, bedrock: ComposeBedrock, server: BedrockServer):
    overrides = {"temperature": "0.5", "top_p": "0.25", "top_k": "7", "stop_sequences": "[END]"}
    base = (f"model.id={FAMILIES[family]}", "generation.temperature=1")
    supported = build(bedrock(*base, api="invoke")).supported_params
    chosen = [f"generation.{name}={value}" for name, value in overrides.items() if name in supported]
    complete(bedrock(*base, *chosen, api="invoke", stream=False), prompt("hello there"))
    sent = json.dumps(server.seen[-1].body)
    values = {"temperature": "0.5", "top_p": "0.25", "top_k": "7", "stop_sequences": '["END"]'}
    assert {name for name, value in values.items() if f": {value}" in sent} == supported


def test_a_system_message_reaches_every_family(bedrock: ComposeBedrock, server: BedrockServer):
    for family, model_id in FAMILIES.items():
        complete(bedrock(f"model.id={model_id}", api="invoke"), prompt("hello", system="Answer in verse."))
        assert "Answer in verse." in json.dumps(server.seen[-1].body), family


def test_the_converse_request_holds_what_was_set_and_nothing_else(bedrock: ComposeBedrock, server: BedrockServer):
    config = bedrock("generation.max_tokens=9", "generation.stop_sequences=[END]", stream=False)
    complete(config, prompt("hello", system="Be brief."))
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
    model_id: str, fields: dict[str, Any], bedrock: ComposeBedrock, server: BedrockServer
):
    complete(bedrock(f"model.id={model_id}", "generation.temperature=1", "generation.top_k=5"), prompt("hello"))
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
        (["provider.endpoint_url='http://user:hush@host'"], "without a user name, a password or a query"),
    ],
)
def test_unsupported_settings_are_refused_before_a_run(overrides: list[str], words: str, bedrock: ComposeBedrock):
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")) as caught:
        build(bedrock(*overrides))
    assert "hush" not in str(caught.value)


def test_what_was_resolved_is_described_without_a_secret(bedrock: ComposeBedrock, server: BedrockServer):
    with build(bedrock()) as provider:
        described = dict(provider.describe())
    assert described.pop("boto3")[0].isdigit()
    assert described == {
        "region": "us-east-1", "profile": None, "endpoint": server.url, "api": "converse", "stream": True, "sends_seed": False,
        "gen_ai.provider.name": "aws.bedrock", "gen_ai.operation.name": "chat",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
        ("tool_use", "tool_calls"),
    ],
)
def test_stop_reasons_have_one_name_each(
    stop_reason: str, finish_reason: str, bedrock: ComposeBedrock, server: BedrockServer
):
    server.faults.append(StopReason(stop_reason))
    assert complete(bedrock(), prompt("hello")).finish_reason == finish_reason


def test_a_new_stop_reason_is_unknown_and_logged(
    bedrock: ComposeBedrock, server: BedrockServer, caplog: pytest.LogCaptureFixture
):
    server.faults.append(StopReason("bored"))
    assert complete(bedrock(), prompt("hello")).finish_reason == "unknown"
    assert "stop reason 'bored' is not known" in caplog.text


@pytest.mark.parametrize(("api", "family"), [("converse", "nova"), ("invoke", "nova"), ("invoke", "anthropic")])
def test_the_first_token_may_be_of_the_reasoning(api: str, family: str, bedrock: ComposeBedrock, server: BedrockServer):
    server.faults.append(Thinks(0.5))
    done = complete(bedrock(f"model.id={FAMILIES[family]}", api=api), prompt("two words"))
    assert done.text.strip() == "two words"
    first_s, answer_s = done.timing.time_to_first_token_s, done.timing.time_to_first_answer_token_s
    assert first_s is not None
    assert answer_s is not None
    assert done.timing.elapsed_s - first_s >= answer_s - first_s > 0.4


@pytest.mark.parametrize("stream", [True, False])
def test_tokens_from_the_cache_are_input_at_their_own_price(
    stream: bool, bedrock: ComposeBedrock, server: BedrockServer
):
    server.faults.append(Cached(30))
    done = complete(bedrock(stream=stream), prompt("word " * 40))
    assert (usage_of(done).input_tokens, usage_of(done).cached_input_tokens) == (40, 30)
    price = find_price(bedrock().model, "aws")
    assert price is not None
    assert price.usage_usd(usage_of(done)) == pytest.approx((10 * 0.035 + 30 * 0.00875 + 40 * 0.14) / 1e6)


def test_without_credentials_and_region_one_message_names_both(
    bedrock: ComposeBedrock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ConfigError, match=r"set provider\.region.*AWS_ACCESS_KEY_ID") as caught:
        build(bedrock(region=None)).__enter__()
    assert "\n" not in str(caught.value)


def test_the_region_may_come_from_the_environment(bedrock: ComposeBedrock, monkeypatch: pytest.MonkeyPatch):
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
    variables: dict[str, str], settings: dict[str, str], bedrock: ComposeBedrock, monkeypatch: pytest.MonkeyPatch
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        build(bedrock(**settings)).__enter__()
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bearer_token_needs_no_other_credentials_over_https(bedrock: ComposeBedrock, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bearer-secret")
    with build(bedrock(endpoint_url=None)) as provider:
        assert "bearer-secret" not in str(provider.describe())
    with pytest.raises(ConfigError, match="https"):
        build(bedrock()).__enter__()


def test_a_bearer_token_is_not_sent_over_plain_http(
    bedrock: ComposeBedrock, server: BedrockServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bearer-secret")
    complete(bedrock(), prompt("hello"))
    assert "bearer-secret" not in str(server.seen[0].headers)


def test_a_plain_http_address_of_the_environment_gets_no_bearer_token_either(
    bedrock: ComposeBedrock, server: BedrockServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bearer-secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", server.url)
    assert complete(bedrock(endpoint_url=None), prompt("hello")).text == "hello"
    assert "bearer-secret" not in str(server.seen[0].headers)
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    for use in ("check", "__enter__"):
        with pytest.raises(ConfigError, match="a Bedrock API key; with an https address only"):
            getattr(build(bedrock(endpoint_url=None)), use)()


@pytest.mark.parametrize("stream", [True, False])
def test_as_many_requests_as_the_batch_size_are_really_in_flight(
    stream: bool, bedrock: ComposeBedrock, server: BedrockServer
):
    server.barrier = threading.Barrier(96)
    config = bedrock("batch.size=96", stream=stream)
    outcomes = generate(config, [prompt(f"prompt {number}", id=f"{number}") for number in range(192)])
    assert {done.text for done in outcomes if isinstance(done, Completion)} == {f"prompt {n}" for n in range(192)}
    assert max(seen.in_flight for seen in server.seen) == 96
    assert len({seen.port for seen in server.seen}) == 96, "every connection is kept and used again"


def test_the_local_server_refuses_what_botocores_service_model_refuses(server: BedrockServer):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    connection.request("POST", "/model/x/converse", json.dumps({"inferenceConfig": {"topK": "five"}}))
    answer = json.loads(connection.getresponse().read())
    connection.close()
    assert "topK" in answer["message"]


@pytest.mark.parametrize("api", ["converse", "invoke"])
def test_the_whole_demo_set_through_bedrock(api: str, bedrock: ComposeBedrock, tmp_path: Path):
    summary = app.run(bedrock(f"provider.api={api}", f"name=bedrock-{api}"), tmp_path / "run")
    assert summary.exit_code == 0
    assert summary.metrics["completed_prompts"] == 64
    assert {"time_to_first_token_p50_s", "inter_token_latency_p50_s", "cost_usd"} <= set(summary.metrics)
    kept = b"".join(path.read_bytes() for path in (tmp_path / "run").iterdir())
    assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in kept
