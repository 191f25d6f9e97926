"""From an MLflow run id to its folder."""

import subprocess
import sys
from pathlib import Path

from runner import app
from tests.conftest import Compose


def test_a_run_is_found_by_its_mlflow_id(tracked: Compose, store: str, tmp_path: Path):
    result = app.run(tracked("provider=echo", "name=by-id"), tmp_path / "run")
    command = [sys.executable, "-m", "runner.resume", str(result.summary.mlflow_run_id), "--tracking-uri", store]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "64 of 64 prompts are completed" in done.stderr
    command[3] = "0" * 32
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
