"""The end of a sweep: its parent run in MLflow does not stay RUNNING, however the sweep ends."""

import os
import signal
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from runner.cli import sweep
from runner.record.folder import OUTCOMES
from runner.run.signals import handle_signals
from runner.tracking import sweep_run
from runner.tracking.store import open_store
from tests import processes
from tests.conftest import Compose, Runner
from tests.factories import prompts_file
from tests.servers.batch_service import BatchService
from tests.servers.openai_server import KEY
from tests.tracking import forked


def statuses(store: str, name: str) -> list[str]:
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name(name)
    return [run.info.status for run in client.search_runs([experiment.experiment_id])] if experiment else []


def test_a_signal_while_a_sweep_is_compared_ends_the_comparison_and_the_parent(
    tracked: Compose, store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    config = tracked("provider=echo", "prompts=memo", "name=compared")
    forked.run(config, tmp_path / "0", sweep_dir=tmp_path)
    with handle_signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert sweep.finish(tmp_path, [0], signals, interrupted=False) == 130
    assert sorted(statuses(store, "compared")) == ["FINISHED", "KILLED"]
    assert f"python -m runner.compare {tmp_path}" in caplog.text


def test_a_sweep_none_of_whose_jobs_was_closed_ends_its_parent(tracked: Compose, store: str, tmp_path: Path):
    sweep_run.join(tmp_path, open_store(store, "no-job-closed"), tracked("name=no-job-closed"))
    with handle_signals() as signals:
        assert sweep.finish(tmp_path, [1], signals, interrupted=False) == 1
    assert statuses(store, "no-job-closed") == ["FAILED"]


def test_a_killed_sweep_leaves_no_parent_running(store: str, tmp_path: Path):
    slow = ("provider=echo", "provider.latency_s=1", "batch.mode=concurrent", "batch.size=1,2", "name=killed-sweep")
    command = ["runner", "-m", *slow, f"tracking.uri={store}", "hydra.sweep.dir=s"]
    with processes.start(command, cwd=tmp_path) as running:
        outcomes = tmp_path / "s" / "0" / OUTCOMES
        while not (outcomes.exists() and outcomes.stat().st_size and (tmp_path / "s" / "sweep.json").exists()):
            assert running.poll() is None
            time.sleep(0.05)
        running.kill()
        running.communicate()
    until = time.monotonic() + 30
    while "RUNNING" in statuses(store, "killed-sweep") and time.monotonic() < until:
        time.sleep(0.1)
    assert statuses(store, "killed-sweep") == ["KILLED", "KILLED"]


def test_jobs_that_lack_a_key_leave_no_run_in_mlflow(store: str, run_command: Runner):
    done = run_command("-m", "provider=openai", "seed=1,2", "name=no-key", track=True, OPENAI_API_KEY="")
    assert done.returncode == 2
    assert "OPENAI_API_KEY" in done.stderr
    assert statuses(store, "no-key") == []


def test_a_sweep_that_collects_its_batch_jobs_still_runs(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its jobs have ended in MLflow; its parent run is not ended by a comparison meanwhile."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    with BatchService(states=lambda _: ("validating", "in_progress")) as service:
        jobs = (*service.overrides(), *prompts_file(tmp_path, 2), "batch.mode=job", "seed=1", "name=collects")
        command = ["runner", "-m", *jobs, f"tracking.uri={store}", "hydra.sweep.dir=s"]
        with processes.start(command, cwd=tmp_path) as running:
            assert running.stderr is not None
            while "collecting the jobs of" not in (line := running.stderr.readline()):
                assert line
            compared = processes.run(["runner.compare", "s", "--json"], cwd=tmp_path)
            found = statuses(store, "collects")
            running.kill()
            running.communicate()
    assert compared.returncode == 0, compared.stderr
    assert "is gone" not in compared.stderr
    assert "RUNNING" in found
