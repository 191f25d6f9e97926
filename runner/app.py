"""One experiment: prompts in, a record out. Knows no Hydra: it is handed a checked configuration and a folder."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from runner import display, environment, metrics, runfiles, sweep
from runner.batching.modes import MODES
from runner.config import GenerationParams, RunConfig
from runner.errors import RunnerError
from runner.journal import Journal, read_outcomes
from runner.prompts import PromptSet, load_prompts
from runner.providers.base import Provider, build
from runner.records import Failure, Outcome, Prompt
from runner.runfiles import Summary
from runner.tracking.run import TrackedRun, run_name, track
from runner.tracking.store import ui_command

log = logging.getLogger(__name__)

_WARMUP_TOKENS = 4
_SAMPLES = 3


def run(
    config: RunConfig,
    output_dir: Path,
    *,
    sweep_dir: Path | None = None,
    tags: Mapping[str, str] | None = None,
) -> Summary:
    """Execute one configuration and leave its record in `output_dir` and in MLflow.

    Raises:
        RequestError: the request was wrong; nothing was generated.
        RunnerError: the run began and could not be finished; `outcomes.jsonl` has what was generated.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    with runfiles.failure_recorded(output_dir):
        prompts = load_prompts(config.prompts)
        provider = build(config)
        config = config.with_mode(config.batch.mode or provider.default_mode)
        runfiles.write_config(output_dir, config)
        with (
            _tracked(config, prompts, output_dir, sweep_dir, tags or {}) as tracked,
            Journal(output_dir) as journal,
        ):
            with _loaded(provider) as load_s:
                facts = environment.describe(provider.describe())
                runfiles.write_environment(output_dir, facts)
                _warm_up(provider, prompts.prompts, config)
                measured = _generate(provider, prompts.prompts, config, journal, tracked)
            summary = _summarize(config, output_dir, tracked.run_id, {"load_s": load_s, **measured})
            runfiles.write_summary(output_dir, summary)
            _record(tracked, config, prompts.prompts, summary, facts, output_dir)
            _raise_if_nothing_completed(summary, output_dir)
    _show(summary, tracked, output_dir)
    return summary


@contextmanager
def _tracked(
    config: RunConfig, prompts: PromptSet, output_dir: Path, sweep_dir: Path | None, tags: Mapping[str, str]
) -> Iterator[TrackedRun]:
    parent_run_id = sweep.join(sweep_dir, config) if sweep_dir else None
    with (
        track(config, prompts, parent_run_id=parent_run_id, tags=tags) as tracked,
        runfiles.failure_recorded(output_dir, mlflow_run_id=tracked.run_id),
    ):
        where = display.short(output_dir)
        log.info("%s: %d prompts, into %s", run_name(config), len(prompts.prompts), where)
        yield tracked


@contextmanager
def _loaded(provider: Provider) -> Iterator[float]:
    """Hold the provider open; yield the seconds that loading took."""
    start = time.perf_counter()
    with provider:
        yield time.perf_counter() - start


def _warm_up(provider: Provider, prompts: Sequence[Prompt], config: RunConfig) -> None:
    """Generate a few tokens for the first batches, unmeasured and not kept. Never on a service: it would be paid."""
    if provider.is_local and config.batch.warmup:
        few = config.params().model_copy(update={"max_tokens": min(_WARMUP_TOKENS, config.generation.max_tokens)})
        for _ in _outcomes(provider, prompts[: config.batch.size * config.batch.warmup], few, config):
            continue


def _generate(
    provider: Provider,
    prompts: Sequence[Prompt],
    config: RunConfig,
    journal: Journal,
    tracked: TrackedRun,
) -> dict[str, float]:
    """Generate for all prompts, keeping every outcome as it comes; return what only this process can measure."""
    memory, steps = environment.PeakMemory(), metrics.Steps(config.batch)
    with display.progress(len(prompts)) as ticker:
        start = time.perf_counter()
        for outcome in _outcomes(provider, prompts, config.params(), config):
            journal.append(outcome)
            ticker.tick(outcome)
            steps.add(outcome)
        duration_s = time.perf_counter() - start
    for number, values in steps.finish():
        tracked.log_step(number, values)
    peak = memory.read_mb()
    return {"duration_s": duration_s} | ({} if peak is None else {"peak_memory_mb": peak})


def _outcomes(
    provider: Provider, prompts: Sequence[Prompt], params: GenerationParams, config: RunConfig
) -> Iterator[Outcome]:
    assert config.batch.mode is not None  # noqa: S101 - settled in run()
    return MODES[config.batch.mode](provider, prompts, params, config.batch)


def _summarize(config: RunConfig, output_dir: Path, run_id: str, measured: Mapping[str, float]) -> Summary:
    assert config.batch.mode is not None  # noqa: S101 - settled in run()
    counted = metrics.summarize(read_outcomes(output_dir), mode=config.batch.mode, duration_s=measured["duration_s"])
    status: runfiles.Status = "FINISHED" if counted["completed_prompts"] else "FAILED"
    return Summary(status=status, mlflow_run_id=run_id, metrics=metrics.in_order({**counted, **measured}))


def _record(
    tracked: TrackedRun,
    config: RunConfig,
    prompts: Sequence[Prompt],
    summary: Summary,
    facts: Mapping[str, object],
    output_dir: Path,
) -> None:
    count = int(summary.metrics["completed_prompts"] * config.generation.n + summary.metrics["failed_prompts"])
    tracked.log_result(summary, facts)
    tracked.log_files(output_dir)
    tracked.log_outputs(prompts, read_outcomes(output_dir))
    tracked.log_traces(config, prompts, read_outcomes(output_dir), count)


def _raise_if_nothing_completed(summary: Summary, output_dir: Path) -> None:
    if summary.status == "FAILED":
        first = next(outcome for outcome in read_outcomes(output_dir) if isinstance(outcome, Failure))
        raise RunnerError(
            f"none of the {summary.metrics['failed_prompts']:.0f} prompts was completed; the first failed with "
            f"{first.error.type}: {first.error.message}"
        )


def _show(summary: Summary, tracked: TrackedRun, output_dir: Path) -> None:
    display.print_samples(islice(read_outcomes(output_dir), _SAMPLES))
    display.print_metrics("Metrics", summary.metrics)
    display.print_line(f"Record        {display.short(output_dir)}")
    display.print_line(f"Browse        {ui_command(tracked.store)}")
    display.print_line(f"              http://127.0.0.1:5000{tracked.address}")
    if failed := summary.metrics["failed_prompts"]:
        log.warning(
            "%d prompts failed: see the field error in %s",
            failed,
            display.short(output_dir / "outcomes.jsonl"),
        )
