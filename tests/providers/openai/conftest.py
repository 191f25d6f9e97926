"""A key in the environment, and configurations whose requests reach a local server."""

import pytest

from runner.config.schema import RunConfig
from tests.conftest import Compose
from tests.servers.openai_server import KEY, OpenAIServer


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY"):
        monkeypatch.setenv(variable, KEY)


@pytest.fixture
def hosted(config: Compose) -> Compose:
    """Compose a configuration from a server and overrides, its mode stated."""

    def composed(server: OpenAIServer, *overrides: str) -> RunConfig:
        run_config = config("provider=openai", f"provider.base_url={server.url}/v1", "batch.size=4", *overrides)
        return run_config.with_mode(run_config.batch.mode or "concurrent")

    return composed
