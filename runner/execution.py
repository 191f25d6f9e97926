"""What a run does once it may begin: load, warm up, generate, sum up, tell. Knows not where a run came from."""

import logging
import time
from collections.abc import Generator, Iterator, Mapping, Sequence, Set
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from runner import display, environment, metrics, runfiles
from runner.batching.modes import MODES
from runner.batching.work import Work
from runner.config import GenerationParams, RunConfig
from runner.errors import BudgetError, Interrupted, RunnerError, ServiceError, TooManyFailuresError
from runner.interrupts import GraceOver, Stop, heeded
from runner.journal import FILE_NAME, Journal, read_outcomes
from runner.pacing import Calls, Paced
from runner.pricing import Bill, price_of
from runner.prompts import PackedPrompts
from runner.providers.base import Provider
from runner.records import Failure, Outcome
from runner.runfiles import Summary
from runner.tracking.address import page, ui_command
from runner.tracking.tracker import Tracker

log = logging.getLogger(__name__)

_WARMUP_TOKENS = 4
_SAMPLES = 3
_FAILURES_JUDGED_FROM = 20
"""Answers from which on a share of failures is judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A run that can begin: everything that can be wrong with a request was checked."""

    config: RunConfig
    prompts: PackedPrompts
    provider: Provider
    calls: Calls
    directory: Path
    stop: Stop


def execute(task: Task, journal: Journal, done: Set[str]) -> Summary:
    """Generate what is not done, and close the record.

    Args:
        task: what to generate, on what.
        journal: open; outcomes are appended to it.
        done: ids of prompts that are not to be generated.

    Raises:
        RunnerError: the run could not be finished, or came to nothing; its record is closed all the same.
    """
    where = display.short(task.directory)
    log.info("%s: %d prompts, into %s", task.config.label, len(task.prompts) - len(done), where)
    work = Work(prompts=task.prompts, done=done, stopping=task.stop)
    with (
        Tracker(task.directory, task.config.tracking.uri) as tracker,
        runfiles.failure_recorded(task.directory),
    ):
        if len(done) < len(task.prompts):
            runfiles.forget_summary(task.directory)
            measured = _measure(task, work, journal)
            summary = _summarize(task, journal.segment, measured)
        else:
            summary = _summarize_again(task)
        runfiles.write_summary(task.directory, summary)
        if tracked := tracker.opened():
            summary = replace(summary, mlflow_run_id=tracked.run_id)
            runfiles.write_summary(task.directory, summary)
        tracker.finish()
        _show(task, summary, tracker)
    if summary.status == "FAILED" and (error := _ended_by(task, summary.metrics)):
        raise error
    return summary


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """What only the process that generated can say."""

    duration_s: float
    metrics: Mapping[str, float]
    series: Mapping[str, Sequence[tuple[int, float]]]


def _measure(task: Task, work: Work, journal: Journal) -> _Measured:
    with _loaded(task.provider) as load_s:
        _describe(task)
        _warm_up(task, work)
        memory = environment.PeakMemory()
        duration_s = _generate(task, work, journal)
        peak_mb = memory.read_mb()
        _describe(task)  # again: by now the provider knows what answered
    path = [(at, float(requests)) for at, requests in task.calls.path] if isinstance(task.calls, Paced) else []
    return _Measured(
        duration_s=duration_s,
        metrics={"load_s": load_s} | ({} if peak_mb is None else {"peak_memory_mb": peak_mb}),
        series={"batch/requests_in_flight": path} if path else {},
    )


@contextmanager
def _loaded(provider: Provider) -> Iterator[float]:
    """Hold the provider open; yield the seconds that loading took."""
    start = time.perf_counter()
    with provider:
        yield time.perf_counter() - start


def _describe(task: Task) -> None:
    price = price_of(task.config.model, task.provider.price_list)
    facts = environment.describe({**task.provider.describe(), **({"price": price.source} if price else {})})
    runfiles.write_environment(task.directory, facts)


def _warm_up(task: Task, work: Work) -> None:
    """Generate a few tokens for the first batches, unmeasured and not kept. Never on a service: it would be paid."""
    config = task.config
    if task.provider.is_local and config.warmup_prompts:
        few = config.params().model_copy(update={"max_tokens": min(_WARMUP_TOKENS, config.generation.max_tokens)})
        first = [prompt for _, prompt in islice(work.numbered(), config.warmup_prompts)]
        for _ in _outcomes(task.provider, Work(prompts=first), few, config):
            continue


def _generate(task: Task, work: Work, journal: Journal) -> float:
    """Generate all work that is left, keeping every outcome as it comes; `task.stop` says why it ended early, if so.

    Returns the seconds of the measured loop.
    """
    failures = _Failures(task)
    with display.progress(len(task.prompts), done=len(work.done)) as ticker, heeded(task.stop):
        start = time.perf_counter()
        try:
            with closing(_outcomes(task.calls, work, task.config.params(), task.config)) as calls:
                for outcomes in calls:
                    journal.append(outcomes)
                    ticker.tick(outcomes)
                    failures.count(outcomes)
        except (BudgetError, ServiceError, Interrupted, TooManyFailuresError) as error:
            task.stop.request(error)
        except GraceOver:
            log.warning("what was in flight took too long, and is given up")
        finally:
            duration_s = time.perf_counter() - start
            if isinstance(task.calls, Paced):
                task.calls.close()
    return duration_s


def _outcomes(calls: Calls, work: Work, params: GenerationParams, config: RunConfig) -> Generator[Sequence[Outcome]]:
    assert config.batch.mode is not None  # noqa: S101 - settled in _prepare()
    yield from MODES[config.batch.mode](calls, work, params, config.batch)


class _Failures:
    """Counts failed prompts, and stops a run in which there are more than `limits.max_failures`."""

    def __init__(self, task: Task) -> None:
        self._limit, self._stop = task.config.limits.max_failures, task.stop
        self._answered = self._failed = 0

    def count(self, outcomes: Sequence[Outcome]) -> None:
        if self._limit is None:
            return
        failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
        self._answered += len({outcome.prompt_id for outcome in outcomes})
        self._failed += len(failures)
        if failures and self._failed > self._allowed(self._limit):
            last = failures[-1].error
            self._stop.request(
                TooManyFailuresError(
                    f"stopped: {self._failed} of {self._answered} prompts failed, limits.max_failures={self._limit}; "
                    f"the last with {last.type}: {last.message}"
                )
            )

    def _allowed(self, limit: float) -> float:
        if isinstance(limit, int):
            return limit
        return limit * max(self._answered, _FAILURES_JUDGED_FROM)


def _summarize(task: Task, segment: int, measured: _Measured) -> Summary:
    counted = _count(task, {segment: measured.duration_s})
    return Summary(
        status=_status(task, counted),
        mlflow_run_id=None,
        metrics=metrics.in_order({**counted, **measured.metrics}),
        series=measured.series,
        error=_said(_ended_by(task, counted)),
    )


def _summarize_again(task: Task) -> Summary:
    """Return the summary of a run of which nothing was left to generate."""
    before = runfiles.read_summary(task.directory)
    counted = _count(task, {})
    kept = before.metrics if before else {}
    return Summary(
        status=_status(task, counted),
        mlflow_run_id=before.mlflow_run_id if before else None,
        metrics=metrics.in_order({**counted, **kept}),
        series=before.series if before else {},
        error=_said(_ended_by(task, counted)),
    )


def _count(task: Task, measured_s: Mapping[int, float]) -> dict[str, float]:
    padded = task.config.batch.mode == "static" and task.provider.is_local
    price = price_of(task.config.model, task.provider.price_list)
    bill = Bill(price) if price else None
    outcomes = read_outcomes(task.directory)
    watched = bill.watch(outcomes) if bill else outcomes
    counted = metrics.summarize(watched, padded=padded, measured_s=measured_s)
    return counted | ({"cost_usd": bill.cost_usd} if bill else {})


def _status(task: Task, counted: Mapping[str, float]) -> runfiles.Status:
    error = _ended_by(task, counted)
    return runfiles.ending_of(error) if error else "FINISHED"


def _said(error: RunnerError | None) -> Mapping[str, str] | None:
    return {"type": type(error).__name__, "message": str(error)} if error else None


def _ended_by(task: Task, counted: Mapping[str, float]) -> RunnerError | None:
    """Return why the run did not reach its end, or came to nothing."""
    if task.stop.reason is not None or counted["completed_prompts"]:
        return task.stop.reason
    first = next((outcome.error for outcome in read_outcomes(task.directory) if isinstance(outcome, Failure)), None)
    said = f"; the first failed with {first.type}: {first.message}" if first else ""
    return RunnerError(f"none of the {counted['failed_prompts']:.0f} prompts was completed{said}")


def _show(task: Task, summary: Summary, tracker: Tracker) -> None:
    display.print_samples(islice(read_outcomes(task.directory), _SAMPLES))
    display.print_metrics("Metrics", summary.metrics)
    where = display.short(task.directory)
    display.print_line(f"Record        {where}")
    tracked = runfiles.read_tracked(task.directory)
    if tracked is not None and tracker.told:
        display.print_line(f"Browse        {ui_command(tracked.uri)}")
        display.print_line(f"              {page(tracked.uri, tracked.address)}")
    if not tracker.told:
        log.warning("MLflow does not have all of this run; tell it later: python -m runner.resume %s", where)
    failed, completed = summary.metrics["failed_prompts"], summary.metrics["completed_prompts"]
    if failed:
        log.warning("%.0f prompts failed: see the field error in %s", failed, display.short(task.directory / FILE_NAME))
    if unsent := len(task.prompts) - completed - failed:
        log.warning("%.0f prompts were not generated", unsent)
    if failed or unsent:
        log.warning("to generate what is missing: python -m runner.resume %s", where)
