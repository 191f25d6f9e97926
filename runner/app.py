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
from runner.errors import BudgetError, RunnerError, ServiceError
from runner.journal import Journal, read_outcomes
from runner.pacing import Calls, Paced, paced
from runner.pricing import price_of
from runner.prompts import PromptSet, load_prompts, write_prompts
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
        calls = paced(provider, config)
        runfiles.write_config(output_dir, config)
        write_prompts(output_dir, prompts.prompts)
        with (
            _tracked(config, prompts, output_dir, sweep_dir, tags or {}) as tracked,
            Journal(output_dir) as journal,
        ):
            with _loaded(provider) as load_s:
                _describe(provider, config, output_dir)
                _warm_up(provider, prompts.prompts, config)
                measured, stopped = _generate(calls, prompts.prompts, config, journal, tracked)
                facts = _describe(provider, config, output_dir)  # again: by now the provider knows what answered
            summary = _summarize(config, provider, output_dir, tracked, {"load_s": load_s, **measured}, stopped)
            runfiles.write_summary(output_dir, summary)
            _record(tracked, config, prompts.prompts, summary, facts, output_dir)
            _show(summary, tracked, output_dir)
            if summary.status == "FAILED":
                raise stopped or _nothing_completed(output_dir, summary.metrics["failed_prompts"])
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


def _describe(provider: Provider, config: RunConfig, output_dir: Path) -> Mapping[str, object]:
    price = price_of(config.model, provider.price_list)
    facts = environment.describe({**provider.describe(), **({"price": price.source} if price else {})})
    runfiles.write_environment(output_dir, facts)
    return facts


def _warm_up(provider: Provider, prompts: Sequence[Prompt], config: RunConfig) -> None:
    """Generate a few tokens for the first batches, unmeasured and not kept. Never on a service: it would be paid."""
    if provider.is_local and config.warmup_prompts:
        few = config.params().model_copy(update={"max_tokens": min(_WARMUP_TOKENS, config.generation.max_tokens)})
        for _ in _outcomes(provider, prompts[: config.warmup_prompts], few, config):
            continue


def _generate(
    calls: Calls, prompts: Sequence[Prompt], config: RunConfig, journal: Journal, tracked: TrackedRun
) -> tuple[dict[str, float], RunnerError | None]:
    """Generate for all prompts, keeping every outcome as it comes.

    Returns what only this process can measure, and the error that stopped the run before its end, if one did.
    """
    memory, steps, stopped = environment.PeakMemory(), metrics.Steps(config.batch), None
    with display.progress(len(prompts)) as ticker:
        start = time.perf_counter()
        try:
            for outcome in _outcomes(calls, prompts, config.params(), config):
                journal.append(outcome)
                ticker.tick(outcome)
                steps.add(outcome)
        except (BudgetError, ServiceError) as error:
            stopped = error
        finally:
            duration_s = time.perf_counter() - start
            if isinstance(calls, Paced):
                calls.close()
    for number, values in steps.finish():
        tracked.log_step(number, values)
    for done, requests in getattr(calls, "path", ()):
        tracked.log_step(done, {"batch/requests_in_flight": requests})
    peak = memory.read_mb()
    return {"duration_s": duration_s} | ({} if peak is None else {"peak_memory_mb": peak}), stopped


def _outcomes(
    calls: Calls, prompts: Sequence[Prompt], params: GenerationParams, config: RunConfig
) -> Iterator[Outcome]:
    assert config.batch.mode is not None  # noqa: S101 - settled in run()
    return MODES[config.batch.mode](calls, prompts, params, config.batch)


def _summarize(
    config: RunConfig,
    provider: Provider,
    output_dir: Path,
    tracked: TrackedRun,
    measured: Mapping[str, float],
    stopped: RunnerError | None,
) -> Summary:
    padded = config.batch.mode == "static" and provider.is_local
    counted = metrics.summarize(read_outcomes(output_dir), padded=padded, duration_s=measured["duration_s"])
    if price := price_of(config.model, provider.price_list):
        counted["cost_usd"] = price.cost_usd(int(counted["input_tokens"]), int(counted["output_tokens"]))
    return Summary(
        status="FINISHED" if counted["completed_prompts"] and not stopped else "FAILED",
        mlflow_run_id=tracked.run_id,
        metrics=metrics.in_order({**counted, **measured}),
        error={"type": type(stopped).__name__, "message": str(stopped)} if stopped else None,
    )


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


def _nothing_completed(output_dir: Path, failed: float) -> RunnerError:
    first = next(outcome.error for outcome in read_outcomes(output_dir) if isinstance(outcome, Failure))
    return RunnerError(
        f"none of the {failed:.0f} prompts was completed; the first failed with {first.type}: {first.message}"
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
