"""Settings, addresses and keys of provider=openai: what is refused before anything is sent."""

import json
from pathlib import Path

import pytest

from runner import app
from runner.config.waits import Waits
from runner.errors import ConfigError
from runner.providers.factory import build
from runner.run.prepare import prepare_calls
from tests.conftest import Compose
from tests.factories import completions, generate, prompts
from tests.servers.openai_server import OpenAIServer


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
    overrides: list[str], parts: list[str], hosted: Compose
):
    with OpenAIServer() as server:
        with pytest.raises(ConfigError) as caught:
            generate(hosted(server, *overrides), prompts("hi"))
        assert not server.asked
    for part in parts:
        assert part in str(caught.value)


def test_auto_is_for_concurrent_requests_only(config: Compose):
    with pytest.raises(ConfigError, match=r"batch\.size='auto'.*'static'"):
        prepare_calls(config("provider=transformers", "batch.size=auto"), Waits())


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


def test_the_configured_address_wins_over_the_environments(hosted: Compose, monkeypatch: pytest.MonkeyPatch):
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
def test_a_key_that_no_header_can_carry_is_refused(value: str, hosted: Compose, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", value)
    with OpenAIServer() as server:
        with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
            generate(hosted(server), prompts("a"))
        assert not server.asked
    assert value.strip() not in str(caught.value)
