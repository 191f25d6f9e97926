"""`python -m runner.plan` and `python -m runner.models`: what they print, and what they do not do."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import genai_prices
import pytest

from runner import app
from runner.cli import models, plan
from runner.errors import AccessError, ConfigError
from runner.providers.protocols import LIST_TIMEOUT_S
from tests import processes
from tests.conftest import Compose
from tests.servers.json_server import serving_json
from tests.servers.openai_server import OpenAIServer


def test_a_plan_adds_up(config: Compose):
    planned = plan.plan(
        config("provider=echo", "batch.mode=static", "batch.size=10", "generation.max_tokens=5", "generation.n=2",
               "model.price={input_usd_per_million: 1000000, output_usd_per_million: 2000000}")
    )  # fmt: skip
    assert (planned.prompts, planned.requests, planned.most_output_tokens) == (64, 7, 640)
    assert (planned.input_tokens_are, planned.price) == ("counted", "model.price")
    assert planned.least_cost_usd == pytest.approx(planned.input_tokens)
    assert planned.most_cost_usd == pytest.approx(planned.input_tokens + 2 * 640)


def test_a_prompt_over_a_threshold_of_length_is_planned_at_the_rates_of_its_length(config: Compose, tmp_path: Path):
    """1,200,000 and 400 characters are 300,000 and 100 tokens by estimate, and 4 a message. gpt-5.4 costs more over 272,000:
    all tokens of such a request, and none of the other one."""
    (tmp_path / "p.txt").write_text("a" * 1_200_000 + "\n" + "b" * 400 + "\n")
    source = ["prompts=file", f"prompts.path={tmp_path / 'p.txt'}", "generation.max_tokens=10"]
    planned = plan.plan(config("provider=openai", "model.id=gpt-5.4", *source))
    usages = [genai_prices.Usage(input_tokens=tokens, output_tokens=10) for tokens in (300_004, 104)]
    listed = [genai_prices.calc_price(usage, model_ref="gpt-5.4", provider_id="openai") for usage in usages]
    assert planned.most_cost_usd == pytest.approx(float(sum(price.total_price for price in listed)))


def test_a_plan_of_own_hardware_has_a_cost_where_it_knows_the_time(config: Compose, capsys: pytest.CaptureFixture[str]):
    planned = plan.plan(config("provider=echo", "model.price={usd_per_hour: 2}"))
    assert (planned.price, planned.usd_per_hour) == ("model.price.usd_per_hour", 2)
    assert (planned.least_cost_usd, planned.most_cost_usd) == (None, None)
    # 64 requests at 32 a minute are two minutes: 2 / 3600 * 120 dollars
    plan.main(["provider=vllm", "model.id=m", "model.price={usd_per_hour: 2}", "limits.requests_per_minute=32"])
    assert "$2.0000 per hour of generation: $0.0667 for the time under the limits" in capsys.readouterr().out


def test_a_plan_knows_the_time_under_the_limits(config: Compose):
    limited = config("provider=openai", "limits.requests_per_minute=32", "limits.tokens_per_minute=1000000")
    assert plan.plan(limited).most_time_s == pytest.approx(120)
    assert plan.plan(config("provider=openai")).most_time_s is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["provider=azure", "limits.max_cost_usd=1"], r"limits\.max_cost_usd=1.*model\.price"),
        (
            ["provider=openai", "model.price={usd_per_hour: 1}", "limits.max_cost_usd=1"],
            r"max_cost_usd=1.*usd_per_hour=1",
        ),
        (["provider=echo", "batch.mode=static", "limits.requests_per_minute=3"], r"limits\.requests_per_minute=3"),
        (["provider=openai", "batch.size=2000000000"], r"batch\.size=2000000000.*ulimit -n"),
    ],
)
def test_a_plan_refuses_what_the_run_would_refuse(overrides: list[str], message: str, config: Compose):
    with pytest.raises(ConfigError, match=message):
        plan.plan(config(*overrides))


@pytest.mark.parametrize(("limit", "verdict"), [("0.000001", "will stop"), ("0.03", "may stop"), ("5", "enough")])
def test_a_plan_states_whether_the_budget_is_enough(limit: str, verdict: str, capsys: pytest.CaptureFixture[str]):
    price = "model.price={input_usd_per_million: 1, output_usd_per_million: 10}"
    plan.main(["provider=openai", price, f"limits.max_cost_usd={limit}"])
    assert verdict in capsys.readouterr().out


def test_a_plan_needs_no_key_and_sends_nothing(config: Compose, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with OpenAIServer() as server:
        planned = plan.plan(config("provider=openai", f"provider.base_url={server.url}/v1"))
        assert not server.asked
    assert planned.input_tokens_are.startswith("estimated")
    assert planned.most_cost_usd is None, "another server than OpenAI's own has no known price"


def test_prices_are_looked_up_exactly_or_not_at_all(config: Compose):
    assert (plan.plan(config("provider=openai")).most_cost_usd or 0) > 0
    for unknown in (("model.id=gpt-nonsense-9",), ("provider.service_tier=flex",)):
        planned = plan.plan(config("provider=openai", *unknown))
        assert (planned.price, planned.most_cost_usd) == (None, None)
    assert plan.plan(config("provider=bedrock", "model.id=amazon.nova-micro-v9:0")).price is None, "v1 is another model"
    for known in ("amazon.nova-micro-v1:0", "us.amazon.nova-micro-v1:0", "eu.anthropic.claude-haiku-4-5-20251001-v1:0"):
        assert (plan.plan(config("provider=bedrock", f"model.id={known}")).most_cost_usd or 0) > 0
    assert (plan.plan(config("provider=openai", "model.id=gpt-5.4-mini-2026-03-17")).most_cost_usd or 0) > 0


def test_a_local_models_tokens_are_counted_without_loading_it(config: Compose, tiny_model: Path):
    (tiny_model / "model.safetensors").rename(tiny_model / "away")
    try:
        planned = plan.plan(config(f"model.id={tiny_model}", "prompts=memo"))
    finally:
        (tiny_model / "away").rename(tiny_model / "model.safetensors")
    assert (planned.input_tokens, planned.input_tokens_are) == (
        len("Hello, my name is" + "What is the capital of"),
        "counted",
    )


def test_plan_on_the_command_line(capsys: pytest.CaptureFixture[str]):
    plan.main(["provider=openai", "--json"])
    assert json.loads(capsys.readouterr().out)["requests"] == 64
    plan.main(["provider=openai"])
    assert "genai-prices" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        plan.main(["provider=openai", "batch.size=0"])
    assert ended.value.code == 2


@pytest.mark.parametrize("provider", ["openai", "azure"])
def test_a_services_models_are_listed_with_their_end(provider: str, config: Compose, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "k")
    with OpenAIServer() as server:
        address = (
            f"provider.base_url={server.url}/v1" if provider == "openai" else f"provider.azure_endpoint={server.url}"
        )
        old, small = models.models(config(f"provider={provider}", address))
    assert (old.id, old.shutdown_date) == ("old", "2027-01-14")
    assert (small.id, small.detail, small.shutdown_date) == ("small", "2026-01-01", None)


BEDROCK = {
    "/foundation-models": {
        "modelSummaries": [
            {"modelArn": "arn:aws:bedrock:us-east-1::foundation-model/a.b", "modelId": "a.b", "providerName": "A",
             "inferenceTypesSupported": ["ON_DEMAND"], "modelLifecycle": {"status": "LEGACY", "endOfLifeTime": "2027-02-03T00:00:00Z"}},
        ]
    },
    "/inference-profiles": {"inferenceProfileSummaries": [{"inferenceProfileId": "us.a.b", "inferenceProfileName": "US A B"}]},
}  # fmt: skip


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "fake")
    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK", raising=False)


@pytest.mark.usefixtures("aws")
def test_what_listing_bedrocks_models_needs_is_named(config: Compose, monkeypatch: pytest.MonkeyPatch):
    denied = (403, {"__type": "AccessDeniedException", "message": "User: x is not authorized"})
    with serving_json({"/foundation-models": denied}) as (url, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", url)
        with pytest.raises(AccessError, match=r"region us-east-1.*bedrock:ListFoundationModels.*ListInferenceProfiles"):
            models.models(config("provider=bedrock", "provider.region=us-east-1"))


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("provider", ["openai", "bedrock"])
def test_a_list_that_does_not_come_is_not_waited_for(provider: str, config: Compose, monkeypatch: pytest.MonkeyPatch):
    assert LIST_TIMEOUT_S == 30
    for module in ("openai.requests", "bedrock.provider"):
        monkeypatch.setattr(f"runner.providers.{module}.LIST_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", url)
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        where = "provider.region=us-east-1" if provider == "bedrock" else f"provider.base_url={url}/v1"
        start = time.monotonic()
        with pytest.raises(AccessError):
            models.models(config(f"provider={provider}", where))
        assert time.monotonic() - start < 10


def test_bedrocks_models_and_inference_profiles_are_listed(config: Compose, monkeypatch: pytest.MonkeyPatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "fake")
    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK", raising=False)
    with serving_json(BEDROCK) as (url, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", url)
        model, profile = models.models(config("provider=bedrock", "provider.region=us-east-1"))
    assert (model.id, model.kind, model.shutdown_date) == ("a.b", "model", "2027-02-03")
    assert (profile.id, profile.kind, profile.detail) == ("us.a.b", "inference profile", "US A B")


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A managed identity, as Azure App Service offers it: azure-identity itself fetches the tokens."""
    with serving_json(
        {"/token": {"access_token": "entra-token", "expires_on": "4102444800", "token_type": "Bearer", "resource": "x"}}
    ) as (url, _):
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{url}/token")
        monkeypatch.setenv("IDENTITY_HEADER", "secret")
        monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
        yield


@pytest.mark.usefixtures("identity")
def test_azures_deployments_are_listed_where_the_caller_may(config: Compose):
    resource = "/subscriptions/s/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/a"
    deployment = {
        "name": "mine",
        "sku": {"name": "GlobalStandard"},
        "properties": {"model": {"name": "gpt-x", "version": "1"}},
    }
    with (
        OpenAIServer() as server,
        serving_json({f"{resource}/deployments": {"value": [deployment]}}) as (management, requests),
    ):
        settings = (f"provider.azure_endpoint={server.url}", "provider.auth=entra", f"provider.resource_id={resource}")
        first, *others = models.models(config("provider=azure", *settings, f"provider.management_url={management}"))
    assert (first.id, first.kind, first.detail) == ("mine", "deployment", "gpt-x 1 GlobalStandard")
    assert {model.id for model in others} == {"small", "old"}
    assert requests[0][1] == "Bearer entra-token"
    assert server.asked[0].headers["authorization"] == "Bearer entra-token"


@pytest.mark.usefixtures("identity")
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, r"provider\.management_url"),
        ((403, {"error": {"message": "no rights: Bearer entra-token"}}), r"403 for provider\.resource_id.*no rights"),
        ({"odd": 1}, "'value'"),
    ],
)
def test_deployments_that_cannot_be_had_are_one_message(answer: Any, message: str, config: Compose):
    resource = "/subscriptions/s"
    with OpenAIServer() as server, serving_json({f"{resource}/deployments": answer}) as (management, _):
        address = management if answer else "http://127.0.0.1:9"
        settings = (f"provider.azure_endpoint={server.url}", "provider.auth=entra", f"provider.resource_id={resource}")
        with pytest.raises(AccessError, match=message) as caught:
            models.models(config("provider=azure", *settings, f"provider.management_url={address}"))
    assert "entra-token" not in str(caught.value)


@pytest.mark.usefixtures("identity")
def test_the_management_token_is_sent_to_no_other_host(config: Compose):
    resource = "/subscriptions/s"
    with serving_json({"/more": {"value": []}}) as (elsewhere, requests), OpenAIServer() as server:
        page = {"value": [], "nextLink": f"{elsewhere}/more"}
        with serving_json({f"{resource}/deployments": page}) as (management, _):
            settings = (
                f"provider.azure_endpoint={server.url}",
                "provider.auth=entra",
                f"provider.resource_id={resource}",
            )
            with pytest.raises(AccessError, match=r"goes on at .* not followed"):
                models.models(config("provider=azure", *settings, f"provider.management_url={management}"))
    assert requests == []


@pytest.mark.usefixtures("identity")
def test_an_identity_that_is_refused_is_not_asked_for_a_key(config: Compose, tmp_path: Path):
    refused = {"status": 401, "body": {"error": {"message": "not you, Bearer entra-token"}}}
    with OpenAIServer(fault=lambda *_: refused) as server:
        settings = (f"provider.azure_endpoint={server.url}", "provider.auth=entra", "prompts=memo")
        with pytest.raises(AccessError, match="identity is not accepted: check its role") as caught:
            app.run(config("provider=azure", *settings), tmp_path)
    assert "api_key_env" not in str(caught.value)
    assert b"entra-token" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


@pytest.mark.usefixtures("identity")
@pytest.mark.parametrize("api_version", ["null", "2024-10-21"])
def test_azure_takes_entra_id_instead_of_a_key(
    api_version: str, config: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.delenv("AZURE_OPENAI_API_KEY", raising=False)
    with OpenAIServer() as server:
        settings = (
            f"provider.azure_endpoint={server.url}",
            "provider.auth=entra",
            f"provider.api_version={api_version}",
        )
        summary = app.run(config("provider=azure", *settings, "prompts.limit=3", "name=entra"), tmp_path)
    assert summary.metrics["completed_prompts"] == 3
    assert {asked.headers["authorization"] for asked in server.asked} == {"Bearer entra-token"}


def test_this_machines_models_are_listed_as_a_table_and_as_json(capsys: pytest.CaptureFixture[str]):
    models.main([])
    assert "embedded/SmolLM2-135M-Instruct" in capsys.readouterr().out
    models.main(["--json"])
    assert json.loads(capsys.readouterr().out)[0]["kind"] == "embedded"


def test_a_list_that_cannot_be_had_is_one_message(config: Compose, capsys: pytest.CaptureFixture[str]):
    with OpenAIServer() as server:
        url = server.url
    with pytest.raises(SystemExit) as ended:
        models.main(["provider=openai", f"provider.base_url={url}/v1", "provider.api_key_env=null"])
    assert ended.value.code == 2
    assert "cannot reach 127.0.0.1" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--json"], []], ids=["json", "table"])
def test_output_that_a_full_disk_does_not_take_is_an_error(arguments: list[str], tmp_path: Path):
    command = ["runner.plan", "provider=echo", *arguments]
    with Path("/dev/full").open("w") as full, processes.start(command, cwd=tmp_path, stdout=full) as process:
        _, errors = process.communicate(60)
    assert process.returncode == 1
    assert (
        errors == "error: the output cannot be written: No space left on device: make room, or write to another place\n"
    )
