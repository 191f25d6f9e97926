"""A real MLflow server for the session, and a proxy in front of it for one test."""

import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from runner.config.waits import Waits
from runner.record.folder import RunFolder
from runner.tracking import publisher
from tests import processes
from tests.servers.mlflow_server import serve
from tests.servers.proxy import Proxy

WORKER = ("tests.tracking.worker_imports",)


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


@pytest.fixture(autouse=True)
def forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the workers of `app.run` from a server that has imported MLflow: processes as before, without the start."""

    def start(folder: RunFolder, waits: Waits) -> processes.Process:
        return processes.start(
            ["runner.tracking.worker", str(folder.path), str(waits.store_retry_s)], cwd=Path.cwd(),
            stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, new_session=True, imports=WORKER,
        )  # fmt: skip

    monkeypatch.setattr(publisher, "start_worker", start)
