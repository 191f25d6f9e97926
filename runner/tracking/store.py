"""The MLflow store: opened once per run, created if it is not there, and written in few calls."""

import getpass
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from runner.config import TrackingConfig
from runner.errors import ConfigError

if TYPE_CHECKING:
    from mlflow import MlflowClient

_MLFLOW_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_MODEL_CATALOG_URI": "",  # else every first trace of a model asks github.com for its price
    "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",
}
"""A benchmark reaches nothing but its provider and its store. Yours win, where the environment has them."""
_LONGEST_VALUE = 6000
"""MLflow's limit for params and tags; config.yaml has long values whole."""


@dataclass(frozen=True, slots=True)
class Store:
    """An MLflow store with one experiment opened in it."""

    client: "MlflowClient"
    uri: str
    experiment_id: str


def open_store(config: TrackingConfig, experiment: str) -> Store:
    """Connect to the store, creating an embedded one and the experiment if they are not there.

    Raises:
        ConfigError: the store cannot be opened or the experiment cannot be used.
    """
    mlflow = _mlflow()
    with _store_lock(config.uri):
        try:
            mlflow.set_tracking_uri(config.uri)
            client = mlflow.MlflowClient(tracking_uri=config.uri)
            found = client.get_experiment_by_name(experiment)
            if found is not None and found.lifecycle_stage == "deleted":
                raise ConfigError(
                    f"name={experiment!r}: this MLflow experiment is deleted: restore it or choose another name"
                )
            experiment_id = found.experiment_id if found else client.create_experiment(
                experiment, artifact_location=_artifact_location(config.uri)
            )  # fmt: skip
        except mlflow.exceptions.MlflowException as error:
            raise ConfigError(f"tracking.uri={config.uri!r} cannot be used: {error.message}") from error
    return Store(client, config.uri, experiment_id)


def ui_command(store: Store) -> str:
    """Return the command that serves this store in a browser."""
    if store.uri.startswith("http"):
        return f"open {store.uri}"
    return f"{_python()} -m mlflow ui --port 5000 --backend-store-uri {store.uri}"


def create_run(store: Store, name: str, tags: Mapping[str, str]) -> str:
    """Create a run and return its id."""
    origin = {"mlflow.source.name": "python -m runner", "mlflow.source.type": "LOCAL", "mlflow.user": _user()}
    run = store.client.create_run(store.experiment_id, run_name=name, tags=_cut_values(origin | dict(tags)))
    return str(run.info.run_id)


def set_tags(store: Store, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags, all in one call."""
    from mlflow.entities import RunTag

    store.client.log_batch(run_id, tags=[RunTag(name, value) for name, value in _cut_values(tags).items()])


def log_table(store: Store, run_id: str, file: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Log rows as a table that the UI shows and compares between runs."""
    import pandas as pd

    if rows:  # as objects: MLflow looks for images in them, and takes text columns of other dtypes with a warning
        store.client.log_table(run_id, pd.DataFrame(list(rows), dtype=object), file)


def _cut_values(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: cut(value) for name, value in tags.items()}


def cut(value: str) -> str:
    """Return what MLflow can keep of a value."""
    return value if len(value) <= _LONGEST_VALUE else value[: _LONGEST_VALUE - 1] + "…"


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


def _store_lock(uri: str) -> Any:
    """Let one process at a time create an embedded store: its migrations do not bear a race."""
    path = _sqlite_path(uri)
    if path is None:
        return nullcontext()
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{path}.lock")


def _sqlite_path(uri: str) -> Path | None:
    prefix = "sqlite:///"
    return Path(uri.removeprefix(prefix)).absolute() if uri.startswith(prefix) else None


def _artifact_location(uri: str) -> str | None:
    """Keep artifacts beside an embedded store; MLflow's own default is ./mlruns in the working directory."""
    path = _sqlite_path(uri)
    return (path.parent / "artifacts").as_uri() if path else None


def _python() -> str:
    """Return the running interpreter as a short path where it is below the working directory."""
    executable, here = Path(sys.executable), Path.cwd()
    return str(executable.relative_to(here)) if executable.is_relative_to(here) else str(executable)
