"""The parent run of a sweep: made by whichever job comes first, ended with the comparison."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from runner.config import RunConfig
from runner.runfiles import Status, Tracked
from runner.tracking.store import Store, find_or_create_run, log_table, open_store, set_tags, store_errors

_PARENT = "sweep.json"


def join(directory: Path, store: Store, config: RunConfig) -> str:
    """Return the parent run's id, creating the run if this job is the first; jobs may be processes."""
    path = directory / _PARENT
    with FileLock(f"{path}.lock"):
        if path.exists():
            return str(json.loads(path.read_text(encoding="utf-8"))["run_id"])
        run_id = find_or_create_run(store, str(directory), f"sweep of {config.name}", {"sweep.dir": str(directory)})
        parent = {"uri": store.uri, "experiment": config.name, "run_id": run_id}
        path.write_text(json.dumps(parent, indent=2) + "\n", encoding="utf-8")
        return run_id


def finish(directory: Path, *, status: Status, table: Sequence[Mapping[str, Any]], note: str) -> Tracked | None:
    """End the parent run with its comparison as table and note; None if no job got as far as making it.

    Raises:
        TrackingError: the store cannot be used.
    """
    path = directory / _PARENT
    if not path.exists():
        return None
    parent = json.loads(path.read_text(encoding="utf-8"))
    with store_errors(parent["uri"]):
        store = open_store(parent["uri"], parent["experiment"])
        log_table(store, parent["run_id"], "comparison.json", table)
        set_tags(store, parent["run_id"], {"mlflow.note.content": note})
        store.client.set_terminated(parent["run_id"], status)
    return Tracked(uri=store.uri, experiment_id=store.experiment_id, run_id=parent["run_id"])
