"""provider=openai from the command line: a whole run, its secrets, its imports."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from tests import processes
from tests.conftest import Runner
from tests.servers.openai_server import KEY, OpenAIServer, sse


def test_the_whole_demo_set_through_the_command_line(run_command: Runner, tmp_path: Path):
    price = "model.price={input_usd_per_million: 1, output_usd_per_million: 2}"
    with OpenAIServer(first_token_s=0.01, token_s=0.001) as server:
        address = f"provider.base_url={server.url}/v1"
        done = run_command("provider=openai", address, "hydra.run.dir=out", price)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "out" / "summary.json").read_text())["metrics"]
    assert metrics["completed_prompts"] == len(server.asked) == 64
    times = {"time_to_first_token_p50_s", "inter_token_latency_p50_s"}
    assert times | {"input_tokens", "output_tokens", "cost_usd", "retries"} <= set(metrics)
    assert "prompt_padding_ratio" not in metrics
    environment = json.loads((tmp_path / "out" / "environment.json").read_text())
    assert environment["provider"]["system_fingerprint"] == "fp_local"
    assert environment["provider"]["price"] == "model.price", "where the cost is from is on record"


ECHOED = f"unknown header Authorization: Bearer {KEY}"


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (None, 0),
        ({"status": 401, "body": {"error": {"message": ECHOED}}}, 2),
        ({"status": 400, "body": {"detail": "word " * 96 + ECHOED}}, 1),
        (sse({"error": {"message": ECHOED, "code": 400, "type": KEY}}), 1),
    ],
    ids=["done", "401", "400", "stream"],
)
def test_the_key_is_written_nowhere(fault: dict[str, Any] | None, code: int, empty_store: Path, tmp_path: Path):
    (tmp_path / "outputs").mkdir()
    shutil.copy(empty_store, tmp_path / "outputs" / "mlflow.db")
    experiments = MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow.db")
    with OpenAIServer(fault=lambda *_: fault) as server:
        address = f"provider.base_url={server.url}/v1"
        command = ["runner", "provider=openai", address, "tracking.traces=all", "prompts.limit=8"]
        environment = os.environ | {"OPENAI_API_KEY": KEY, "HYDRA_FULL_ERROR": "1"}
        done = processes.run(command, cwd=tmp_path, env=environment)
    assert done.returncode == code
    written = b"".join(path.read_bytes() for path in (tmp_path / "outputs").rglob("*") if path.is_file())
    assert experiments.get_experiment_by_name("batch-generation"), "the store is among it"
    assert KEY.encode() not in written
    assert KEY not in done.stdout + done.stderr


def test_openai_imports_no_torch(tmp_path: Path):
    with OpenAIServer() as server:
        command = [sys.executable, "-X", "importtime", "-m", "runner"]
        command += ["provider=openai", f"provider.base_url={server.url}/v1", "prompts=memo", "tracking=off"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    imported = {
        line.rpartition("|")[2].strip().partition(".")[0]
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert "openai" in imported
    assert not imported & {"torch", "transformers", "boto3"}
