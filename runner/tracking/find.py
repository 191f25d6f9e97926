"""From an MLflow run id to the folder that the run or the sweep left."""

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
            f"{run_id!r} is neither a folder nor a run that MLflow knows: {error}. Give the run's folder, or its id "
            "and the store that has it: --tracking-uri URI"
        ) from None
    folder = tags.get("runner.directory") or tags.get("sweep.dir")
    if folder is None or not Path(folder).is_dir():
        where = f"its folder {folder} is not on this machine" if folder else "it is not a run of this runner"
        raise RecordError(f"MLflow run {run_id!r}: {where}")
    return Path(folder)
