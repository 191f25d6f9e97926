"""The parent run of a sweep: the first job creates the run, the comparison ends it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock
from pydantic import TypeAdapter

from runner.config.schema import RunConfig
from runner.errors import RecordError
from runner.record.atomic import atomic_write, refuse_what_is_no_file
from runner.record.folder import SWEEP, RunFolder, as_json
from runner.record.lock import forget_sweep, is_abandoned
from runner.record.manifest import MlflowRunRef, Status
from runner.record.ownership import is_signed, sign
from runner.record.relocate import absolute_uri, base_beside, path_below, sweep_dir_of
from runner.tracking.store import Point, Store, StoreRun, open_store, store_errors
from runner.tracking.view import is_changed_by_hand, shared_view, view_tag

_COMPARED = "comparison.metrics"
"""The tag of a job with the names of the metrics that comparisons have logged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """What a comparison adds to MLflow.

    Attributes:
        note: Markdown, for the parent run.
        table: rows, shown as a table.
        files: artifacts of the parent, with the folder each belongs in ("" is the top).
        curves: metrics of the parent over the batch size: (name, batch size, value).
        metrics: what the comparison adds to each job's metrics, by the job's folder.
        title: of the view of the jobs in the UI.
        swept: the distinct values of each key that was swept.
        columns: the metrics that the view shows.
    """

    title: str
    note: str
    table: Sequence[Mapping[str, str]]
    files: Sequence[tuple[Path, str]]
    curves: Sequence[tuple[str, int, float]]
    metrics: Mapping[Path, Mapping[str, float]]
    swept: Mapping[str, Sequence[object]]
    columns: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parent:
    """What sweep.json holds."""

    uri: str
    experiment: str
    run_id: str
    folder: str | None = None
    """The sweep's folder relative to the working directory of its jobs."""


_ADAPTER = TypeAdapter(_Parent)


def join(directory: Path, store: Store, config: RunConfig) -> str | None:
    """Return the parent run's id; the first job creates the run. Jobs may be processes of their own.

    None where the parent is in another store: a resumed job may be published elsewhere than its sweep.
    """
    path = directory / SWEEP
    with FileLock(f"{path}.lock"):
        if parent := _read_parent(directory):
            return parent.run_id if store.has_run(parent.run_id) else None
        _end_others_abandoned(store)
        run = store.find_or_create_run(str(directory), f"sweep of {config.name}", {"sweep.dir": str(directory)})
        parent = _Parent(
            uri=store.uri, experiment=config.name, run_id=run.run_id, folder=path_below(Path.cwd(), directory)
        )
        content = as_json(asdict(parent))
        atomic_write(path, content)
        sign(path, content)
        return run.run_id


def store_of(directory: Path) -> str | None:
    """Return the address of the store that has a sweep's parent run; None if there is none."""
    parent = _read_parent(directory)
    return parent.uri if parent else None


def is_own(directory: Path) -> bool:
    """Return whether this user's jobs wrote which parent run the sweep has."""
    return is_signed(directory / SWEEP)


def _read_parent(directory: Path) -> _Parent | None:
    """Return what the first job wrote of the parent run; None where the file is absent or damaged.

    The relative path of an embedded store starts where the sweep lies now.
    """
    try:
        refuse_what_is_no_file(directory / SWEEP)
        parent = _ADAPTER.validate_json((directory / SWEEP).read_bytes(), strict=True)
    except (OSError, ValueError, RecordError):
        return None
    base = base_beside(directory, parent.folder) or Path.cwd()
    return parent if base == Path.cwd() else replace(parent, uri=absolute_uri(parent.uri, base))


def end(directory: Path, *, status: Status) -> None:
    """End the parent run without a comparison, unless it has ended or no job created one.

    Raises:
        TrackingError: the store cannot be used.
    """
    if parent := _read_parent(directory):
        with store_errors(parent.uri):
            store = open_store(parent.uri, parent.experiment)
            _end_if_running(store, parent.run_id, status)
        forget_sweep(directory)


def end_abandoned(directory: Path) -> bool:
    """End the parent run of an own sweep whose process is gone; return whether there was one to be ended.

    Raises:
        TrackingError: the store cannot be used.
    """
    is_left = is_own(directory) and is_abandoned(directory)
    if is_left:
        end(directory, status="KILLED")
    return is_left


def end_if_abandoned(job: RunFolder, store: Store) -> None:
    """End the parent run of a job's own sweep whose process is gone: after a kill, nobody else does."""
    sweep_dir = sweep_dir_of(job, job.read_manifest())
    if sweep_dir is None or not is_own(sweep_dir) or not is_abandoned(sweep_dir):
        return
    if (parent := _read_parent(sweep_dir)) and store.has_run(parent.run_id):
        _end_if_running(store, parent.run_id, "KILLED")
        forget_sweep(sweep_dir)


def _end_others_abandoned(store: Store) -> None:
    """End the parent runs that this user's sweeps left running in the experiment, which others may share.

    A tag says where a sweep's folder is: on another machine, or of another user, that folder says nothing of this run.
    """
    for run in store.client.search_runs([store.experiment_id], "attributes.status = 'RUNNING'", max_results=1000):
        directory = Path(run.data.tags.get("sweep.dir", ""))
        parent = _read_parent(directory) if is_own(directory) else None
        if parent and parent.run_id == run.info.run_id and is_abandoned(directory):
            store.client.set_terminated(run.info.run_id, "KILLED")


def _end_if_running(store: Store, run_id: str, status: Status) -> None:
    if store.client.get_run(run_id).info.status == "RUNNING":
        store.client.set_terminated(run_id, status)


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
        run.log_params(report.swept)
        for job, metrics in report.metrics.items():
            if job_run := _run_of(RunFolder(job), store, is_own_sweep=is_own(directory)):
                _replace_metrics(job_run, metrics)
        _share_view(run, report)
        store.client.set_terminated(run.run_id, status)
    forget_sweep(directory)
    return run.reference


def _run_of(job: RunFolder, store: Store, *, is_own_sweep: bool) -> StoreRun | None:
    """Return the MLflow run of a job; None where it has none, or the job's folder came from elsewhere.

    tracking.json has no signature, so that its run id is not obeyed: the run is the one with the job's own key.
    """
    reference = job.read_mlflow_run()
    if reference is None or (is_own_sweep and not job.is_own):
        return None
    try:
        key = job.read_manifest().key
    except RecordError:
        return None
    return store.find_run(key, {store.experiment_id, reference.experiment_id})


def _replace_metrics(run: StoreRun, metrics: Mapping[str, float]) -> None:
    """Log a comparison's metrics of a job in place of those of an earlier comparison.

    MLflow shows the latest value and deletes none: a metric that this comparison lacks becomes NaN.
    """
    data, now = run.store.client.get_run(run.run_id).data, datetime.now(UTC)
    stale = {name: math.nan for name in data.tags.get(_COMPARED, "").split() if name not in metrics}
    values = {**metrics, **stale}
    logged = {name: data.metrics.get(name) for name in values}
    run.log_points(
        Point(name, 0, value, now)
        for name, value in values.items()
        if value != logged[name] and not (math.isnan(value) and math.isnan(logged[name] or 0.0))
    )
    run.set_tags({_COMPARED: " ".join(values)})


def _share_view(run: StoreRun, report: SweepReport) -> None:
    """Save the view of the jobs, unless a person has changed the view meanwhile."""
    client, experiment_id, tag = run.store.client, run.store.experiment_id, view_tag(run.run_id)
    saved = client.get_experiment(experiment_id).tags.get(tag)
    if saved is None or not is_changed_by_hand(saved):
        time_ms = int(client.get_run(run.run_id).info.start_time)
        params = list(report.swept)
        view = shared_view(run.run_id, title=report.title, time_ms=time_ms, params=params, metrics=report.columns)
        client.set_experiment_tag(experiment_id, tag, view)
