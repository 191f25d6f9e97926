"""Closes a run's record: reads its outcomes in one pass, and writes metrics and how the run ended."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from runner.dispatch.budget import lost_usd, possibly_billed
from runner.errors import JournalError, RunnerError, ServiceError, UsageError
from runner.metrics.definitions import MEASURED, in_order
from runner.metrics.summary import summarize
from runner.record.folder import RunFolder
from runner.record.jobs import duration_s, job_times
from runner.record.manifest import Segment, Series, Summary, status_after
from runner.record.writer import OutcomeWriter
from runner.run.first_call import FirstCalls
from runner.run.machine import MachineLoad
from runner.run.prepare import PreparedRun
from runner.run.result import RunResult
from runner.types import ErrorInfo, Failure, Outcome

_IN_FLIGHT = "batch/requests_in_flight"
_SAMPLES = 3
_COSTS = ("cost_usd", "cost_at_most_usd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What only the process that generated can measure."""

    load_s: float
    warmup_s: float | None
    duration_s: float
    peak_memory_mb: float | None
    peak_gpu_memory_mb: float | None
    client_cpu_s: float | None
    machine: MachineLoad

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of the contract, without `duration_s`, which sums over the processes of a run."""
        client_s = self.client_cpu_s
        named = {
            "load_s": self.load_s,
            "warmup_s": self.warmup_s,
            "client_cpu_share": None if client_s is None else client_s / max(self.duration_s, 1e-9),
            "peak_memory_mb": self.peak_memory_mb,
            "peak_gpu_memory_mb": self.peak_gpu_memory_mb,
        }
        return {name: value for name, value in named.items() if value is not None} | self.machine.metrics


class _Digest:
    """What one pass over the outcomes gives: metrics, cost, samples, and the first error."""

    def __init__(self, run: PreparedRun) -> None:
        self.samples: list[Outcome] = []
        self.first_error: ErrorInfo | None = None
        self._run, self._answers_usd = run, 0.0
        self._with_lost_answers: list[Outcome] = []
        self._first_calls = FirstCalls()
        padded = run.calls.mode.pads_rows and run.calls.provider.is_local
        outcomes = self._observed(run.folder.outcomes.read_marked())
        jobs = run.folder.read_jobs()
        measured_s = {0: duration_s(jobs) or 0.0} if jobs else _segment_seconds(run.folder)
        counted = summarize(outcomes, padded=padded, measured_s=measured_s) | job_times(jobs)
        ratio = self._first_calls.ratio() if run.calls.provider.is_local else None
        first_call = {} if ratio is None else {"first_call_ratio": ratio}
        if jobs and not measured_s[0]:
            counted.pop("duration_s")  # no job has ended
        self.metrics: Mapping[str, float] = counted | self._costs(counted.get("duration_s", 0.0)) | first_call

    def _observed(self, outcomes: Iterable[tuple[Outcome, bool]]) -> Iterator[tuple[Outcome, bool]]:
        """Yield the outcomes unchanged; keep samples, the first error and what was paid, for superseded ones too."""
        price = self._run.calls.price
        for outcome, is_superseded in outcomes:
            if not is_superseded:
                self._keep(outcome)
                self._first_calls.add(outcome)
            if price:
                self._answers_usd += price.outcome_usd(outcome)
                if possibly_billed(outcome):
                    self._with_lost_answers.append(outcome)
            yield outcome, is_superseded

    def _costs(self, duration_s: float) -> dict[str, float]:
        """Return what is known to be billed, and with lost answers the most that may be; nothing without a price."""
        price = self._run.calls.price
        if price is None:
            return {}
        cost_usd = self._answers_usd + price.time_usd(duration_s)
        if price.usd_per_hour or not self._with_lost_answers:
            return {"cost_usd": cost_usd}
        lost = lost_usd(self._with_lost_answers, self._run.prompts, self._run.config.params(), price)
        return {"cost_usd": cost_usd, "cost_at_most_usd": cost_usd + lost}

    def _keep(self, outcome: Outcome) -> None:
        if len(self.samples) < _SAMPLES:
            self.samples.append(outcome)
        if self.first_error is None and isinstance(outcome, Failure):
            self.first_error = outcome.error


def close_record(
    run: PreparedRun, writer: OutcomeWriter, measured: Measured | None
) -> tuple[RunResult, RunnerError | None]:
    """Write how the run ended, with the metrics of its outcomes; return the result, and the error that ended the run.

    Args:
        run: the run.
        writer: still open.
        measured: None where nothing was left to generate.

    Raises:
        UsageError: the service refused the run's configuration before it answered any prompt; no summary is written.
        JournalError: the summary cannot be written, or the outcomes cannot be read.
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


def begin_segment(run: PreparedRun, number: int) -> None:
    """Record what this process changes of the configuration: a process that is killed writes no segment at its end."""
    if run.overrides:
        segment = Segment(number=number, duration_s=None, overrides=dict(run.overrides))
        run.folder.write_segments([*_earlier_segments(run, number), segment])


def _write_segment(run: PreparedRun, number: int, measured: Measured | None) -> None:
    """Add this process's segment to those of earlier processes."""
    if measured is not None:
        earlier = _earlier_segments(run, number)
        segment = Segment(
            number=number, duration_s=measured.duration_s, series=_series(run, earlier), overrides=dict(run.overrides)
        )
        run.folder.write_segments([*earlier, segment])


def _earlier_segments(run: PreparedRun, number: int) -> list[Segment]:
    """Return the segments of earlier processes. One without a duration and with this number has no outcome."""
    segments = run.folder.read_segments()
    return [segment for segment in segments if segment.number != number or segment.duration_s is not None]


def _series(run: PreparedRun, earlier: Sequence[Segment]) -> Series:
    """Return how concurrency changed in this process; its steps continue those of earlier segments."""
    first_step = max((step + 1 for segment in earlier for step, _ in segment.series.get(_IN_FLIGHT, ())), default=0)
    path = run.calls.concurrency.path if run.calls.concurrency else ()
    return {_IN_FLIGHT: [(first_step + step, float(requests)) for step, requests in path]} if path else {}


def _segment_seconds(folder: RunFolder) -> Mapping[int, float]:
    """Return the seconds of each segment; processes without an outcome have the number of the process after them."""
    seconds = dict[int, float]()
    for segment in folder.read_segments():
        if segment.duration_s is not None:
            seconds[segment.number] = seconds.get(segment.number, 0.0) + segment.duration_s
    return seconds


def _why_it_ended(reason: RunnerError | None, digest: _Digest) -> RunnerError | None:
    """Return the error of a run that ended early or completed no prompt; None for any other."""
    completed, failed = digest.metrics["completed_prompts"], digest.metrics["failed_prompts"]
    if isinstance(reason, UsageError) and completed + failed:
        return ServiceError(str(reason))  # answers were paid for, which a UsageError rules out
    if reason is not None or completed:
        return reason
    error = digest.first_error
    detail = f"; the first failed with {error.type}: {error.message}" if error else ""
    return RunnerError(f"none of the {failed:.0f} prompts was completed{detail}")


def _summary(run: PreparedRun, digest: _Digest, error: RunnerError | None, measured: Measured | None) -> Summary:
    """Return the summary.

    Where nothing was left to generate, what only a process could measure, and the cost at the price of then, stay as an
    earlier summary has them. The others are computed anew, all by the same rules.
    """
    earlier = run.folder.read_summary() if measured is None else None
    recorded: Mapping[str, float] = {}
    if measured is not None:
        recorded = measured.metrics
    elif earlier:
        recorded = {name: value for name, value in earlier.metrics.items() if name in (*MEASURED, *_COSTS)}
    reference = run.folder.read_mlflow_run()
    path = [point for segment in run.folder.read_segments() for point in segment.series.get(_IN_FLIGHT, ())]
    return Summary(
        status=status_after(error) if error else "FINISHED",
        mlflow_run_id=reference.run_id if reference else None,
        metrics=in_order({**digest.metrics, **recorded}),
        series={_IN_FLIGHT: path} if path else earlier.series if earlier else {},
        error={"type": type(error).__name__, "message": str(error)} if error and error.exit_code else None,
    )
