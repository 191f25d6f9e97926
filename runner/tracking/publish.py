"""Publishes a run folder as an MLflow run. Publishing again replaces what is there and doubles nothing."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from runner.config.parse import parse
from runner.errors import JournalError
from runner.record.folder import CONFIG, ENVIRONMENT, HYDRA, LOG, OUTCOMES, SEGMENTS, SUMMARY, RunFolder
from runner.record.manifest import RunManifest, Summary
from runner.record.prompts import PROMPTS
from runner.record.relocate import sweep_dir_of
from runner.tracking import sweep_run
from runner.tracking.digest import RunDigest, read_digest
from runner.tracking.notes import run_note
from runner.tracking.store import Point, StoreRun, open_store
from runner.tracking.traces import log_traces, read_traced, untraced

_FILES = (CONFIG, PROMPTS, OUTCOMES, SUMMARY, ENVIRONMENT, SEGMENTS, LOG)


def open_run(folder: RunFolder, uri: str, on_connected: Callable[[], object]) -> StoreRun:
    """Create the MLflow run of a folder, or find it, and log its parameters and its prompt set.

    Args:
        folder: the run's.
        uri: of the store.
        on_connected: called when the store has answered for the first time.

    Raises:
        TrackingError: the store cannot be used.
    """
    manifest = folder.read_manifest()
    config = parse(manifest.config)
    store = open_store(uri, config.name)
    on_connected()
    tags = {"prompts.sha256": manifest.prompts["sha256"], "batch.mode": str(config.batch.mode), **manifest.tags}
    tags["runner.directory"] = str(folder.path.absolute())
    if sweep_dir := sweep_dir_of(folder, manifest):
        parent_id = sweep_run.join(sweep_dir, store, config)
        tags |= {"mlflow.parentRunId": parent_id} if parent_id else {}
    run = store.find_or_create_run(manifest.key, manifest.name, tags)
    store.client.update_run(run.run_id, status="RUNNING")
    run.log_params(config.flat())
    _log_dataset(run, manifest)
    with suppress(JournalError):  # a full disk: the run is found by its key, and its end can still be published
        folder.write_mlflow_run(run.reference)
    return run


def publish(run: StoreRun, folder: RunFolder, on_progress: Callable[[], object]) -> None:
    """Publish everything that a folder holds of a run that has ended.

    Args:
        run: the MLflow run.
        folder: the run's, with a summary.
        on_progress: called before each part, and after each trace.

    Raises:
        TrackingError: the store cannot be used; what was published so far stays, and publishing all again doubles
            nothing.
    """
    summary = folder.read_summary()
    assert summary is not None  # noqa: S101 - a run that has ended has one
    manifest, prompts = folder.read_manifest(), folder.read_prompts()
    config = parse(manifest.config)
    traces = config.tracking.traces
    on_progress()
    traced = set[str]() if traces == "off" else read_traced(run)
    digest = read_digest(folder, prompts, config.batch, traced if traces == "sample" else frozenset())
    on_progress()
    run.log_points(_points(digest, summary))
    on_progress()
    note = {"mlflow.note.content": run_note(config, manifest, summary)}
    run.set_tags({**_environment_tags(folder), **_error_tags(run, summary), **_job_tags(folder), **note})
    on_progress()
    _log_files(run, folder)
    on_progress()
    run.log_table("outputs.json", digest.table)
    if traces != "off":
        log_traces(run, config, folder, untraced(config, folder, prompts, digest.untraced, traced), on_progress)
    if summary.status != "SUBMITTED":  # its jobs go on at the service
        run.store.client.set_terminated(run.run_id, summary.status)


def _log_dataset(run: StoreRun, manifest: RunManifest) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = str(manifest.prompts["source"])
    dataset = Dataset(
        name=manifest.prompts["name"],
        digest=manifest.prompts["sha256"][:36],  # the longest that MLflow keeps
        source_type="local" if "://" not in source else source.partition("://")[0],
        source=source,
        profile=f'{{"num_prompts": {manifest.prompts["count"]}}}',
    )
    run.store.client.log_inputs(run.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "prompts")])])


def _points(digest: RunDigest, summary: Summary) -> list[Point]:
    """Return curves and metrics with times from the record: points that are logged again are the same rows."""
    return [
        *(
            Point(name, step.number, value, step.ended_at)
            for step in digest.steps
            for name, value in step.metrics.items()
        ),
        *(Point(name, step, value) for name, pairs in summary.series.items() for step, value in pairs),
        *(Point(name, 0, value, digest.ended_at) for name, value in summary.metrics.items()),
    ]


def _log_files(run: StoreRun, folder: RunFolder) -> None:
    for name in _FILES:
        if _is_file(folder.path / name):
            run.store.client.log_artifact(run.run_id, str(folder.path / name))
    for path in sorted((folder.path / HYDRA).glob("*.yaml")):
        if _is_file(path) and not path.parent.is_symlink():
            run.store.client.log_artifact(run.run_id, str(path), "hydra")


def _is_file(path: Path) -> bool:
    """Return whether a path is a file itself: what a link points to is no part of the record."""
    return path.is_file() and not path.is_symlink()


def _environment_tags(folder: RunFolder) -> dict[str, str]:
    environment = folder.read_environment()
    if not environment:
        return {}
    git = environment["git"] or {}
    tags = {f"git.{name}": str(value).lower() for name, value in git.items()}
    tags |= {f"environment.{name}": str(environment[name]) for name in ("python", "os")}
    tags["environment.cpu"] = f"{environment['cpu']['model']} ({environment['cpu']['usable_cores']} cores)"
    tags |= {f"environment.{name}": str(value) for name, value in environment["provider"].items()}
    if "commit" in git:
        tags["mlflow.source.git.commit"] = git["commit"]
    return tags


def _job_tags(folder: RunFolder) -> dict[str, str]:
    """Return the states of the run's batch jobs in the service's words."""
    states = dict.fromkeys(job.state or "not created" for job in folder.read_jobs())
    return {"job.state": ", ".join(states)} if states else {}


def _error_tags(run: StoreRun, summary: Summary) -> dict[str, str]:
    """Return why the run ended early, if it did; delete the tags that an earlier end left."""
    if summary.error is not None:
        return {f"error.{name}": text for name, text in summary.error.items()}
    for name in run.store.client.get_run(run.run_id).data.tags:
        if name.startswith("error."):
            run.store.client.delete_tag(run.run_id, name)
    return {}
