"""A run's folder as an MLflow run. All of it can be told again: what is there already is replaced, not doubled."""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from runner import metrics
from runner.config.parse import parse
from runner.config.schema import RunConfig
from runner.errors import JournalError
from runner.record.folder import CONFIG, ENVIRONMENT, LOG, OUTCOMES, PROMPTS, SEGMENTS, SUMMARY, RunFolder
from runner.record.manifest import MlflowRunRef, RunManifest, Summary
from runner.tracking import sweep_run
from runner.tracking.notes import run_note
from runner.tracking.store import Store, cut, find_or_create_run, log_table, open_store, set_tags
from runner.tracking.traces import log_traces
from runner.types import Completion, Outcome, Prompt

_FILES = (CONFIG, PROMPTS, OUTCOMES, SUMMARY, ENVIRONMENT, SEGMENTS, LOG)
_TABLE_ROWS = 1000
"""Prompts in the outputs table: what the MLflow UI shows fluently. outcomes.jsonl has all."""
_METRICS_A_WRITE = 1000
"""MLflow takes this many in one call."""
_MOST_STEPS = 2000
"""Points of a curve; of a longer run, evenly spread ones are kept."""


def open_run(folder: RunFolder, on_connected: Callable[[], object]) -> tuple[Store, str]:
    """Create the MLflow run of a folder, or find it, and say what it is of.

    Args:
        folder: the run's.
        on_connected: called when the store has answered for the first time.

    Raises:
        TrackingError: the store cannot be used.
    """
    origin = folder.read_manifest()
    config = parse(origin.config)
    store = open_store(str(config.tracking.uri), config.name)
    on_connected()
    tags = {"prompts.sha256": origin.prompts["sha256"], "batch.mode": str(config.batch.mode), **origin.tags}
    tags["runner.directory"] = str(folder.path.absolute())
    if origin.sweep_dir is not None:
        tags["mlflow.parentRunId"] = sweep_run.join(Path(origin.sweep_dir), store, config)
    run_id = find_or_create_run(store, origin.key, origin.name, tags)
    store.client.update_run(run_id, status="RUNNING")
    _log_params(store, run_id, config)
    _log_dataset(store, run_id, origin)
    with suppress(JournalError):  # a full disk: the run is found by its key, and its end can still be told
        folder.write_mlflow_run(MlflowRunRef(uri=store.uri, experiment_id=store.experiment_id, run_id=run_id))
    return store, run_id


def publish(store: Store, run_id: str, folder: RunFolder) -> Iterator[str]:
    """Tell MLflow everything that a folder holds of a run that has ended, yielding before each part what it is.

    Raises:
        TrackingError: the store cannot be used; what was told so far stays, and telling all again doubles nothing.
    """
    summary = folder.read_summary()
    assert summary is not None  # noqa: S101 - a run that has ended has one
    origin = folder.read_manifest()
    config = parse(origin.config)
    yield "metrics"
    _log_metrics(store, run_id, folder, config, summary)
    yield "tags"
    note = {"mlflow.note.content": run_note(config, origin, summary)}
    set_tags(store, run_id, {**_environment_tags(folder), **_error_tags(store, run_id, summary), **note})
    yield "files"
    _log_files(store, run_id, folder)
    yield "outputs"
    log_table(store, run_id, "outputs.json", _table(folder))
    for _ in log_traces(store, run_id, folder, config):
        yield "traces"
    store.client.set_terminated(run_id, summary.status)


def override_value(value: Any) -> str:
    """Write a value as it would stand behind `KEY=` on the command line."""
    if isinstance(value, str):
        return value
    return yaml.safe_dump(
        list(value) if isinstance(value, tuple) else value, default_flow_style=True, width=10**9
    ).split("\n")[0]


def _log_params(store: Store, run_id: str, config: RunConfig) -> None:
    from mlflow.entities import Param

    params = [Param(name, cut(override_value(value))) for name, value in config.flat().items()]
    store.client.log_batch(run_id, params=params)


def _log_dataset(store: Store, run_id: str, origin: RunManifest) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = str(origin.prompts["source"])
    dataset = Dataset(
        name=origin.prompts["name"],
        digest=origin.prompts["sha256"][:36],  # the longest that MLflow keeps
        source_type="local" if "://" not in source else source.partition("://")[0],
        source=source,
        profile=f'{{"num_prompts": {origin.prompts["count"]}}}',
    )
    store.client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "prompts")])])


def _log_metrics(store: Store, run_id: str, folder: RunFolder, config: RunConfig, summary: Summary) -> None:
    """Write points and figures with times that follow from the record: written again, they are the same rows."""
    from mlflow.entities import Metric

    steps = list(metrics.steps(folder.outcomes.read_all(), config.batch))
    began_ms = int(store.client.get_run(run_id).info.start_time)
    ended_ms = max((_ms(step.ended_at) for step in steps), default=began_ms)
    series = [
        Metric(name, value, _ms(step.ended_at), step.number)
        for step in steps[:: math.ceil(max(1, len(steps) / _MOST_STEPS))]
        for name, value in step.metrics.items()
    ]
    series += [Metric(name, value, began_ms, at) for name, pairs in summary.series.items() for at, value in pairs]
    series += [Metric(name, value, ended_ms, 0) for name, value in summary.metrics.items()]
    for start in range(0, len(series), _METRICS_A_WRITE):
        store.client.log_batch(run_id, metrics=series[start : start + _METRICS_A_WRITE])


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _log_files(store: Store, run_id: str, folder: RunFolder) -> None:
    for name in _FILES:
        if (folder.path / name).is_file():
            store.client.log_artifact(run_id, str(folder.path / name))
    if (folder.path / ".hydra").is_dir():
        store.client.log_artifacts(run_id, str(folder.path / ".hydra"), "hydra")


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


def _error_tags(store: Store, run_id: str, summary: Summary) -> dict[str, str]:
    """Return why the run ended early, if it did, and forget why an earlier part of it had."""
    if summary.error is not None:
        return {f"error.{name}": text for name, text in summary.error.items()}
    for name in store.client.get_run(run_id).data.tags:
        if name.startswith("error."):
            store.client.delete_tag(run_id, name)
    return {}


def _table(folder: RunFolder) -> list[dict[str, Any]]:
    """Return the outcomes of the set's first prompts, in its order: the same prompts in every run of the set."""
    prompts = {prompt.id: (place, prompt) for place, prompt in enumerate(folder.read_prompts()[:_TABLE_ROWS])}
    kept = [outcome for outcome in folder.outcomes.read() if outcome.prompt_id in prompts]
    kept.sort(key=lambda outcome: (prompts[outcome.prompt_id][0], outcome.choice))
    return [_table_row(outcome, prompts[outcome.prompt_id][1]) for outcome in kept]


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
