"""The parent run of a sweep: made by whichever job comes first, ended with the comparison."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from runner.config.schema import RunConfig
from runner.record.atomic import atomic_write
from runner.record.folder import RunFolder
from runner.record.manifest import MlflowRunRef, Status
from runner.tracking.store import Store, find_or_create_run, log_points, log_table, open_store, set_tags, store_errors

PARENT = "sweep.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """What a comparison tells MLflow.

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


def join(directory: Path, store: Store, config: RunConfig) -> str:
    """Return the parent run's id, creating the run if this job is the first; jobs may be processes."""
    path = directory / PARENT
    with FileLock(f"{path}.lock"):
        if known := _parent(directory):
            return known["run_id"]
        run_id = find_or_create_run(store, str(directory), f"sweep of {config.name}", {"sweep.dir": str(directory)})
        parent = {"uri": store.uri, "experiment": config.name, "run_id": run_id}
        atomic_write(path, (json.dumps(parent, indent=2) + "\n").encode())
        return run_id


def _parent(directory: Path) -> Mapping[str, str] | None:
    """Return what the first job wrote of the parent run; a file that is damaged is written again, of the same run."""
    try:
        return {str(name): str(value) for name, value in json.loads((directory / PARENT).read_bytes()).items()}
    except (OSError, ValueError, AttributeError):
        return None


def finish(directory: Path, story: SweepReport, *, status: Status) -> MlflowRunRef | None:
    """End the parent run with its comparison; None if no job got as far as making it.

    Raises:
        TrackingError: the store cannot be used.
    """
    parent = _parent(directory)
    if parent is None:
        return None
    run_id = parent["run_id"]
    with store_errors(parent["uri"]):
        store = open_store(parent["uri"], parent["experiment"])
        log_table(store, run_id, "table.json", story.table)
        set_tags(store, run_id, {"mlflow.note.content": story.note})
        for file, folder in story.files:
            store.client.log_artifact(run_id, str(file), folder or None)
        log_points(store, run_id, story.curves)
        for job, values in story.metrics.items():
            if tracked := RunFolder(job).read_mlflow_run():
                log_points(store, tracked.run_id, [(name, 0, value) for name, value in values.items()])
        store.client.set_terminated(run_id, status)
    return MlflowRunRef(uri=store.uri, experiment_id=store.experiment_id, run_id=run_id)
