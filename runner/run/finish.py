"""Closes a run's record: counts its outcomes in one pass, and writes how it ended, whatever ended it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from runner import metrics
from runner.errors import JournalError, RunnerError, ServiceError, UsageError
from runner.pricing import Price
from runner.record.folder import RunFolder
from runner.record.manifest import Segment, Series, Summary, status_after
from runner.record.writer import OutcomeWriter
from runner.run.machine import MachineLoad
from runner.run.prepare import PreparedRun
from runner.run.result import RunResult
from runner.types import ErrorInfo, Failure, Outcome

_IN_FLIGHT = "batch/requests_in_flight"
_SAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What only the process that generated can measure."""

    load_s: float
    warmup_s: float | None
    duration_s: float
    peak_memory_mb: float | None
    machine: MachineLoad

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of the contract, without `duration_s`, which sums over the processes of a run."""
        named = {"load_s": self.load_s, "warmup_s": self.warmup_s, "peak_memory_mb": self.peak_memory_mb}
        return {name: value for name, value in named.items() if value is not None} | self.machine.metrics


class _Digest:
    """What is kept of the outcomes while they are read once: metrics, cost, samples, and the first error."""

    def __init__(self, run: PreparedRun) -> None:
        self.samples: list[Outcome] = []
        self.first_error: ErrorInfo | None = None
        self._cost_usd = 0.0
        padded = run.calls.mode.pads_rows and run.calls.provider.is_local
        outcomes = self._watch(run.folder.outcomes.read_marked(), run.calls.price)
        counted = metrics.summarize(outcomes, padded=padded, measured_s=_segment_seconds(run.folder))
        self.metrics: Mapping[str, float] = counted | ({"cost_usd": self._cost_usd} if run.calls.price else {})

    def _watch(self, outcomes: Iterable[tuple[Outcome, bool]], price: Price | None) -> Iterator[tuple[Outcome, bool]]:
        for outcome, is_superseded in outcomes:
            if not is_superseded:
                self._keep(outcome)
                if price:
                    self._cost_usd += price.outcome_usd(outcome)
            yield outcome, is_superseded

    def _keep(self, outcome: Outcome) -> None:
        if len(self.samples) < _SAMPLES:
            self.samples.append(outcome)
        if self.first_error is None and isinstance(outcome, Failure):
            self.first_error = outcome.error


def close_record(
    run: PreparedRun, writer: OutcomeWriter, measured: Measured | None
) -> tuple[RunResult, RunnerError | None]:
    """Write how the run ended, with the metrics of all that is kept; return that, and what ended it early.

    Args:
        run: the run.
        writer: still open.
        measured: None where nothing was left to generate.

    Raises:
        UsageError: nothing is kept, for nothing was answered.
        JournalError: the disk does not take it.
    """
    stop = run.calls.stop
    for step in (writer.sync, partial(_write_segment, run, writer.segment, measured)):
        try:
            step()
        except JournalError as error:
            stop.request(error)
    digest = _Digest(run)
    ended_by = _why_it_ended(stop.reason, digest)
    if isinstance(ended_by, UsageError):
        raise ended_by
    summary = _summary(run, digest, ended_by, measured)
    try:
        run.folder.write_summary(summary)
    except JournalError as error:
        raise ended_by if isinstance(ended_by, JournalError) else error from None
    result = RunResult(summary=summary, folder=run.folder, prompts=len(run.prompts), samples=digest.samples)
    return result, ended_by


def _write_segment(run: PreparedRun, number: int, measured: Measured | None) -> None:
    """Write what only this process can measure of its part of the run."""
    if measured is not None:
        before = run.folder.read_segments()
        segment = Segment(number=number, duration_s=measured.duration_s, series=_series(run, before))
        run.folder.write_segments([*before, segment])


def _series(run: PreparedRun, before: Sequence[Segment]) -> Series:
    """Return how concurrency changed in this process; its steps continue those of earlier segments."""
    first = max((step + 1 for segment in before for step, _ in segment.series.get(_IN_FLIGHT, ())), default=0)
    path = run.calls.concurrency.path if run.calls.concurrency else ()
    return {_IN_FLIGHT: [(first + step, float(requests)) for step, requests in path]} if path else {}


def _segment_seconds(folder: RunFolder) -> Mapping[int, float]:
    """Return seconds by segment; of several processes under one number, all but the last had no outcome."""
    seconds = dict[int, float]()
    for segment in folder.read_segments():
        seconds[segment.number] = seconds.get(segment.number, 0.0) + segment.duration_s
    return seconds


def _why_it_ended(reason: RunnerError | None, digest: _Digest) -> RunnerError | None:
    """Return why the run did not reach its end, or completed nothing."""
    completed, failed = digest.metrics["completed_prompts"], digest.metrics["failed_prompts"]
    if isinstance(reason, UsageError) and completed + failed:
        return ServiceError(str(reason))  # what was answered was spent: the request was not simply wrong
    if reason is not None or completed:
        return reason
    first = digest.first_error
    detail = f"; the first failed with {first.type}: {first.message}" if first else ""
    return RunnerError(f"none of the {failed:.0f} prompts was completed{detail}")


def _summary(run: PreparedRun, digest: _Digest, error: RunnerError | None, measured: Measured | None) -> Summary:
    """Return the summary; what only an earlier process could measure is taken from its own."""
    before = run.folder.read_summary() if measured is None else None
    own: Mapping[str, float] = {}
    if measured is not None:
        own = measured.metrics
    elif before:
        own = {name: value for name, value in before.metrics.items() if name in metrics.NAMES}
    reference = run.folder.read_mlflow_run()
    path = [point for segment in run.folder.read_segments() for point in segment.series.get(_IN_FLIGHT, ())]
    return Summary(
        status=status_after(error) if error else "FINISHED",
        mlflow_run_id=reference.run_id if reference else None,
        metrics=metrics.in_order({**digest.metrics, **own}),
        series={_IN_FLIGHT: path} if path else before.series if before else {},
        error={"type": type(error).__name__, "message": str(error)} if error else None,
    )
