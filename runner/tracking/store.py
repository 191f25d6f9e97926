"""The MLflow store: opened once per run, created if it is not there, and written in few calls."""

import getpass
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from runner.errors import TrackingError
from runner.tracking.uri import sqlite_path

if TYPE_CHECKING:
    from mlflow import MlflowClient

_MLFLOW_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_MODEL_CATALOG_URI": "",  # else every first trace of a model asks github.com for its price
    "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # a server that is away is tried again later, by whoever waits for it
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
"""A benchmark reaches nothing but its provider and its store. Yours win, where the environment has them."""
KEY_TAG = "runner.key"
"""The tag by which a run's folder is found again among MLflow's runs."""
_LONGEST_MESSAGE = 200
_LONGEST_NAME = 250
_LONGEST_PARAM, _LONGEST_TAG = 6000, 8000
"""MLflow's limits; config.yaml has long values whole."""


@dataclass(frozen=True, slots=True)
class Store:
    """An MLflow store with one experiment opened in it."""

    client: "MlflowClient"
    uri: str
    experiment_id: str


def open_store(uri: str, experiment: str) -> Store:
    """Connect to the store, creating an embedded one and the experiment if they are not there.

    Raises:
        TrackingError: the store cannot be opened or the experiment cannot be used.
    """
    with _store_lock(uri), store_errors(uri):
        client = connect(uri)
        found = client.get_experiment_by_name(experiment)
        if found is not None and found.lifecycle_stage == "deleted":
            raise TrackingError(
                f"name={experiment!r}: this MLflow experiment is deleted: restore it "
                f"(mlflow experiments restore --experiment-id {found.experiment_id})"
            )
        experiment_id = found.experiment_id if found else client.create_experiment(
            experiment, artifact_location=_artifact_location(uri)
        )  # fmt: skip
    return Store(client, uri, experiment_id)


def connect(uri: str) -> "MlflowClient":
    """Return a client of the store. Raises what MLflow raises: see `store_errors`."""
    mlflow = _mlflow()
    mlflow.set_tracking_uri(uri)
    client: MlflowClient = mlflow.MlflowClient(tracking_uri=uri)
    return client


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Raise TrackingError for whatever MLflow, its database or the way to its server raises."""
    import requests
    import sqlalchemy.exc

    mlflow = _mlflow()
    try:
        yield
    except mlflow.exceptions.MlflowException as error:
        raise TrackingError(f"MLflow at {uri}: {_first_line(error.message)}") from error
    except (requests.RequestException, sqlalchemy.exc.SQLAlchemyError, OSError) as error:
        raise TrackingError(f"MLflow at {uri}: {_first_line(error)}") from error


def find_or_create_run(store: Store, key: str, name: str, tags: Mapping[str, str]) -> str:
    """Return the id of the run that bears this key as a tag, creating it if there is none.

    Asked first, because a run whose creation was answered too late, or to a dead process, is there all the same.
    """
    found = store.client.search_runs([store.experiment_id], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    origin = {"mlflow.source.name": "python -m runner", "mlflow.source.type": "LOCAL", "mlflow.user": _user()}
    run = store.client.create_run(
        store.experiment_id, run_name=name[:_LONGEST_NAME], tags=_cut_values({KEY_TAG: key} | origin | dict(tags))
    )
    return str(run.info.run_id)


def set_tags(store: Store, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags, all in one call."""
    from mlflow.entities import RunTag

    store.client.log_batch(run_id, tags=[RunTag(name, value) for name, value in _cut_values(tags).items()])


def log_table(store: Store, run_id: str, file: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Log rows as a table that the UI shows and compares between runs; an earlier one of that name is replaced."""
    if not rows:
        return
    columns = list(rows[0])
    table = {"columns": columns, "data": [[_cell(row[column]) for column in columns] for row in rows]}
    store.client.log_text(run_id, json.dumps(table), file)  # MLflow's own log_table appends to what is there
    store.client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps([{"path": file, "type": "table"}]))


def log_points(store: Store, run_id: str, points: Iterable[tuple[str, int, float]]) -> None:
    """Write points with a time that is always the same: written again, they are the same points."""
    from mlflow.entities import Metric

    began_ms = store.client.get_run(run_id).info.start_time
    store.client.log_batch(run_id, metrics=[Metric(name, value, began_ms, step) for name, step, value in points])


def _cell(value: Any) -> Any:
    return storable(value) if isinstance(value, str) else value


def _cut_values(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: cut(value, _LONGEST_TAG) for name, value in tags.items()}


def storable(text: str) -> str:
    """Return what every store and reader can bear of a text: no lone surrogates, no NUL. outcomes.jsonl has all."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


def cut(value: str, most: int = _LONGEST_PARAM) -> str:
    """Return what MLflow can keep of a value."""
    return value if len(value) <= most else value[: most - 1] + "…"


def _mlflow() -> Any:
    for name, value in _MLFLOW_SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow

    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return mlflow


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return str(os.getuid())


def _first_line(error: object) -> str:
    line = (str(error).strip() or type(error).__name__).partition("\n")[0]
    return line if len(line) <= _LONGEST_MESSAGE else f"{line[:_LONGEST_MESSAGE]}…"


def _store_lock(uri: str) -> Any:
    """Let one process at a time create an embedded store: its migrations do not bear a race."""
    path = sqlite_path(uri)
    if path is None:
        return nullcontext()
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{path}.lock")


def _artifact_location(uri: str) -> str | None:
    """Keep artifacts beside an embedded store; MLflow's own default is ./mlruns in the working directory."""
    path = sqlite_path(uri)
    return (path.parent / "artifacts").as_uri() if path else None
