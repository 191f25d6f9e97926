"""A sweep: one parent run in MLflow, made by whichever job comes first, and the comparison at the end."""

import json
from pathlib import Path

import yaml
from filelock import FileLock

from runner import runfiles
from runner.comparison.table import Comparison, Job, compare
from runner.config import RunConfig, TrackingConfig
from runner.tracking.run import TrackedRun, create_parent, finish_parent

_PARENT = "sweep.json"


def join(directory: Path, config: RunConfig) -> str:
    """Return the parent run's id, creating the run if this job is the first; jobs may be processes."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / _PARENT
    with FileLock(f"{path}.lock"):
        if not path.exists():
            run_id = create_parent(config, {"sweep.dir": str(directory)})
            parent = {"mlflow_run_id": run_id, "name": config.name, "tracking": config.tracking.model_dump()}
            path.write_text(json.dumps(parent, indent=2) + "\n", encoding="utf-8")
        return str(json.loads(path.read_text(encoding="utf-8"))["mlflow_run_id"])


def finish(directory: Path, jobs: list[Job], comparison: Comparison, *, interrupted: bool) -> TrackedRun | None:
    """End the parent run, if any job got as far as having one."""
    path = directory / _PARENT
    if not path.exists():
        return None
    parent = json.loads(path.read_text(encoding="utf-8"))
    return finish_parent(
        TrackingConfig(**parent["tracking"]),
        parent["name"],
        parent["mlflow_run_id"],
        status=_status(jobs, interrupted),
        table=[dict(zip(comparison.columns, row, strict=True)) for row in comparison.rows],
        note=_note(comparison),
    )


def read_jobs(directory: Path) -> list[Job]:
    """Return the jobs of a sweep directory that ran or tried to, in their order."""
    folders = [folder for folder in directory.iterdir() if folder.name.isdigit()] if directory.is_dir() else []
    return [_read_job(folder) for folder in sorted(folders, key=lambda folder: int(folder.name))]


def compare_jobs(directory: Path) -> tuple[list[Job], Comparison]:
    """Return a sweep's jobs and their comparison."""
    jobs = read_jobs(directory)
    return jobs, compare(jobs)


def _read_job(folder: Path) -> Job:
    overrides = folder / ".hydra" / "overrides.yaml"
    return Job(
        number=int(folder.name),
        config=runfiles.read_config(folder),
        overrides=tuple(yaml.safe_load(overrides.read_text(encoding="utf-8")) or ()) if overrides.exists() else (),
        summary=runfiles.read_summary(folder),
    )


def _status(jobs: list[Job], interrupted: bool) -> runfiles.Status:
    if interrupted:
        return "KILLED"
    return "FINISHED" if all(job.summary and job.summary.status == "FINISHED" for job in jobs) else "FAILED"


def _note(comparison: Comparison) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = tuple("---" if place < comparison.text_columns else "--:" for place in range(len(comparison.columns)))
    return "\n".join(line(cells) for cells in (comparison.columns, rule, *comparison.rows))
