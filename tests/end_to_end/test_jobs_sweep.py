"""Sweeps with batch jobs: all are submitted, then collected, and compared with requests and lists of the same service."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import processes
from tests.servers.batch_service import BatchService
from tests.servers.openai_server import KEY

QUICK = ("in_progress", "completed")
PROMPTS = 6


def sweep(folder: Path, service: BatchService, *overrides: str) -> tuple[int, str]:
    """Return the exit code of a sweep, and what it printed."""
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"id": f"q{n}", "prompt": f"say {n}"}) + "\n" for n in range(PROMPTS)))
    arguments = [
        "runner", "-m", *overrides, f"provider.base_url={service.url}/v1", "prompts=file", f"prompts.path={prompts}",
        "tracking=off", f"hydra.sweep.dir={folder / 'sweep'}",
    ]  # fmt: skip
    with processes.start(arguments, cwd=folder, stderr=subprocess.STDOUT) as process:
        printed, _ = process.communicate(timeout=120)
    return process.wait(), printed


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def test_the_experiment_of_modes_ends_in_one_comparison_of_requests_lists_and_jobs(tmp_path: Path):
    with BatchService(states=lambda number: QUICK) as service:
        code, printed = sweep(tmp_path, service, "+experiment=modes", "batch.size=6")
    assert code == 0, printed
    assert service.steps["answer"] == PROMPTS + 1  # a request for each prompt, and one list of all
    assert len(service.jobs) == 1
    compared = json.loads((tmp_path / "sweep" / "comparison.json").read_text())
    runs = {run["settings"]["batch.mode"]: run["metrics"] for run in compared["runs"]}
    assert list(runs) == ["concurrent", "static", "job"]
    assert all(metrics["completed_prompts"] == PROMPTS for metrics in runs.values())
    assert [mode for mode, metrics in runs.items() if "latency_p50_s" in metrics] == ["concurrent", "static"]
    page = (tmp_path / "sweep" / "comparison.html").read_text()
    assert "nan" not in page.lower().split() and all(mode in page for mode in runs)


def test_a_collected_run_logs_into_its_own_folder_and_once_on_the_terminal(tmp_path: Path):
    with BatchService(states=lambda number: QUICK) as service:
        code, printed = sweep(tmp_path, service, "provider=openai", "batch.mode=job", "batch.size=6", "repeat=1,2")
    assert code == 0, printed
    for number in range(2):
        done = f"job batch_{number:04d}: completed"
        assert printed.count(done) == 1, printed
        assert done in (tmp_path / "sweep" / str(number) / "runner.log").read_text()
    assert "HTTP Request" not in printed


def test_a_sweep_of_which_a_job_is_refused_while_it_is_collected_fails(tmp_path: Path):
    def states(number: int) -> Sequence[str]:
        return ("validating", "failed") if number == 0 else QUICK

    errors = [{"code": "bad", "line": 3, "message": "line three is bad"}]
    with BatchService(states=states, errors=errors) as service:
        code, printed = sweep(tmp_path, service, "provider=openai", "batch.mode=job", "batch.size=6", "repeat=1,2")
    assert code == 1, printed
    for number, status in enumerate(("FAILED", "FINISHED")):
        assert json.loads((tmp_path / "sweep" / str(number) / "summary.json").read_text())["status"] == status
