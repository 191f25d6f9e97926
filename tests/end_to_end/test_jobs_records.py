"""jobs.json that is damaged, or that another has written: what it names is neither submitted twice nor removed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner import app
from runner.cli.compose import compose_config
from runner.config.waits import Waits
from runner.errors import RecordError, RunnerError
from tests.factories import summary_of
from tests.servers.batch_service import BatchService
from tests.servers.openai_server import KEY

PROMPTS = 4
WAITS = Waits(min_poll_s=0.01, max_poll_s=0.02)
QUICK = ("in_progress", "completed")
Jobs = list[dict[str, Any]]


def detached(service: BatchService, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a run of two jobs of two prompts at the service."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    prompts = folder / "prompts.txt"
    prompts.write_text("".join(f"say {number}\n" for number in range(PROMPTS)))
    given = ["prompts=file", f"prompts.path={prompts}", "batch.mode=job", "batch.size=2", "batch.detach=true"]
    app.run(compose_config([*service.overrides(), *given, "tracking=off"]), folder / "run", waits=WAITS)


def edit(folder: Path, change: Callable[[Jobs], object]) -> None:
    path = folder / "run" / "jobs.json"
    jobs = json.loads(path.read_text())
    change(jobs)
    path.write_text(json.dumps(jobs))


DAMAGES: dict[str, Callable[[Jobs], object]] = {
    "a prompt that the run does not have": lambda jobs: jobs[1].update(prompts=[[2, 4]]),
    "more prompts than memory": lambda jobs: jobs[1].update(prompts=[[2, 10**15]]),
    "a prompt below 0": lambda jobs: jobs[1].update(prompts=[[-1, 3]]),
    "a range that ends before it begins": lambda jobs: jobs[1].update(prompts=[[3, 2]]),
    "a prompt of two open jobs": lambda jobs: jobs[1].update(prompts=[[1, 3]]),
    "a number twice": lambda jobs: jobs[1].update(number=0),
    "a time without zone": lambda jobs: jobs[1].update(planned_at="2026-01-01T00:00:00"),
    "an id that is a number": lambda jobs: jobs[1].update(job_id=5),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_jobs_that_cannot_be_the_runs_own_are_refused_before_any_request(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with BatchService(states=lambda number: QUICK) as service:
        detached(service, tmp_path, monkeypatch)
        edit(tmp_path, DAMAGES[damage])
        before = service.steps.copy()
        with pytest.raises(RecordError, match=r"jobs\.json"):
            app.resume(tmp_path / "run", waits=WAITS)
        assert service.steps == before


@pytest.mark.parametrize("is_own", [True, False])
def test_files_that_another_persons_record_names_are_not_removed(
    is_own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with BatchService(states=lambda number: QUICK) as service:
        detached(service, tmp_path, monkeypatch)
        if not is_own:
            (tmp_path / "run" / "run.hmac").unlink()
        app.resume(tmp_path / "run", waits=WAITS)
        assert summary_of(tmp_path / "run").metrics["completed_prompts"] == PROMPTS
        assert len(service.deleted) == (4 if is_own else 0), "the requests and the results of two jobs"


def test_no_job_is_created_over_a_file_that_another_persons_record_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with BatchService(states=lambda number: QUICK) as service:
        detached(service, tmp_path, monkeypatch)
        (tmp_path / "run" / "run.hmac").unlink()
        service.jobs.clear()
        edit(tmp_path, lambda jobs: jobs[0].update(job_id=None, source="file-of-another"))
        with pytest.raises(RunnerError):  # the other job is gone
            app.resume(tmp_path / "run", waits=WAITS)
        (job,) = service.jobs.values()
        assert [line["body"]["messages"][-1]["content"] for line in job.requests] == ["say 0", "say 1"]
