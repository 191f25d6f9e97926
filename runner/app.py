"""One experiment: prompts in, a record out. Knows no Hydra: it is handed a checked configuration and a folder."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

from runner import runfiles
from runner.config import RunConfig, parse
from runner.errors import RecordError
from runner.execution import Task, execute
from runner.interrupts import Stop
from runner.journal import Journal, read_all_outcomes, take_stock
from runner.pacing import Paced, paced
from runner.prompts import PackedPrompts, PromptSet, changes, file_sha256, load_prompts, read_prompts, write_prompts
from runner.providers.base import build
from runner.runfiles import Origin, Summary
from runner.tracking.address import check_store

log = logging.getLogger(__name__)


def run(
    config: RunConfig,
    output_dir: Path,
    *,
    asked: Sequence[str] = (),
    sweep_dir: Path | None = None,
    tags: Mapping[str, str] | None = None,
) -> Summary:
    """Execute one configuration and leave its record in `output_dir` and in MLflow.

    Args:
        config: what to run.
        output_dir: the run's own folder.
        asked: what else tells the run from others, added to its name in MLflow: provider, model, mode and size.
        sweep_dir: the sweep's folder, for a job of one.
        tags: further tags for MLflow.

    Raises:
        RequestError: the request was wrong; nothing was generated.
        RunnerError: the run began and could not be finished; `outcomes.jsonl` has what was generated.
    """
    with runfiles.failure_recorded(output_dir):
        output_dir.mkdir(parents=True, exist_ok=True)
        prompts = load_prompts(config.prompts)
        task = _prepare(config, prompts.prompts, output_dir)
        with Journal(output_dir) as journal:
            _write_beginning(task, prompts, asked=asked, sweep_dir=sweep_dir, tags=tags or {})
            return execute(task, journal, frozenset())


def resume(directory: Path, *, keep_failures: bool = False) -> Summary:
    """Finish a run that was interrupted, killed or had failures, in its own folder and its own MLflow run.

    Only prompts without a completion are generated. With nothing left to generate, MLflow is told what it missed.

    Args:
        directory: the run's folder.
        keep_failures: leave prompts that failed as they are.

    Raises:
        RequestError: there is no such run, or its prompts or configuration are not those that it began with.
        RunnerError: as for `run`.
    """
    origin = runfiles.read_origin(directory)
    config = _recorded_config(directory, origin)
    prompts = _recorded_prompts(directory, config, origin)
    task = _prepare(config, prompts, directory)
    with Journal(directory, resume=True) as journal, runfiles.failure_recorded(directory):
        stock = take_stock(directory, choices=config.generation.n)
        done = stock.done | stock.failed if keep_failures else stock.done
        log.info("%d of %d prompts are done, %d failed before", len(stock.done), len(prompts), len(stock.failed))
        if isinstance(task.calls, Paced):
            task.calls.count(read_all_outcomes(directory))
        return execute(task, journal, done)


def _prepare(config: RunConfig, prompts: PackedPrompts, directory: Path) -> Task:
    provider, stop = build(config), Stop()
    config = config.with_mode(config.batch.mode or provider.default_mode)
    calls = paced(provider, config, stop)
    check_store(config.tracking.uri)
    return Task(config=config, prompts=prompts, provider=provider, calls=calls, directory=directory, stop=stop)


def _write_beginning(
    task: Task, prompts: PromptSet, *, asked: Sequence[str], sweep_dir: Path | None, tags: Mapping[str, str]
) -> None:
    runfiles.write_config(task.directory, task.config)
    write_prompts(task.directory, prompts.prompts)
    origin = Origin(
        key=uuid4().hex,
        name=", ".join([task.config.label, *asked]),
        config=task.config.model_dump(mode="json", by_alias=True),
        prompts={
            "name": prompts.name,
            "source": prompts.source,
            "sha256": prompts.sha256,
            "count": len(prompts.prompts),
            "file_sha256": file_sha256(task.config.prompts),
        },
        tags=dict(tags),
        sweep_dir=str(sweep_dir) if sweep_dir else None,
        working_dir=str(Path.cwd()),
    )
    runfiles.write_origin(task.directory, origin)


def _recorded_config(directory: Path, origin: Origin) -> RunConfig:
    config = parse(origin.config)
    if changed := config.differences(parse(runfiles.read_config(directory))):
        listed = "\n".join(f"  {difference}" for difference in changed)
        raise RecordError(
            f"{directory / runfiles.CONFIG} is not what the run began with:\n{listed}\n"
            "restore it, or start a run of its own with these values"
        )
    return config


def _recorded_prompts(directory: Path, config: RunConfig, origin: Origin) -> PackedPrompts:
    recorded = read_prompts(directory)
    if recorded.sha256 != origin.prompts["sha256"]:
        raise RecordError(f"{directory} has other prompts than the run began with: restore prompts.jsonl")
    now = file_sha256(config.prompts)
    if now == origin.prompts["file_sha256"]:
        return recorded
    if now is None:
        log.warning("prompts.path=%r is gone: going on with the run's own copy", config.prompts.path)
    elif differences := changes(recorded, load_prompts(config.prompts).prompts):
        listed = "\n".join(f"  {difference}" for difference in differences)
        raise RecordError(
            f"prompts.path={config.prompts.path!r} is not what the run began with:\n{listed}\n"
            f"restore it (the run's own copy is {directory / 'prompts.jsonl'}), or start a run of its own"
        )
    return recorded
