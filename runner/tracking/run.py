"""One MLflow run per job, a parent per sweep, and what each of them holds."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from runner import runfiles
from runner.config import RunConfig, TrackingConfig
from runner.prompts import PromptSet
from runner.records import Completion, Outcome, Prompt
from runner.tracking.store import Store, create_run, cut, log_table, open_store, set_tags
from runner.tracking.traces import log_traces

_TABLE_ROWS = 1000
"""Rows of the outputs table: what the MLflow UI shows fluently. outcomes.jsonl has all."""
_METRICS_A_WRITE = 1000
"""MLflow takes this many in one call."""


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
        for start in range(0, len(series), _METRICS_A_WRITE):
            self.store.client.log_batch(self.run_id, metrics=series[start : start + _METRICS_A_WRITE])
        self._steps.clear()
        set_tags(self.store, self.run_id, _environment_tags(environment))

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
        log_table(self.store, self.run_id, "outputs.json", rows)

    def log_traces(self, config: RunConfig, prompts: Sequence[Prompt], outcomes: Iterable[Outcome], count: int) -> None:
        """Log outcomes as traces, as many as `tracking.traces` says of the `count` that there are."""
        log_traces(self.store.experiment_id, self.run_id, config, prompts, outcomes, count)


@contextmanager
def track(
    config: RunConfig, prompts: PromptSet, *, parent_run_id: str | None, tags: Mapping[str, str]
) -> Iterator[TrackedRun]:
    """Open an MLflow run; it ends FINISHED, FAILED or KILLED by itself."""
    store = open_store(config.tracking, config.name)
    tags = {"prompts.sha256": prompts.sha256, "batch.mode": str(config.batch.mode), **tags}
    if parent_run_id is not None:
        tags |= {"mlflow.parentRunId": parent_run_id}
    run = create_run(store, run_name(config), tags)
    _log_params(store, run, config)
    _log_dataset(store, run, prompts)
    with _ended(store, run):
        yield TrackedRun(store, run)


@contextmanager
def _ended(store: Store, run_id: str) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        set_tags(store, run_id, {"error.type": type(error).__name__, "error.message": str(error)})
        store.client.set_terminated(run_id, runfiles.ending_of(error))
        raise
    store.client.set_terminated(run_id, "FINISHED")


def run_name(config: RunConfig) -> str:
    """Return a name that tells runs apart in a list: provider, model, mode and size."""
    model = config.model.id.rpartition("/")[2]
    return " ".join(dict.fromkeys((config.provider.name, model, str(config.batch.mode), str(config.batch.size))))


def create_parent(config: RunConfig, tags: Mapping[str, str]) -> str:
    """Create the parent run of a sweep and return its id."""
    store = open_store(config.tracking, config.name)
    return create_run(store, f"sweep of {config.name}", tags)


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
    log_table(store, run_id, "comparison.json", table)
    set_tags(store, run_id, {"mlflow.note.content": note})
    store.client.set_terminated(run_id, status)
    return TrackedRun(store, run_id)


def _log_params(store: Store, run_id: str, config: RunConfig) -> None:
    from mlflow.entities import Param

    params = [Param(name, cut(override_value(value))) for name, value in config.flat().items()]
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


def _environment_tags(environment: Mapping[str, Any]) -> dict[str, str]:
    git = environment["git"] or {}
    tags = {f"git.{name}": str(value).lower() for name, value in git.items()}
    tags |= {f"environment.{name}": str(environment[name]) for name in ("python", "os")}
    tags["environment.cpu"] = f"{environment['cpu']['model']} ({environment['cpu']['usable_cores']} cores)"
    tags |= {f"environment.{name}": str(value) for name, value in environment["provider"].items()}
    if "commit" in git:
        tags["mlflow.source.git.commit"] = git["commit"]
    return tags


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


def _now_ms() -> int:
    return int(time.time() * 1000)
