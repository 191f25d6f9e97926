"""The MLflow store: opened once per run, created where absent, and written in few calls."""

import getpass
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from types import ModuleType
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock

from runner.errors import TrackingError
from runner.record.manifest import MlflowRunRef
from runner.text import first_line, shorten
from runner.tracking.uri import sqlite_path

if TYPE_CHECKING:
    from mlflow import MlflowClient

_MLFLOW_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_MODEL_CATALOG_URI": "",  # else the first trace of each model requests the model's price from github.com
    "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the worker tries an unreachable server again later
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
"""A benchmark reaches nothing but its provider and its store. Values in the environment win."""
_KEY_TAG = "runner.key"
"""The tag by which a run's folder is found again among MLflow's runs."""
_MAX_PARAM = 6000
"""Characters of a parameter that MLflow keeps; config.yaml has long values whole."""
_KIND_TAG, _KIND = "mlflow.experimentKind", "custom_model_development"
"""The kind whose page is the list of runs in versions of MLflow's UI that read the tag; without it, traces."""
_MAX_TAG, _MAX_NAME, _MAX_MESSAGE = 8000, 250, 200
_MAX_METRICS_PER_CALL = 1000
"""MLflow's limit."""


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a metric.

    Attributes:
        name: the metric's.
        step: the point's position in the metric's curve.
        value: the metric's.
        time: of the value; None is the start of the MLflow run.
    """

    name: str
    step: int
    value: float
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Store:
    """An MLflow store with one experiment opened in it."""

    client: "MlflowClient"
    uri: str
    experiment_id: str

    def find_or_create_run(self, key: str, name: str, tags: Mapping[str, str]) -> "StoreRun":
        """Return the run that has this key as a tag, creating the run if there is none.

        A run may exist although its creator got no answer: the answer was late, or the process had died. A tag that has
        changed since, as the place of a folder that was moved, is written anew.
        """
        key = _searchable(key)
        runs = self.client.search_runs([self.experiment_id], _with_key(key), max_results=1)
        if runs:
            found, kept = StoreRun(self, str(runs[0].info.run_id)), runs[0].data.tags
            if changed := {name: value for name, value in tags.items() if name in kept and kept[name] != value}:
                found.set_tags(changed)
            return found
        source = {"mlflow.source.name": "python -m runner", "mlflow.source.type": "LOCAL", "mlflow.user": _user()}
        run_tags = {name: shorten(value, _MAX_TAG) for name, value in ({_KEY_TAG: key} | source | dict(tags)).items()}
        run = self.client.create_run(self.experiment_id, run_name=name[:_MAX_NAME], tags=run_tags)
        return StoreRun(self, str(run.info.run_id))

    def find_run(self, key: str, experiment_ids: Iterable[str]) -> "StoreRun | None":
        """Return the run that has this key as a tag; None if these experiments have none."""
        runs = self.client.search_runs([*experiment_ids], _with_key(_searchable(key)), max_results=1)
        return StoreRun(self, str(runs[0].info.run_id)) if runs else None

    def has_run(self, run_id: str) -> bool:
        """Return whether the store has a run with this id."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return True


@dataclass(frozen=True, slots=True)
class StoreRun:
    """One run in a store. Writing to it again replaces what is there."""

    store: Store
    run_id: str

    @property
    def reference(self) -> MlflowRunRef:
        """Which MLflow run this is, for a file."""
        return MlflowRunRef(uri=self.store.uri, experiment_id=self.store.experiment_id, run_id=self.run_id)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags, all in one call."""
        from mlflow.entities import RunTag

        run_tags = [RunTag(name, shorten(value, _MAX_TAG)) for name, value in tags.items()]
        self.store.client.log_batch(self.run_id, tags=run_tags)

    def log_params(self, values: Mapping[str, object]) -> None:
        """Log parameters, with values as a command line has them behind `KEY=`. MLflow changes none that is there."""
        from mlflow.entities import Param

        logged = self.store.client.get_run(self.run_id).data.params
        texts = {name: shorten(_override_value(value), _MAX_PARAM) for name, value in values.items()}
        params = [Param(name, text) for name, text in texts.items() if name not in logged]
        self.store.client.log_batch(self.run_id, params=params)

    def log_table(self, file: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log rows as a table that the UI shows and compares between runs; an earlier one of that name is replaced."""
        if not rows:
            return
        columns = list(rows[0])
        cells = [[row[column] for column in columns] for row in rows]
        data = [[storable(cell) if isinstance(cell, str) else cell for cell in row] for row in cells]
        table = json.dumps({"columns": columns, "data": data})
        self.store.client.log_text(self.run_id, table, file)  # MLflow's own log_table appends to what is there
        artifacts = json.dumps([{"path": file, "type": "table"}])
        self.store.client.set_tag(self.run_id, "mlflow.loggedArtifacts", artifacts)

    def log_points(self, points: Iterable[Point]) -> None:
        """Log points of metrics. A point with the same step, value and time as one that is there stays one point."""
        from mlflow.entities import Metric

        start_ms = int(self.store.client.get_run(self.run_id).info.start_time)
        metrics = (
            Metric(point.name, point.value, int(point.time.timestamp() * 1000) if point.time else start_ms, point.step)
            for point in points
        )
        while batch := list(islice(metrics, _MAX_METRICS_PER_CALL)):
            self.store.client.log_batch(self.run_id, metrics=batch)


def open_store(uri: str, experiment: str) -> Store:
    """Connect to the store, creating an embedded one and the experiment if they are not there.

    Raises:
        TrackingError: the store cannot be opened or the experiment cannot be used.
    """
    path = sqlite_path(uri)
    with _store_lock(uri), store_errors(uri):
        client = connect(uri)
        known = client.get_experiment_by_name(experiment)
        if known is not None and known.lifecycle_stage == "deleted":
            raise TrackingError(
                f"name={experiment!r}: this MLflow experiment is deleted: restore it "
                f"(mlflow experiments restore --experiment-id {known.experiment_id})"
            )
        if known is not None:
            if _KIND_TAG not in known.tags:
                client.set_experiment_tag(known.experiment_id, _KIND_TAG, _KIND)
            return Store(client, uri, known.experiment_id)
        # MLflow's default for an embedded store is ./mlruns in the working directory
        artifacts = (path.parent / "artifacts").as_uri() if path else None
        created = client.create_experiment(experiment, artifact_location=artifacts, tags={_KIND_TAG: _KIND})
        return Store(client, uri, created)


def connect(uri: str) -> "MlflowClient":
    """Return a client of the store. Raises what MLflow raises: see `store_errors`."""
    mlflow = _import_mlflow()
    mlflow.set_tracking_uri(uri)
    client: MlflowClient = mlflow.MlflowClient(tracking_uri=uri)
    return client


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Raise TrackingError for whatever MLflow, its database or the way to its server raises."""
    import requests
    import sqlalchemy.exc

    mlflow = _import_mlflow()
    expected = (mlflow.exceptions.MlflowException, requests.RequestException, sqlalchemy.exc.SQLAlchemyError, OSError)
    try:
        yield
    except expected as error:
        raise TrackingError(f"MLflow at {uri}: {shorten(first_line(error), _MAX_MESSAGE)}") from error


def storable(text: str) -> str:
    """Return the text without lone surrogates and NUL, which not every store and reader takes."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


def _with_key(searchable_key: str) -> str:
    """Return the filter of runs that have this key."""
    return f"tags.`{_KEY_TAG}` = '{searchable_key}'"


def _searchable(key: str) -> str:
    """Return the key, or its digest where a filter of MLflow cannot quote it: filters have no escape for a quote."""
    return (
        key if re.fullmatch(r"[^'\"`\\\n]*", key) else hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    )


def _import_mlflow() -> ModuleType:
    for name, value in _MLFLOW_SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow

    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return mlflow


def _override_value(value: object) -> str:
    """Return a value as a command line has it behind `KEY=`."""
    if isinstance(value, str):
        return value
    return yaml.safe_dump(
        list(value) if isinstance(value, tuple) else value, default_flow_style=True, width=10**9
    ).split("\n")[0]


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return str(os.getuid())


def _store_lock(uri: str) -> AbstractContextManager[object]:
    """Return a lock under which one process at a time creates an embedded store: its migrations are not concurrent."""
    path = sqlite_path(uri)
    if path is None:
        return nullcontext()
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{path}.lock")
