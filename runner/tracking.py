"""The only module that imports mlflow: one run per job, a sweep's parent, and what each of them holds."""

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock

from runner import runfiles
from runner.config import RunConfig, TrackingConfig
from runner.errors import ConfigError
from runner.prompts import PromptSet
from runner.records import Completion, Outcome, Prompt

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

_TABLE_ROWS = 1000
"""Rows of the outputs table: what the MLflow UI shows fluently. outcomes.jsonl has all."""
_SAMPLED_TRACES = 16
_STEPS_A_WRITE = 300
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


@dataclass(slots=True)
class TrackedRun:
    """A run that MLflow knows. Step metrics wait in memory and are written in bulk, outside of the measured calls."""

    store: Store
    run_id: str
    _steps: list[tuple[int, int, Mapping[str, float]]] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Where the MLflow UI shows the run, from the server's root on."""
        return f"/#/experiments/{self.store.experiment_id}/runs/{self.run_id}"

    def log_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Note the metrics of one batch."""
        self._steps.append((step, _now_ms(), metrics))

    def log_result(self, summary: runfiles.Summary, environment: Mapping[str, Any]) -> None:
        """Write metrics and tags of a run that has ended."""
        from mlflow.entities import Metric

        now = _now_ms()
        series = [
            Metric(name, value, when, step) for step, when, metrics in self._steps for name, value in metrics.items()
        ]
        series += [Metric(name, value, now, 0) for name, value in summary.metrics.items()]
        for start in range(0, len(series), _STEPS_A_WRITE):
            self.store.client.log_batch(self.run_id, metrics=series[start : start + _STEPS_A_WRITE])
        self._steps.clear()
        _set_tags(self.store, self.run_id, _environment_tags(environment))

    def log_files(self, directory: Path) -> None:
        """Upload the files that a run's folder holds."""
        for path in sorted(directory.iterdir()):
            if path.is_file():
                self.store.client.log_artifact(self.run_id, str(path))
        if (directory / ".hydra").is_dir():
            self.store.client.log_artifacts(self.run_id, str(directory / ".hydra"), "hydra")

    def log_outputs(self, prompts: Sequence[Prompt], outcomes: Iterable[Outcome]) -> None:
        """Log the first outcomes as a table that the UI shows and compares between runs."""
        places = {prompt.id: place for place, prompt in enumerate(prompts)}
        first = sorted(islice(outcomes, _TABLE_ROWS), key=lambda outcome: (places[outcome.prompt_id], outcome.choice))
        rows = [_table_row(outcome, prompts[places[outcome.prompt_id]]) for outcome in first]
        _log_table(self.store, self.run_id, "outputs.json", rows)

    def log_traces(self, config: RunConfig, prompts: Sequence[Prompt], outcomes: Iterable[Outcome], count: int) -> None:
        """Log outcomes as traces with GenAI attributes: all, or a sample spread evenly over the `count` there are."""
        if config.tracking.traces == "off" or count == 0:
            return
        every = 1 if config.tracking.traces == "all" else max(1, count // _SAMPLED_TRACES)
        by_id = {prompt.id: prompt for prompt in prompts}
        for place, outcome in enumerate(outcomes):
            if place % every == 0 and (every == 1 or place // every < _SAMPLED_TRACES):
                _log_trace(self, config, by_id[outcome.prompt_id], outcome)
        _flush_traces()


@contextmanager
def track(
    config: RunConfig, prompts: PromptSet, *, parent_run_id: str | None, tags: Mapping[str, str]
) -> Iterator[TrackedRun]:
    """Open an MLflow run; it ends FINISHED, FAILED or KILLED by itself."""
    store = open_store(config.tracking, config.name)
    tags = {"prompts.sha256": prompts.sha256, "batch.mode": str(config.batch.mode), **tags}
    if parent_run_id is not None:
        tags |= {"mlflow.parentRunId": parent_run_id}
    run = _create_run(store, run_name(config), tags)
    _log_params(store, run, config)
    _log_dataset(store, run, prompts)
    with _ended(store, run):
        yield TrackedRun(store, run)


@contextmanager
def _ended(store: Store, run_id: str) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        _set_tags(store, run_id, {"error.type": type(error).__name__, "error.message": str(error)})
        store.client.set_terminated(run_id, runfiles.ending_of(error))
        raise
    store.client.set_terminated(run_id, "FINISHED")


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


def run_name(config: RunConfig) -> str:
    """Return a name that tells runs apart in a list: provider, model, mode and size."""
    model = config.model.id.rpartition("/")[2]
    return " ".join(dict.fromkeys((config.provider.name, model, str(config.batch.mode), str(config.batch.size))))


def create_parent(config: RunConfig, tags: Mapping[str, str]) -> str:
    """Create the parent run of a sweep and return its id."""
    store = open_store(config.tracking, config.name)
    return _create_run(store, f"sweep of {config.name}", tags)


def finish_parent(
    config: TrackingConfig,
    experiment: str,
    run_id: str,
    *,
    status: runfiles.Status,
    table: Sequence[Mapping[str, Any]],
    note: str,
) -> TrackedRun:
    """End a sweep's parent run with its comparison as table and note."""
    store = open_store(config, experiment)
    _log_table(store, run_id, "comparison.json", table)
    _set_tags(store, run_id, {"mlflow.note.content": note})
    store.client.set_terminated(run_id, status)
    return TrackedRun(store, run_id)


def _mlflow() -> Any:
    for name, value in _MLFLOW_SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow

    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return mlflow


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


def _create_run(store: Store, name: str, tags: Mapping[str, str]) -> str:
    run = store.client.create_run(store.experiment_id, run_name=name, tags=_cut_values(tags))
    return str(run.info.run_id)


def _log_params(store: Store, run_id: str, config: RunConfig) -> None:
    from mlflow.entities import Param

    params = [Param(name, _cut(override_value(value))) for name, value in config.flat().items()]
    store.client.log_batch(run_id, params=params)


def override_value(value: Any) -> str:
    """Write a value as it would stand behind `KEY=` on the command line."""
    if isinstance(value, str):
        return value
    return yaml.safe_dump(
        list(value) if isinstance(value, tuple) else value, default_flow_style=True, width=10**9
    ).split("\n")[0]


def _log_dataset(store: Store, run_id: str, prompts: PromptSet) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=prompts.name,
        digest=prompts.sha256[:36],  # the longest that MLflow keeps
        source_type="local" if "://" not in prompts.source else prompts.source.partition("://")[0],
        source=prompts.source,
        profile=f'{{"num_prompts": {len(prompts.prompts)}}}',
    )
    store.client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "prompts")])])


def _log_table(store: Store, run_id: str, file: str, rows: Sequence[Mapping[str, Any]]) -> None:
    import pandas as pd

    if rows:  # as objects: MLflow looks for images in them, and takes text columns of other dtypes with a warning
        store.client.log_table(run_id, pd.DataFrame(list(rows), dtype=object), file)


def _set_tags(store: Store, run_id: str, tags: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag

    store.client.log_batch(run_id, tags=[RunTag(name, value) for name, value in _cut_values(tags).items()])


def _environment_tags(environment: Mapping[str, Any]) -> dict[str, str]:
    git = environment["git"] or {}
    tags = {f"git.{name}": str(value).lower() for name, value in git.items()}
    tags |= {f"environment.{name}": str(environment[name]) for name in ("python", "os")}
    tags["environment.cpu"] = f"{environment['cpu']['model']} ({environment['cpu']['usable_cores']} cores)"
    tags |= {f"environment.{name}": str(value) for name, value in environment["provider"].items()}
    if "commit" in git:
        tags["mlflow.source.git.commit"] = git["commit"]
    return tags


def _cut_values(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: _cut(value) for name, value in tags.items()}


def _cut(value: str) -> str:
    return value if len(value) <= _LONGEST_VALUE else value[: _LONGEST_VALUE - 1] + "…"


def _table_row(outcome: Outcome, prompt: Prompt) -> dict[str, Any]:
    done = outcome if isinstance(outcome, Completion) else None
    return {
        "prompt_id": outcome.prompt_id,
        "choice": outcome.choice,
        "prompt": prompt.text,
        "text": done.text if done else None,
        "finish_reason": done.finish_reason if done else None,
        "input_tokens": done.usage.input_tokens if done else None,
        "output_tokens": done.usage.output_tokens if done else None,
        "latency_s": outcome.timing.latency_s,
        "batch": outcome.batch,
        "error": None if isinstance(outcome, Completion) else f"{outcome.error.type}: {outcome.error.message}",
    }


def _log_trace(run: TrackedRun, config: RunConfig, prompt: Prompt, outcome: Outcome) -> None:
    """Log one outcome after the fact. Attribute names: OpenTelemetry semantic conventions for generative AI."""
    import mlflow

    start_ns = int(outcome.timing.started_at.timestamp() * 1e9)
    span = mlflow.start_span_no_context(
        name=f"chat {config.model.id}",
        span_type="CHAT_MODEL",
        inputs={"messages": [{"role": message.role, "content": message.content} for message in prompt.messages]},
        attributes=_request_attributes(config) | _response_attributes(outcome),
        metadata={"mlflow.sourceRun": run.run_id},
        experiment_id=run.store.experiment_id,
        start_time_ns=start_ns,
    )
    end_ns = start_ns + int(outcome.timing.latency_s * 1e9)
    if isinstance(outcome, Completion):
        message = {"role": "assistant", "content": outcome.text}
        choice = {"index": outcome.choice, "finish_reason": outcome.finish_reason, "message": message}
        span.end(outputs={"choices": [choice]}, end_time_ns=end_ns)
    else:
        span.end(
            outputs={"error": f"{outcome.error.type}: {outcome.error.message}"},
            status="ERROR",
            end_time_ns=end_ns,
        )


def _request_attributes(config: RunConfig) -> dict[str, Any]:
    sent = {name: getattr(config.generation, name) for name in ("max_tokens", "temperature", "top_p", "top_k")}
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": config.provider.name,
        "gen_ai.request.model": config.model.id,
        "gen_ai.request.seed": config.seed,
        "gen_ai.request.choice.count": config.generation.n,
        "gen_ai.request.stop_sequences": list(config.generation.stop_sequences),
        "batch.mode": config.batch.mode,
        "batch.size": config.batch.size,
    }
    return attributes | {f"gen_ai.request.{name}": value for name, value in sent.items() if value is not None}


def _response_attributes(outcome: Outcome) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "prompt_id": outcome.prompt_id,
        "batch": outcome.batch,
        "attempts": outcome.attempts,
    }
    if outcome.timing.time_to_first_token_s is not None:
        attributes["gen_ai.response.time_to_first_chunk"] = outcome.timing.time_to_first_token_s
    if isinstance(outcome, Completion):
        usage = outcome.usage
        attributes |= {
            "gen_ai.response.model": outcome.model,
            "gen_ai.response.finish_reasons": [outcome.finish_reason],
            "gen_ai.usage.input_tokens": usage.input_tokens,
            "gen_ai.usage.output_tokens": usage.output_tokens,
            "mlflow.chat.tokenUsage": {
                "input_tokens": usage.input_tokens,
                "output_tokens": usage.output_tokens,
                "total_tokens": usage.input_tokens + usage.output_tokens,
            },
        }
    else:
        attributes["error.type"] = outcome.error.type
    return attributes


def _flush_traces() -> None:
    import mlflow

    mlflow.flush_trace_async_logging()


def _now_ms() -> int:
    return int(time.time() * 1000)


def _python() -> str:
    """Return the running interpreter as a short path where it is below the working directory."""
    executable, here = Path(sys.executable), Path.cwd()
    return str(executable.relative_to(here)) if executable.is_relative_to(here) else str(executable)
