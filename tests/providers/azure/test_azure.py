"""provider=azure against a local server: its addresses, its two APIs, and what it needs."""

from pathlib import Path

import pytest

from runner import app
from runner.config.schema import RunConfig
from runner.config.waits import Waits
from runner.errors import ConfigError
from runner.providers.azure.deployments import next_page
from runner.providers.errors import CallError
from runner.providers.factory import build
from runner.run.prepare import prepare_calls
from runner.types import Completion
from tests.conftest import Compose
from tests.factories import generate, prompts
from tests.servers.openai_server import KEY, OpenAIServer


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
        prepare_calls(config("provider=azure", "batch.mode=static"), Waits())
    with pytest.raises(ConfigError, match=r"model\.revision='1'.*'azure'"):
        build(config("provider=azure", "model.revision='1'"))


@pytest.mark.parametrize(
    ("link", "is_followed"),
    [
        ("https://management.azure.com/x?page=2", True),
        (None, True),
        ("https://management.azure.com.evil.example/x", False),
        ("https://management.azure.com@evil.example/x", False),
        ("http://management.azure.com/x", False),
        ("https://management.azure.com:8443/x", False),
    ],
)
def test_the_token_of_azures_management_goes_to_its_own_host_only(link: str | None, is_followed: bool):
    page: dict[str, object] = {"value": [], "nextLink": link}
    if is_followed:
        assert next_page(page, "https://management.azure.com") == link
    else:
        with pytest.raises(CallError, match="goes on at another host than https://management"):
            next_page(page, "https://management.azure.com")


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


def test_the_whole_demo_set_through_azure(config: Compose, tmp_path: Path):
    with OpenAIServer() as server:
        summary = app.run(
            config("provider=azure", f"provider.azure_endpoint={server.url}", "name=azure-demo"), tmp_path
        )
    assert summary.exit_code == 0
    assert summary.metrics["completed_prompts"] == 64
    assert {"time_to_first_token_p50_s", "inter_token_latency_p50_s"} <= set(summary.metrics)
    assert "cost_usd" not in summary.metrics, "a deployment's price is not known"
