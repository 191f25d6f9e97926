"""A real MLflow server for the session, and a proxy in front of it for one test."""

import logging
from collections.abc import Iterator

import pytest
from mlflow import MlflowClient

from tests.servers.mlflow_server import serve
from tests.servers.proxy import Proxy


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real MLflow server."""
    with serve(tmp_path_factory.mktemp("server")) as port:
        yield port


@pytest.fixture(scope="session")
def server_client(server: int) -> MlflowClient:
    """A client that reaches the server directly."""
    return MlflowClient(f"http://127.0.0.1:{server}")


@pytest.fixture
def proxy(server: int) -> Iterator[Proxy]:
    with Proxy(server) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def runner_messages(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "runner")
