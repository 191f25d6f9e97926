"""A sweep whose launcher runs the jobs in other processes: its exit code is that of the job folders' summaries."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from runner.record.manifest import Summary
from tests import processes
from tests.conftest import Runner
from tests.processes import Process

LAUNCHER = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=s")
SLOW = ("provider=echo", "provider.latency_s=1", "batch.mode=concurrent", "batch.size=1,2", "tracking=off")


def status(folder: Path) -> str | None:
    path = folder / "summary.json"
    return json.loads(path.read_text())["status"] if path.exists() else None


@contextmanager
def running_sweep(folder: Path) -> Iterator[tuple[Process, list[psutil.Process]]]:
    """Start a sweep of two slow jobs in a session of its own; yield it and its jobs' processes once both generate."""
    command = ["runner", "-m", *SLOW, *LAUNCHER]
    with processes.start(command, cwd=folder, stdout=subprocess.DEVNULL, new_session=True) as sweep:
        try:
            deadline = time.monotonic() + 60
            while not all(job.exists() and job.stat().st_size for job in outcome_files(folder)):
                assert time.monotonic() < deadline
                assert sweep.poll() is None
                time.sleep(0.05)
            children = psutil.Process(sweep.pid).children(recursive=True)
            jobs = [child for child in children if any("popen_loky" in part for part in child.cmdline())]
            assert len(jobs) == 2
            yield sweep, jobs
        finally:
            if sweep.poll() is None:
                os.killpg(sweep.pid, signal.SIGKILL)


def outcome_files(folder: Path) -> list[Path]:
    return [folder / "s" / str(job) / "outcomes.jsonl" for job in range(2)]


def test_jobs_that_complete_all_prompts_give_0_and_are_compared(run_command: Runner, tmp_path: Path):
    done = run_command("-m", "provider=echo", "prompts=memo", "batch.size=1,2", *LAUNCHER)
    assert done.returncode == 0, done.stderr
    assert "Sweep s" in done.stdout
    assert (tmp_path / "s" / "comparison.json").exists()
    assert [status(tmp_path / "s" / job) for job in ("0", "1")] == ["FINISHED", "FINISHED"]


def test_a_job_with_failed_prompts_gives_1(run_command: Runner):
    done = run_command("-m", "provider=echo", "prompts=memo", "provider.fail_on=null,capital", *LAUNCHER)
    assert done.returncode == 1, done.stderr
    assert "prompts failed" in done.stderr


def test_a_sweep_of_refused_jobs_gives_2(run_command: Runner, tmp_path: Path):
    done = run_command("-m", "provider=openai", "prompts=memo", "batch.size=1,2", *LAUNCHER, OPENAI_API_KEY="")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert "OPENAI_API_KEY" in done.stderr
    assert done.stderr.count("\n") == 1, "both jobs are wrong in the same way: one message"
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("launcher", [LAUNCHER, LAUNCHER[-1:]], ids=["processes", "one process"])
@pytest.mark.parametrize("values", ["generation.temperature=0,0.5", "batch.size=1,0", "prompts.limit=2,-1"])
def test_a_wrong_job_among_others_is_left_out_and_gives_1(
    values: str, launcher: tuple[str, ...], run_command: Runner, tmp_path: Path
):
    done = run_command("-m", "provider=echo", "prompts=memo", values, *launcher)
    key, wrong = values.split("=")[0], values.split(",")[1]
    assert done.returncode == 1, done.stderr
    assert f"error: the job provider=echo prompts=memo {key}={wrong}" in done.stderr
    assert f"is left out: {key}={wrong}" in done.stderr
    assert [path.name for path in sorted((tmp_path / "s").glob("[0-9]*"))] == ["0"], "nothing is made for the wrong job"
    assert status(tmp_path / "s" / "0") == "FINISHED"
    assert "Traceback" not in done.stderr


def test_a_killed_job_gives_1_in_one_message(tmp_path: Path):
    with running_sweep(tmp_path) as (sweep, jobs):
        jobs[0].kill()
        _, stderr = sweep.communicate(timeout=60)
    assert sweep.returncode == 1, stderr
    assert "error: a process that ran jobs of the sweep was killed" in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize("recipient", ["whole group", "one job"])
def test_an_interrupted_sweep_gives_130(recipient: str, tmp_path: Path):
    with running_sweep(tmp_path) as (sweep, jobs):
        if recipient == "one job":
            jobs[0].send_signal(signal.SIGINT)
        else:  # as Ctrl-C in a terminal
            os.killpg(sweep.pid, signal.SIGINT)
        _, stderr = sweep.communicate(timeout=60)
    assert sweep.returncode == 130, stderr
    assert stderr.endswith("error: interrupted\n")
    assert "Traceback" not in stderr
    assert all(path.read_bytes().endswith(b"\n") for path in outcome_files(tmp_path))


@pytest.mark.parametrize(
    ("error_type", "code"),
    [
        ("UsageError", 2),
        ("ConfigError", 2),
        ("RequestError", 2),
        ("TakenError", 2),
        ("BudgetError", 1),
        ("KeyError", 1),
    ],
)
def test_a_recorded_errors_name_gives_the_exit_code_also_if_an_earlier_version_wrote_it(error_type: str, code: int):
    error = {"type": error_type, "message": "m"}
    assert Summary(status="FAILED", mlflow_run_id=None, metrics={}, error=error).exit_code == code
