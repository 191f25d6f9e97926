"""Executes a prepared run: load the model, warm up, generate, then close the record. Shared by new and resumed runs."""

import logging
import time
from collections.abc import Iterator, Mapping, Set
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from runner import environment
from runner.batching.base import PendingPrompts
from runner.dispatch.stop import Stopped
from runner.errors import Interrupted, JournalError, RecordError, RunnerError, UnforeseenError
from runner.providers.protocols import DeviceMemory
from runner.record.manifest import environment_changes, resolved_changes
from runner.record.writer import OutcomeWriter
from runner.run.failure_limit import FailureLimit
from runner.run.finish import Measured, begin_segment, close_record
from runner.run.gpu import gpu_load, read_gpu
from runner.run.jobs import job_context
from runner.run.machine import MachineCounters
from runner.run.prepare import PreparedRun
from runner.run.result import RunObserver, RunResult
from runner.run.signals import GracePeriodExpired, Signals, handle_signals
from runner.run.warm_up import warm_up
from runner.text import excerpt, first_line
from runner.tracking.publisher import RunPublisher, StartWorker, start_worker

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    """What is known of a run before its first prompt is sent."""

    load_s: float
    warmup_s: float | None
    machine: Mapping[str, Any]


def execute(
    run: PreparedRun,
    writer: OutcomeWriter,
    skipped: Set[str],
    observer: RunObserver,
    start_worker: StartWorker = start_worker,
) -> RunResult:
    """Generate the prompts that are not skipped, and close the record.

    Args:
        run: the prepared run.
        writer: open; outcomes are appended to it.
        skipped: ids of prompts that are not generated, because an earlier process did.
        observer: is called while the run goes on.
        start_worker: starts the process that publishes to MLflow.

    Raises:
        RunnerError: the run could not be finished, or no prompt was completed; its record is closed all the same.
        Interrupted: so, and a signal came meanwhile.
    """
    log.info("%s: %d prompts, into %s", run.config.label, len(run.prompts) - len(skipped), run.folder.display_path)
    pending = PendingPrompts(
        prompts=run.prompts, skipped=skipped, model_id=run.config.model.id, segment=writer.segment,
        should_stop=lambda: run.calls.stop.is_set,
    )  # fmt: skip
    with (
        RunPublisher(run.folder, run.config.tracking.uri, run.waits, start=start_worker) as publisher,
        handle_signals() as signals,
        run.folder.recording_failure(),
        _closing_record(run, writer),
    ):
        measured = _measure(run, pending, writer, observer, signals) if len(skipped) < len(run.prompts) else None
        result, error = close_record(run, writer, measured)
        observer.finished(result)
        result = replace(_publish(result, publisher, signals), is_interrupted=signals.came)
        observer.published(result)
    if result.status == "FAILED" and error:
        raise Interrupted(f"interrupted while the record was closed; before, {error}") if signals.came else error
    return result


@contextmanager
def _closing_record(run: PreparedRun, writer: OutcomeWriter) -> Iterator[None]:
    """Close the record, with its metrics, after an exception that nobody foresaw. An earlier summary stays."""
    try:
        yield
    except RunnerError:
        raise
    except BaseException as error:
        if run.folder.read_summary() is None:
            run.calls.stop.request(UnforeseenError(f"{type(error).__name__}: {excerpt(first_line(error))}"))
            close_record(run, writer, None)
        raise


def _measure(
    run: PreparedRun, pending: PendingPrompts, writer: OutcomeWriter, observer: RunObserver, signals: Signals
) -> Measured | None:
    """Generate, and return what only this process can measure; None if the run was interrupted before."""
    with ExitStack() as opened:
        try:
            ready = _load(run, pending, writer.segment, signals, opened)
        except KeyboardInterrupt:
            run.calls.stop.interrupt()
            return None
        begin_segment(run, writer.segment)
        run.folder.remove_summary()  # not earlier: a run that cannot begin leaves the record unchanged
        provider = run.calls.provider
        gpu_peak_mb = provider.track_gpu_memory() if isinstance(provider, DeviceMemory) else None
        device = str(provider.describe().get("device"))
        gpu, memory, before = read_gpu(device), environment.PeakMemory(), MachineCounters.read()
        duration_s = _generate(run, pending, writer, observer, signals)
        measured = Measured(
            load_s=ready.load_s,
            warmup_s=ready.warmup_s,
            duration_s=duration_s,
            peak_memory_mb=memory.read_mb(),
            peak_gpu_memory_mb=gpu_peak_mb() if gpu_peak_mb else None,
            client_cpu_s=None if provider.is_local or not run.calls.limited else run.calls.limited.cpu_s,
            machine=before.until(MachineCounters.read()),
        )
        load = asdict(measured.machine) | {"gpu": gpu_load(gpu, read_gpu(device))}
        _update_environment(run, {**ready.machine, "machine_load": load})
    return measured


def _load(run: PreparedRun, pending: PendingPrompts, segment: int, signals: Signals, opened: ExitStack) -> _Ready:
    """Load the model or open the client, record the environment, and warm up.

    Raises:
        KeyboardInterrupt: a signal came.
    """
    start = time.perf_counter()
    with signals.interruptible():
        opened.enter_context(run.calls.callee)
        load_s = time.perf_counter() - start
        machine = environment.describe()
    _record_environment(run, machine, segment)
    with signals.interruptible():
        warmup_s = warm_up(run, pending)
    return _Ready(load_s=load_s, warmup_s=warmup_s, machine=machine)


def _record_environment(run: PreparedRun, machine: Mapping[str, Any], segment: int) -> None:
    """Write the environment of this process, and warn if it differs from that of the run's last process.

    Raises:
        RecordError: other servers, another device or another model would go on with the run.
    """
    before, now = run.folder.read_environment(), _environment(run, machine)
    if (refused := resolved_changes(before, now)) and not run.accepts_changes:
        listed = "\n".join(f"  {change}" for change in refused)
        raise RecordError(
            f"{run.folder.display_path} began with something else, and one run has one source of answers:\n{listed}\n"
            "set it as it was (the environment variable, region, device or model), start a new run, or go on with "
            "--accept-endpoint"
        )
    if changes := environment_changes(before, now):
        listed = "\n".join(f"  {change}" for change in changes)
        log.warning("the environment has changed since the run began, which may affect results:\n%s", listed)
        run.folder.keep_environment(segment - 1)
    run.folder.write_environment(now)


def _update_environment(run: PreparedRun, machine: Mapping[str, Any]) -> None:
    """Write the environment again, because a provider has learnt from its answers what served them."""
    try:
        run.folder.write_environment(_environment(run, machine))
    except JournalError as error:  # a full disk, say; the record is closed with the outcomes until then
        run.calls.stop.request(error)


def _environment(run: PreparedRun, machine: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the machine, what the provider resolved, and what its tokens cost."""
    price = run.calls.price
    source = {"price": price.source} if price else {}
    return {
        **machine,
        "provider": {**run.calls.provider.describe(), **source},
        **({"price": asdict(price)} if price else {}),
    }


def _generate(
    run: PreparedRun, pending: PendingPrompts, writer: OutcomeWriter, observer: RunObserver, signals: Signals
) -> float:
    """Generate the pending prompts and write each call's outcomes as they come; return the seconds of that loop.

    If the loop ends early, the stop request has the reason.
    """
    stop, config, mode = run.calls.stop, run.config, run.calls.mode
    if run.calls.limited and pending.skipped:
        run.calls.limited.answers.any = True  # an earlier process was answered
    failures = FailureLimit(config, run.folder.outcomes, pending.skipped, stop)
    pending = replace(pending, on_outcomes=failures.count, jobs=job_context(run, observer) if mode.is_job else None)
    start = end = time.perf_counter()
    try:
        with (
            observer.generating(len(run.prompts), completed=len(pending.skipped)) as on_outcomes,
            signals.stopping(stop, grace_s=run.waits.grace_s, announce=not mode.is_job),
        ):
            start = time.perf_counter()
            try:
                calls = mode.generate(run.calls.callee, pending, config.params(), config.batch)
                with closing(calls):
                    for outcomes in calls:
                        writer.append(outcomes)
                        on_outcomes(outcomes)
            finally:
                end = time.perf_counter()
    except Stopped:
        pass  # the stop request has the reason
    except RunnerError as error:
        stop.request(error)
    except KeyboardInterrupt:
        stop.interrupt()
    except GracePeriodExpired:
        in_flight = "open batch jobs go on at the service" if mode.is_job else "requests still in flight are cancelled"
        log.warning("after %.0f s: %s", run.waits.grace_s, in_flight)
    return end - start


def _publish(result: RunResult, publisher: RunPublisher, signals: Signals) -> RunResult:
    """Have the record published to MLflow. An interrupt ends the waiting; the run has ended already."""
    try:
        with signals.interruptible():
            reference = publisher.wait_until_open()
        if reference and reference.run_id != result.summary.mlflow_run_id:  # the store was slower than the run
            result = replace(result, summary=replace(result.summary, mlflow_run_id=reference.run_id))
            result.folder.write_summary(result.summary)
        with signals.interruptible():
            publisher.finish()
    except KeyboardInterrupt:
        if not publisher.is_published:
            log.warning("not waiting for MLflow: the worker that publishes goes on by itself")
    return replace(result, mlflow_run=result.folder.read_mlflow_run(), is_published=publisher.is_published)
