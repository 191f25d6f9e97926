"""The parent run of a sweep: the first job creates the run, the comparison ends it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from runner.config.schema import RunConfig
from runner.record.atomic import atomic_write
from runner.record.folder import SWEEP, RunFolder
from runner.record.manifest import MlflowRunRef, Status
from runner.tracking.store import Point, Store, StoreRun, open_store, store_errors


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """What a comparison adds to MLflow.

    Attributes:
        note: Markdown, for the parent run.
        table: rows, shown as a table.
        files: artifacts of the parent, with the folder each belongs in ("" is the top).
        curves: metrics of the parent over the batch size: (name, batch size, value).
        metrics: what the comparison adds to each job's metrics, by the job's folder.
    """

    note: str
    table: Sequence[Mapping[str, str]]
    files: Sequence[tuple[Path, str]]
    curves: Sequence[tuple[str, int, float]]
    metrics: Mapping[Path, Mapping[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parent:
    """What sweep.json holds."""

    uri: str
    experiment: str
    run_id: str


def join(directory: Path, store: Store, config: RunConfig) -> str:
    """Return the parent run's id; the first job creates the run. Jobs may be processes of their own."""
    path = directory / SWEEP
    with FileLock(f"{path}.lock"):
        if parent := _read_parent(directory):
            return parent.run_id
        run = store.find_or_create_run(str(directory), f"sweep of {config.name}", {"sweep.dir": str(directory)})
        parent = _Parent(uri=store.uri, experiment=config.name, run_id=run.run_id)
        atomic_write(path, (json.dumps(asdict(parent), indent=2) + "\n").encode())
        return run.run_id


def _read_parent(directory: Path) -> _Parent | None:
    """Return what the first job wrote of the parent run; None where the file is absent or damaged."""
    try:
        return _Parent(**json.loads((directory / SWEEP).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def finish(directory: Path, report: SweepReport, *, status: Status) -> MlflowRunRef | None:
    """End the parent run with its comparison; None if no job created a parent run.

    Raises:
        TrackingError: the store cannot be used.
    """
    parent = _read_parent(directory)
    if parent is None:
        return None
    with store_errors(parent.uri):
        store = open_store(parent.uri, parent.experiment)
        run = StoreRun(store, parent.run_id)
        run.log_table("table.json", report.table)
        run.set_tags({"mlflow.note.content": report.note})
        for file, folder in report.files:
            store.client.log_artifact(run.run_id, str(file), folder or None)
        run.log_points(Point(*point) for point in report.curves)
        for job, metrics in report.metrics.items():
            if reference := RunFolder(job).read_mlflow_run():
                points = [Point(name, 0, value) for name, value in metrics.items()]
                StoreRun(store, reference.run_id).log_points(points)
        store.client.set_terminated(run.run_id, status)
    return run.reference
