"""A sweep: its jobs, and their comparison at the end."""

from pathlib import Path

import yaml

from runner import runfiles
from runner.comparison.table import Comparison, Job, compare
from runner.runfiles import Tracked
from runner.tracking import sweep as parent


def finish(directory: Path, jobs: list[Job], comparison: Comparison, *, interrupted: bool) -> Tracked | None:
    """End the parent run, if any job got as far as having one.

    Raises:
        TrackingError: the store cannot be used.
    """
    table = [dict(zip(comparison.columns, row, strict=True)) for row in comparison.rows]
    return parent.finish(directory, status=_status(jobs, interrupted), table=table, note=_note(comparison))


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
