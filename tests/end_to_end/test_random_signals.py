"""Signals at random moments: every run is closed with its metrics or can be resumed, and nothing is left running.

RUNNER_SIGNALLED_RUNS and RUNNER_SIGNALLED_SWEEPS say how many (`make test-faults`: 200 and 50), RUNNER_SIGNALS_SEED when.
"""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from runner import app
from runner.record.folder import MANIFEST, RunFolder
from tests import processes
from tests.servers.openai_server import OpenAIServer

RUNS = int(os.environ.get("RUNNER_SIGNALLED_RUNS", "3"))
SWEEPS = int(os.environ.get("RUNNER_SIGNALLED_SWEEPS", "1"))
SEED = int(os.environ.get("RUNNER_SIGNALS_SEED", "0"))
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
WEIGHTS = (4, 3, 2, 1)
MAX_WAIT_S = 3.0
"""About how long a run of these takes."""
LEFT_S = 60.0
"""How long a process that publishes may take after its run."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    monkeypatch.setenv("OPENAI_API_KEY", "planted")
    with OpenAIServer(first_token_s=0.05, token_s=0.005) as made:
        yield made


def signalled(command: list[str], folder: Path, chosen: random.Random) -> tuple[int, str, bool]:
    """Run a command that gets one to three signals; return its exit code, its messages, and whether one was SIGKILL."""
    numbers = chosen.choices(SIGNALS, WEIGHTS, k=chosen.randint(1, 3))
    with processes.start(command, cwd=folder, stdout=os.open(os.devnull, os.O_WRONLY)) as process:
        for number in numbers:
            until = time.monotonic() + chosen.uniform(0, MAX_WAIT_S)
            while time.monotonic() < until and process.poll() is None:
                time.sleep(0.005)
            process.send_signal(number)
        _, messages = process.communicate(120)
    assert process.returncode is not None
    return process.returncode, messages, process.returncode == -signal.SIGKILL


def assert_closed_or_resumable(run: Path, messages: str, *, killed: bool) -> None:
    folder = RunFolder(run)
    if not (run / MANIFEST).exists():
        assert not list(folder.outcomes.read()), "nothing was generated"
        return
    summary = folder.read_summary()
    is_closed = summary is not None and "completed_prompts" in summary.metrics
    assert is_closed or killed or "python -m runner.resume" in messages, messages
    if is_closed and summary is not None and summary.exit_code:
        assert killed or "python -m runner.resume" in messages, messages
    result = app.resume(run)
    assert (result.status, result.metrics["completed_prompts"]) == ("FINISHED", 24)


def assert_nothing_runs(folder: Path) -> None:
    """Wait until no process has its working directory here, which is where all of them are started."""
    until = time.monotonic() + LEFT_S
    while left := [process for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == str(folder)]:
        assert time.monotonic() < until, left
        time.sleep(0.1)


@pytest.mark.parametrize("number", range(RUNS))
def test_a_run_is_closed_or_resumable_whatever_signals_come(number: int, server: OpenAIServer, tmp_path: Path):
    chosen = random.Random(f"{SEED} run {number}")
    hosted = ("provider=openai", f"provider.base_url={server.url}/v1", "batch.size=4", "prompts.limit=24")
    command = ["runner", *hosted, "tracking=off", "hydra.run.dir=run"]
    code, messages, killed = signalled(command, tmp_path, chosen)
    assert "Traceback" not in messages
    assert code in (0, 130, *(-number for number in SIGNALS)), messages
    assert_closed_or_resumable(tmp_path / "run", messages, killed=killed)
    assert_nothing_runs(tmp_path)


@pytest.mark.parametrize("number", range(SWEEPS))
def test_a_sweep_leaves_no_parent_running_whatever_signals_come(
    number: int, server: OpenAIServer, store: str, tmp_path: Path
):
    chosen, name = random.Random(f"{SEED} sweep {number}"), f"signalled-{number}"
    hosted = ("provider=openai", f"provider.base_url={server.url}/v1", "batch.size=4,8", "prompts.limit=24")
    command = [
        "runner",
        "-m",
        *hosted,
        f"name={name}",
        f"tracking.uri={store}",
        "tracking.traces=off",
        "hydra.sweep.dir=s",
    ]
    _, messages, killed = signalled(command, tmp_path, chosen)
    assert "Traceback" not in messages
    assert_nothing_runs(tmp_path)
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name(name)
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    assert "RUNNING" not in [run.info.status for run in runs], messages
    for job in (tmp_path / "s").glob("[0-9]"):
        assert_closed_or_resumable(job, messages, killed=killed)
