"""What a run does once it may begin: load, warm up, generate, sum up, tell. Knows not where a run came from."""

import logging
import time
from collections.abc import Generator, Iterator, Mapping, Sequence, Set
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from runner import display, environment, metrics, runfiles
from runner.batching.modes import MODES
from runner.batching.work import Work
from runner.config import GenerationParams, RunConfig
from runner.errors import JournalError, RequestError, RunnerError, ServiceError, TooManyFailuresError
from runner.interrupts import GraceOver, Stop, heeded
from runner.journal import FILE_NAME, Journal, read_outcomes, read_superseded, take_stock
from runner.pacing import Calls, Paced
from runner.pricing import Bill, price_of
from runner.prompts import PackedPrompts
from runner.providers.base import Provider
from runner.records import Failure, Outcome
from runner.runfiles import Summary, resume_command
from runner.tracking.address import page, ui_command
from runner.tracking.tracker import Tracker

log = logging.getLogger(__name__)

_IN_FLIGHT = "batch/requests_in_flight"
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
        measured = _measure(task, work, journal) if len(done) < len(task.prompts) else None
        summary, ended_by = _close(task, journal, measured)
        _show(task, summary)
        summary = _tell(task, summary, tracker)
    if summary.status == "FAILED" and ended_by:
        raise ended_by
    return summary


def _measure(task: Task, work: Work, journal: Journal) -> Mapping[str, float]:
    """Generate, and return the metrics that only this process can say."""
    with _loaded(task.provider) as load_s:
        _describe(task, journal.segment)
        _warm_up(task, work)
        runfiles.forget_summary(task.directory)  # not before: what cannot begin leaves the record as it was
        memory = environment.PeakMemory()
        duration_s = _generate(task, work, journal)
        peak_mb = memory.read_mb()
        _close_segment(task, journal.segment, duration_s)
    return {"load_s": load_s} | ({} if peak_mb is None else {"peak_memory_mb": peak_mb})


def _close_segment(task: Task, number: int, duration_s: float) -> None:
    """Write what only this process can say of its part of the run."""
    before = runfiles.read_segments(task.directory)
    segment = runfiles.Segment(number=number, duration_s=duration_s, series=_series(task, before))
    try:
        runfiles.write_segments(task.directory, [*before, segment])
        runfiles.write_environment(task.directory, _facts(task))  # again: by now the provider knows what answered
    except JournalError as error:  # a full disk, say; the summary still tells what there is
        task.stop.request(error)


def _series(task: Task, before: Sequence[runfiles.Segment]) -> Mapping[str, Sequence[tuple[int, float]]]:
    """Return what moved in this process, its steps counted on from those before: no two points share a step."""
    first = max((at + 1 for segment in before for at, _ in segment.series.get(_IN_FLIGHT, ())), default=0)
    moved = task.calls.path if isinstance(task.calls, Paced) else ()
    path = [(first + at, float(requests)) for at, requests in moved]
    return {_IN_FLIGHT: path} if path else {}


@contextmanager
def _loaded(provider: Provider) -> Iterator[float]:
    """Hold the provider open; yield the seconds that loading took."""
    start = time.perf_counter()
    with provider:
        yield time.perf_counter() - start


def _describe(task: Task, segment: int) -> None:
    """Write where this process runs, and say so if an earlier one of the run ran elsewhere."""
    facts = _facts(task)
    if changes := runfiles.environment_changes(runfiles.read_environment(task.directory), facts):
        listed = "\n".join(f"  {change}" for change in changes)
        log.warning("the run goes on in another environment than it began in, which may move its results:\n%s", listed)
        runfiles.keep_environment(task.directory, segment - 1)
    runfiles.write_environment(task.directory, facts)


def _facts(task: Task) -> Mapping[str, Any]:
    price = price_of(task.config.model, task.provider.price_list)
    return environment.describe({**task.provider.describe(), **({"price": price.source} if price else {})})


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
    work = replace(work, answered=_Failures(task, work).count)
    start = end = time.perf_counter()
    try:
        with display.progress(len(task.prompts), done=len(work.done)) as ticker, heeded(task.stop):
            start = time.perf_counter()
            try:
                with closing(_outcomes(task.calls, work, task.config.params(), task.config)) as calls:
                    for outcomes in calls:
                        journal.append(outcomes)
                        ticker.tick(outcomes)
            finally:
                end = time.perf_counter()
    except RunnerError as error:
        task.stop.request(error)
    except KeyboardInterrupt:
        task.stop.interrupt()
    except GraceOver:
        log.warning("what was in flight took too long, and is given up")
    finally:
        if isinstance(task.calls, Paced):
            task.calls.close()
    return end - start


def _outcomes(calls: Calls, work: Work, params: GenerationParams, config: RunConfig) -> Generator[Sequence[Outcome]]:
    assert config.batch.mode is not None  # noqa: S101 - settled in _prepare()
    yield from MODES[config.batch.mode](calls, work, params, config.batch)


class _Failures:
    """Counts failed prompts, and stops a run in which there are more than `limits.max_failures`.

    It is the record that is judged: what is done from before counts, and a failure that is tried again does not.
    """

    def __init__(self, task: Task, work: Work) -> None:
        self._limit, self._stop = task.config.limits.max_failures, task.stop
        self._answered, self._failed = len(work.done), 0
        if self._limit is not None and work.done:
            stock = take_stock(task.directory, choices=task.config.generation.n)
            self._failed = len(stock.failed & work.done)

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


def _close(task: Task, journal: Journal, measured: Mapping[str, float] | None) -> tuple[Summary, RunnerError | None]:
    """Write how the run ended, whatever ended it, with the metrics of all that is kept. Return that, and what ended it.

    Raises:
        RequestError: nothing is kept, for nothing was answered.
        JournalError: the disk does not take it.
    """
    try:
        journal.sync()
    except JournalError as error:
        task.stop.request(error)
    counted = _count(task)
    ended_by = _ended_by(task, counted)
    if isinstance(ended_by, RequestError):
        raise ended_by
    summary = _summarize(task, counted, ended_by, measured)
    try:
        runfiles.write_summary(task.directory, summary)
    except JournalError as error:
        raise ended_by if isinstance(ended_by, JournalError) else error from None
    return summary, ended_by


def _summarize(
    task: Task, counted: Mapping[str, float], ended_by: RunnerError | None, measured: Mapping[str, float] | None
) -> Summary:
    """Return the summary; with `measured` None, of a run of which nothing was left to generate."""
    before = runfiles.read_summary(task.directory) if measured is None else None
    known = {name: value for name, value in before.metrics.items() if name in metrics.NAMES} if before else {}
    tracked = runfiles.read_tracked(task.directory)
    path = [point for part in runfiles.read_segments(task.directory) for point in part.series.get(_IN_FLIGHT, ())]
    return Summary(
        status=runfiles.ending_of(ended_by) if ended_by else "FINISHED",
        mlflow_run_id=tracked.run_id if tracked else None,
        metrics=metrics.in_order({**counted, **known, **(measured or {})}),
        series={_IN_FLIGHT: path} if path else before.series if before else {},
        error={"type": type(ended_by).__name__, "message": str(ended_by)} if ended_by else None,
    )


def _count(task: Task) -> dict[str, float]:
    padded = task.config.batch.mode == "static" and task.provider.is_local
    price = price_of(task.config.model, task.provider.price_list)
    bill = Bill(price) if price else None
    outcomes = read_outcomes(task.directory)
    counted = metrics.summarize(
        bill.watch(outcomes) if bill else outcomes,
        padded=padded,
        measured_s=_measured_s(task.directory),
        superseded=read_superseded(task.directory),
    )
    return counted | ({"cost_usd": bill.cost_usd} if bill else {})


def _measured_s(directory: Path) -> Mapping[int, float]:
    """Return the seconds by segment; of several processes under one number, all but the last had no outcome."""
    seconds = dict[int, float]()
    for segment in runfiles.read_segments(directory):
        seconds[segment.number] = seconds.get(segment.number, 0.0) + segment.duration_s
    return seconds


def _ended_by(task: Task, counted: Mapping[str, float]) -> RunnerError | None:
    """Return why the run did not reach its end, or came to nothing."""
    reason, failed = task.stop.reason, counted["failed_prompts"]
    if isinstance(reason, RequestError) and counted["completed_prompts"] + failed:
        return ServiceError(str(reason))  # what was answered was spent: the request was not simply wrong
    if reason is not None or counted["completed_prompts"]:
        return reason
    first = next((outcome.error for outcome in read_outcomes(task.directory) if isinstance(outcome, Failure)), None)
    said = f"; the first failed with {first.type}: {first.message}" if first else ""
    return RunnerError(f"none of the {failed:.0f} prompts was completed{said}")


def _show(task: Task, summary: Summary) -> None:
    display.print_samples(islice(read_outcomes(task.directory), _SAMPLES))
    display.print_metrics("Metrics", summary.metrics)
    display.print_line(f"Record        {display.short(task.directory)}")
    failed, completed = summary.metrics["failed_prompts"], summary.metrics["completed_prompts"]
    if failed:
        log.warning("%.0f prompts failed: see the field error in %s", failed, display.short(task.directory / FILE_NAME))
    if unsent := len(task.prompts) - completed - failed:
        log.warning("%.0f prompts were not generated", unsent)
    if failed or unsent:
        log.warning("to generate what is missing: %s", resume_command(task.directory))


def _tell(task: Task, summary: Summary, tracker: Tracker) -> Summary:
    """Have MLflow told, and say where it shows the run. An interrupt ends the waiting; the run has ended already."""
    try:
        if tracked := tracker.opened():
            summary = replace(summary, mlflow_run_id=tracked.run_id)
            runfiles.write_summary(task.directory, summary)
        tracker.finish()
    except KeyboardInterrupt:
        log.warning("MLflow is not waited for: the process that tells it goes on by itself")
    tracked = runfiles.read_tracked(task.directory)
    if tracked is not None and tracker.told:
        display.print_line(f"Browse        {ui_command(tracked.uri)}")
        display.print_line(f"              {page(tracked.uri, tracked.address)}")
    if not tracker.told:
        log.warning("MLflow does not have all of this run; tell it later: %s", resume_command(task.directory))
    return summary
