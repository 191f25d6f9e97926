"""Fixtures for tests of providers: a Bedrock on this machine, and the credentials that boto3 finds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.config.schema import RunConfig
from tests.conftest import Compose
from tests.providers.bedrock import SECRET, ComposeBedrock
from tests.providers.openvino.models import write_gguf
from tests.servers.bedrock_server import BedrockServer


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file with a Llama of random weights (300 kB). Its tokens are bytes; it has a chat template."""
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def aws_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_BEARER_TOKEN_BEDROCK", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAFAKE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))


@pytest.fixture
def server() -> Iterator[BedrockServer]:
    with BedrockServer() as serving:
        yield serving


@pytest.fixture
def bedrock(config: Compose, server: BedrockServer) -> ComposeBedrock:
    """Compose a configuration for the local Bedrock; keyword arguments are provider settings."""

    def composed(*overrides: str, **settings: object) -> RunConfig:
        chosen = {"region": "us-east-1", "endpoint_url": server.url, **settings}
        provider = [f"provider.{name}={'null' if value is None else value}" for name, value in chosen.items()]
        return config("provider=bedrock", "batch.mode=concurrent", *provider, *overrides)

    return composed
