"""The library: `run` executes an experiment, and `resume` finishes one. Prints nothing, and knows no Hydra."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from runner.config.schema import RunConfig
from runner.config.waits import Waits
from runner.errors import RecordError
from runner.prompts import PromptSet, changes, file_sha256, load_prompts
from runner.record.folder import CONFIG, MANIFEST, RunFolder, parse_recorded
from runner.record.manifest import RunManifest
from runner.record.prompts import PROMPTS, PackedPrompts
from runner.record.relocate import base_of, path_below, with_absolute_paths
from runner.record.writer import OutcomeWriter
from runner.run.execute import execute
from runner.run.overrides import override
from runner.run.prepare import PreparedRun, check_provider, prepare
from runner.run.prepare import check as check_configuration
from runner.run.result import RunObserver, RunResult, SilentObserver
from runner.tracking.publisher import StartWorker, start_worker

log = logging.getLogger(__name__)

_SILENT, _WAITS = SilentObserver(), Waits()


def check(config: RunConfig) -> PromptSet:
    """Check everything that can be known of a run before it begins, and return its prompt set. Makes and sends nothing.

    Raises:
        UsageError: the request is wrong.
    """
    prompts = load_prompts(config.prompts)
    check_configuration(config, len(prompts.prompts), _WAITS)
    return prompts


def run(
    config: RunConfig,
    output_dir: Path,
    *,
    prompts: PromptSet | None = None,
    overrides: Sequence[str] = (),
    sweep_dir: Path | None = None,
    tags: Mapping[str, str] | None = None,
    observer: RunObserver = _SILENT,
    waits: Waits = _WAITS,
    leave_jobs: bool = False,
    start_worker: StartWorker = start_worker,
) -> RunResult:
    """Execute one configuration and leave its record in `output_dir` and in MLflow.

    Args:
        config: what to run.
        output_dir: the run's own folder.
        prompts: what `check` returned; None reads the configured prompt set.
        overrides: texts that distinguish the run from others, added to its name in MLflow.
        sweep_dir: the sweep's folder; None for a run outside of a sweep.
        tags: further tags for MLflow.
        observer: follows the run.
        waits: how long to wait for people and services.
        leave_jobs: do as with `batch.detach`, for a sweep that submits all its batch jobs before it collects any.
        start_worker: starts the process that publishes to MLflow.

    Raises:
        UsageError: the request was wrong; nothing was generated.
        RunnerError: the run began and could not be finished; `outcomes.jsonl` has what was generated.
    """
    folder = RunFolder(output_dir)
    with folder.recording_failure():
        output_dir.mkdir(parents=True, exist_ok=True)
        prompts = prompts or load_prompts(config.prompts)
        prepared = replace(prepare(config, prompts.prompts, folder, waits), leaves_jobs=leave_jobs)
        check_provider(prepared.calls.provider)
        with OutcomeWriter(folder) as writer:
            folder.write_config(prepared.config)
            folder.write_prompts(prompts.prompts)
            folder.write_manifest(_manifest(folder, prepared.config, prompts, overrides, sweep_dir, tags or {}))
            return execute(prepared, writer, frozenset(), observer, start_worker)


def resume(
    directory: Path,
    *,
    keep_failures: bool = False,
    accept_changes: bool = False,
    overrides: Mapping[str, Any] | None = None,
    repair: bool = False,
    observer: RunObserver = _SILENT,
    waits: Waits = _WAITS,
    start_worker: StartWorker = start_worker,
) -> RunResult:
    """Finish a run that was interrupted, killed or had failures, in its own folder and its own MLflow run.

    Only prompts without a completion are generated. Where none is left, the record is published to MLflow. The caller
    trusts the record: what it sends to is what the record says. `python -m runner.resume` checks a record
    that is not the user's own.

    Args:
        directory: the run's folder.
        keep_failures: leave prompts that failed as they are.
        accept_changes: go on at another address, region, device, dtype or model revision than the run began with.
        overrides: values that differ from the recorded ones in this process, by dotted key: keys that move no text.
        repair: set lines of the outcomes that are no outcomes aside, and generate their prompts again.
        observer, waits, start_worker: as for `run`.

    Raises:
        UsageError: there is no such run, it is not as it began, or an override would move texts.
        RunnerError: as for `run`.
    """
    folder = RunFolder(directory)
    prepared = replace(_prepare_recorded(folder, overrides or {}, waits), accepts_changes=accept_changes)
    config, prompts = prepared.config, prepared.prompts
    with OutcomeWriter(folder, resume=True, repair=repair) as writer:
        progress = folder.outcomes.read_progress(choices=config.generation.n)
        completed, failed = progress.completed, progress.failed
        skipped = completed | failed if keep_failures else completed
        log.info("%d of %d prompts are completed, %d failed before", len(completed), len(prompts), len(failed))
        if len(skipped) < len(prompts):
            check_provider(prepared.calls.provider)
        prepared.calls.budget.count(folder.outcomes.read_all(), prompts, config.params())
        return execute(prepared, writer, skipped, observer, start_worker)


def _prepare_recorded(folder: RunFolder, overrides: Mapping[str, Any], waits: Waits) -> PreparedRun:
    """Prepare a recorded run; its relative paths start where its folder belongs."""
    manifest = folder.read_manifest()
    config, base = _recorded_config(folder, manifest), base_of(folder, manifest)
    if base != Path.cwd():
        config = with_absolute_paths(config, base)
    prompts = _recorded_prompts(folder, config, manifest)
    config = override(config, {"batch.detach": False, **overrides})  # a resume waits, however the run began
    return replace(prepare(config, prompts, folder, waits), overrides=overrides)


def _manifest(
    folder: RunFolder, config: RunConfig, prompts: PromptSet, overrides: Sequence[str], sweep_dir: Path | None,
    tags: Mapping[str, str],
) -> RunManifest:  # fmt: skip
    working_dir = Path.cwd()
    return RunManifest(
        key=uuid4().hex,
        name=", ".join([config.label, *overrides]),
        config=config.model_dump(mode="json", by_alias=True),
        prompts={
            "name": prompts.name,
            "source": prompts.source,
            "sha256": prompts.sha256,
            "count": len(prompts.prompts),
            "file_sha256": file_sha256(config.prompts),
        },
        tags=dict(tags),
        sweep_dir=str(sweep_dir) if sweep_dir else None,
        working_dir=str(working_dir),
        folder=path_below(working_dir, folder.path),
    )


def _recorded_config(folder: RunFolder, manifest: RunManifest) -> RunConfig:
    config = parse_recorded(folder.path / MANIFEST, manifest.config)
    if changed := config.differences(parse_recorded(folder.path / CONFIG, folder.read_config())):
        listed = "\n".join(f"  {difference}" for difference in changed)
        raise RecordError(
            f"{folder.path / CONFIG} is not what the run began with:\n{listed}\n"
            "restore it, or start a new run with these values. Keys that move no text are changed on the command line: "
            f"{folder.resume_command} limits.max_cost_usd=5"
        )
    return config


def _recorded_prompts(folder: RunFolder, config: RunConfig, manifest: RunManifest) -> PackedPrompts:
    recorded = folder.read_prompts()
    if recorded.sha256 != manifest.prompts["sha256"]:
        raise RecordError(f"{folder.path} has other prompts than the run began with: restore {PROMPTS}")
    if not folder.is_own:
        return recorded  # the path may be that of any file on this machine, whose lines a message would show
    current_sha256 = file_sha256(config.prompts)
    if current_sha256 == manifest.prompts["file_sha256"]:
        return recorded
    if current_sha256 is None:
        log.warning("prompts.path=%r is gone: using the run's own copy, %s", config.prompts.path, folder.path / PROMPTS)
    elif differences := changes(recorded, load_prompts(config.prompts).prompts):
        listed = "\n".join(f"  {difference}" for difference in differences)
        raise RecordError(
            f"prompts.path={config.prompts.path!r} is not what the run began with:\n{listed}\n"
            f"restore it (the run's copy is {folder.path / PROMPTS}), or start a new run"
        )
    return recorded
