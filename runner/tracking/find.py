"""Finds the folder of an MLflow run."""

from pathlib import Path

from runner.errors import RecordError, TrackingError
from runner.tracking.store import connect, store_errors


def folder_of(run_id: str, uri: str) -> Path:
    """Return the folder of a run, or of a sweep for its parent run.

    Raises:
        RecordError: the store has no such run, or its folder is not on this machine.
    """
    try:
        with store_errors(uri):
            tags = connect(uri).get_run(run_id).data.tags
    except TrackingError as error:
        raise RecordError(
            f"{run_id!r} is neither a folder nor the id of a run in the store ({error}): give the run's folder, or the "
            "store that has the id: --tracking-uri URI"
        ) from None
    folder = tags.get("runner.directory") or tags.get("sweep.dir")
    if folder is None:
        raise RecordError(f"MLflow run {run_id!r} has no folder, so this runner did not make it: give a run's folder")
    if not Path(folder).is_dir():
        raise RecordError(f"MLflow run {run_id!r}: its folder {folder!r} is not on this machine: copy it here first")
    return Path(folder)
