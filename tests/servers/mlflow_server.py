"""A real MLflow server on a port of its own, and what a store holds of an experiment."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from mlflow import MlflowClient
from mlflow.entities import Run, Trace

_SETTINGS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredExperiment:
    """What a store holds of the experiment of this name, which has one run."""

    client: MlflowClient
    name: str

    def runs(self) -> list[Run]:
        experiment = self.client.get_experiment_by_name(self.name)
        return list(self.client.search_runs([experiment.experiment_id])) if experiment else []

    @property
    def run(self) -> Run:
        (run,) = self.runs()
        return run

    def traces(self, *, max_results: int = 100) -> list[Trace]:
        run, traces, token = self.run, list[Trace](), None
        while True:
            page = self.client.search_traces(
                locations=[run.info.experiment_id], run_id=run.info.run_id, max_results=max_results, page_token=token
            )
            traces += page
            if not (token := page.token):
                return traces

    def points(self, prefix: str = "batch/") -> dict[tuple[str, int], list[tuple[int, float]]]:
        """Return time and value of every point of the run's curves, by name and step."""
        run = self.run
        points: dict[tuple[str, int], list[tuple[int, float]]] = {}
        for metric in (name for name in run.data.metrics if name.startswith(prefix)):
            for point in self.client.get_metric_history(run.info.run_id, metric):
                points.setdefault((metric, point.step), []).append((point.timestamp, point.value))
        return points

    def artifacts(self) -> set[str]:
        return {file.path for file in self.client.list_artifacts(self.run.info.run_id)}


@contextmanager
def serve(folder: Path, store: str | None = None) -> Iterator[int]:
    """Serve a store, or a new one in this folder; the port is yielded when the server answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", store or f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "files")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, cwd=folder, env=os.environ | _SETTINGS
        )
    try:
        for _ in range(600):
            if _answers(f"http://127.0.0.1:{port}/health"):
                break
            time.sleep(0.2)
        else:
            pytest.fail((folder / "log").read_text())
        yield port
    finally:
        process.terminate()
        process.wait(20)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=1).ok
    except requests.RequestException:
        return False
