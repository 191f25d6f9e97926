"""From an MLflow run id to its folder."""

from pathlib import Path

from tests import processes
from tests.conftest import Compose
from tests.tracking import forked


def test_a_run_is_found_by_its_mlflow_id(tracked: Compose, store: str, tmp_path: Path):
    result = forked.run(tracked("provider=echo", "name=by-id"), tmp_path / "run")
    run_id = str(result.summary.mlflow_run_id)
    done = processes.run(["runner.resume", run_id, "--tracking-uri", store], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "64 of 64 prompts are completed" in done.stderr
    done = processes.run(["runner.resume", "0" * 32, "--tracking-uri", store], cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
