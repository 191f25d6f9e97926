"""Mode job: prompts are handed to a service's batch facility as files, and their results are collected hours later.

A job goes through these states; each arrow is on disk (jobs.json) before the next step begins, so that a process that
is killed at any point is followed by one that goes on there:

```text
            form            upload             create               poll                     collect
backlog ----------> formed ----------> uploaded ----------> created ----------> ended ----------------> collected
   ^                  |                   |  ^                 |                   |
   |                  | killed: again     |  | killed: find    | refused           | not answered, formed by an
   |                  v                   |  | by name first   v                   | earlier process
   |               (same lines)           |  '-- queue full  the run ends          |
   '------------------------------------------------------------------------------'
```

A prompt that an ended job did not answer is a failure, and one of an earlier process's job returns to the backlog,
unless too few return for another job.
"""

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from runner.batching.base import Mode, PendingPrompts
from runner.batching.job_context import JobContext
from runner.batching.job_files import counted_prompts, custom_id
from runner.batching.job_results import JobResults
from runner.batching.job_sender import JobSender
from runner.config.schema import BatchConfig, GenerationParams
from runner.dispatch.blocking_requests import BlockingRequests
from runner.dispatch.retry import jittered_wait_s
from runner.errors import AccessError, ServiceError, Submitted
from runner.providers.errors import CallError
from runner.providers.protocols import JobProvider, JobStatus
from runner.record.jobs import JobLog, JobRecord
from runner.text import plural
from runner.types import ErrorInfo, Generated, Outcome, Prompt, Timing

log = logging.getLogger(__name__)

_CHUNK = 256
"""Results that are written to the record at once."""
_POLL_GROWTH = 1.5
_MAX_REASONS = 30
"""Reasons of the service that a message repeats."""


def generate(
    provider: JobProvider, pending: PendingPrompts, params: GenerationParams, config: BatchConfig
) -> Generator[Sequence[Outcome]]:
    """Yield outcomes as the results of jobs are collected; `Outcome.batch` is the job's number within the run.

    Raises:
        Submitted: `batch.detach` is set, and jobs are open.
        ConfigError: prompts are left that the service takes in no job.
        AccessError, ServiceError: the service refuses a job, or every request about one.
    """
    if pending.jobs is None:
        raise RuntimeError("mode job needs the record of the run's jobs")
    yield from _Jobs(provider, pending, pending.jobs, params, config).run()


class _Jobs:
    """The jobs of one process of a run."""

    def __init__(
        self,
        provider: JobProvider,
        pending: PendingPrompts,
        context: JobContext,
        params: GenerationParams,
        config: BatchConfig,
    ) -> None:
        self._provider, self._pending, self._context, self._params = provider, pending, context, params
        self._requests = BlockingRequests(max_attempts=context.max_attempts, should_stop=pending.should_stop)
        self._sender = JobSender(provider, pending, context, params, config, self._requests)
        self._poll_s = context.min_poll_s
        self._inherited = frozenset(job.number for job in context.jobs.jobs)
        """Jobs of earlier processes; not by their segment, which the process after one without outcomes has too."""

    @property
    def _log(self) -> JobLog:
        return self._context.jobs

    def run(self) -> Generator[Sequence[Outcome]]:
        """Yield outcomes until every prompt has one, or the run is to stop."""
        with self._stop_on_call_errors():
            for job in self._log.jobs:
                if job.is_collected:
                    self._clean(job)
            yield from self._run()
            if self._log.open_jobs:
                self._leave()

    def _run(self) -> Generator[Sequence[Outcome]]:
        while not self._pending.should_stop() and (self._log.open_jobs or self._sender.backlog):
            for job in self._log.open_jobs:
                yield from self._advance(job)
            jobs = self._log.next_number
            self._sender.submit_backlog()
            yield from self._fail_unsendable()
            if self._log.next_number > jobs:
                self._poll_s = self._context.min_poll_s
            if self._context.detach and self._log.open_jobs:
                message = self._submitted_message()
                log.info("%s", message)
                raise Submitted(message)
            if self._log.open_jobs or self._sender.backlog:
                self._wait()

    # one step of a job

    def _advance(self, job: JobRecord) -> Iterator[Sequence[Outcome]]:
        """Take a job one state further, as far as the service is."""
        if self._pending.should_stop():
            return
        if job.job_id is None and not self._sender.is_blocked:
            job = self._sender.create(job)
        if job.job_id is None:
            return
        job_id = job.job_id
        status = self._requests.send(self._provider.poll, job_id)
        job = self._note(job, job_id, status)
        if status.phase == "queue_full":
            self._sender.postpone(job)
        elif status.phase == "refused":
            self._sender.settle(job)
            raise ServiceError(self._refusal(job, status))
        elif status.phase == "ended":
            yield from self._collect(job, job_id, status)

    def _note(self, job: JobRecord, job_id: str, status: JobStatus) -> JobRecord:
        """Record and log what the service says of a job."""
        counted = "" if status.total is None else f", {status.completed or 0:,} of {status.total:,} requests done"
        failed = f", {status.failed:,} failed" if status.failed else ""
        level = logging.DEBUG if status.state == job.state and not counted else logging.INFO
        log.log(level, "job %s: %s%s%s", job_id, status.state, counted, failed)
        return self._log.save(
            job,
            state=status.state,
            created_at=status.created_at or job.created_at,
            started_at=status.started_at or job.started_at,
            ended_at=(status.ended_at or datetime.now(UTC)) if status.phase == "ended" else None,
        )

    # results

    def _collect(self, job: JobRecord, job_id: str, status: JobStatus) -> Iterator[Sequence[Outcome]]:
        """Yield the outcomes of an ended job, each prompt's once, and remove the job's files."""
        prompts = {custom_id(prompt): number for number, prompt in self._prompts_of(job)}
        recorded = self._context.recorded_ids(job.number)
        answered = {key for key, number in prompts.items() if self._pending.prompts[number].id in recorded}
        results = JobResults(self._provider, job_id, self._params, prompts.keys(), answered)
        chunk: list[tuple[Prompt, Generated]] = []
        for key, generated in self._retrying(results):
            chunk.append((self._pending.prompts[prompts[key]], generated))
            if len(chunk) == _CHUNK:
                yield self._finish(chunk, job)
                chunk = []
        if chunk:
            yield self._finish(chunk, job)
        left = sorted(number for key, number in prompts.items() if key not in answered)
        results.log_oddities()
        if left and (job.number not in self._inherited or not self._sender.take_back(left)):
            yield from self._fail(left, job, status)
        self._clean(self._sender.settle(job))

    def _clean(self, job: JobRecord) -> None:
        """Remove a collected job's files from the service."""
        if job.source and job.job_id and not job.is_cleaned:
            try:
                self._requests.send(self._provider.remove_files, job.source, job.job_id)
            except CallError as error:  # a credential may have no right to it, and the results are there
                log.warning("the files of job %s are left at the service: %s", job.job_id, error)
            else:
                self._log.save(job, is_cleaned=True)

    def _fail_unsendable(self) -> Iterator[Sequence[Outcome]]:
        """Yield failures for prompts that no file can hold."""
        unsendable, self._sender.unsendable = self._sender.unsendable, {}
        for number, error in unsendable.items():
            info = ErrorInfo(type=error.type, message=error.message, retryable=error.policy.retryable)
            timing = Timing(started_at=datetime.now(UTC), latency_s=None)
            failed = Generated(model=self._context.model_id, timing=timing, error=info)
            yield self._pending.finish_call([(self._pending.prompts[number], failed)], batch=self._log.next_number)

    def _retrying(self, results: "JobResults") -> Iterator[tuple[str, Generated]]:
        """Yield results; where the download breaks off, begin it again, and yield the rest."""
        for attempt in range(1, self._context.max_attempts + 1):
            try:
                yield from results.read()
            except CallError as error:
                if not error.policy.retryable or attempt == self._context.max_attempts:
                    raise
                log.warning("the results break off (%s): reading them again", error)
                self._requests.sleep(jittered_wait_s(attempt))
            else:
                return

    def _finish(self, chunk: Sequence[tuple[Prompt, Generated]], job: JobRecord) -> Sequence[Outcome]:
        self._context.budget.spend(generated for _, generated in chunk)
        return self._pending.finish_call(chunk, batch=job.number)

    def _fail(self, left: Sequence[int], job: JobRecord, status: JobStatus) -> Iterator[Sequence[Outcome]]:
        """Yield failures for the prompts that an ended job has no result for."""
        message = "; ".join([f"job {job.job_id} ended ({status.state}) without this prompt's result", *status.reasons])
        log.warning("%s of %d prompts; to submit them again: %s", message, len(left), self._context.resume_command)
        timing = Timing(started_at=status.created_at or job.planned_at, latency_s=None)
        error = ErrorInfo(type=status.state, message=message, retryable=True)
        for start in range(0, len(left), _CHUNK):
            prompts = [self._pending.prompts[number] for number in left[start : start + _CHUNK]]
            failed = Generated(model=self._context.model_id, timing=timing, error=error)
            yield self._pending.finish_call([(prompt, failed) for prompt in prompts], batch=job.number)

    # the end

    def _leave(self) -> None:
        """At a stop, cancel the open jobs if a person says so; else they go on at the service."""
        created = [job for job in self._log.open_jobs if job.job_id is not None]
        if not created:
            return
        go = plural(len(created), "goes", "go")
        log.warning("%s %s on at the service; to collect: %s", _jobs(len(created)), go, self._context.resume_command)
        if self._context.should_cancel(created):
            for job in created:
                self._requests.send(self._provider.cancel, job.job_id or "")
            log.warning("the service was asked to cancel; what it has generated is collected by the same command")

    def _submitted_message(self) -> str:
        prompts = sum(job.count for job in self._log.open_jobs)
        words = f"{_jobs(len(self._log.open_jobs))} of {counted_prompts(prompts)} submitted"
        left, window = len(self._sender.backlog), self._provider.job_limits().window
        rest = f", {left} prompts wait for room in the account's queue" if left else ""
        return f"{words}{rest} (the service takes {window}); to collect: {self._context.resume_command}"

    def _refusal(self, job: JobRecord, status: JobStatus) -> str:
        listed = "\n".join(f"  {reason}" for reason in status.reasons[:_MAX_REASONS])
        return (
            f"the service refused job {job.job_id} ({status.state}), which has {job.count} prompts:\n"
            f"{listed or '  (it gives no reason)'}\ncorrect the cause, then: {self._context.resume_command}"
        )

    # helpers

    def _prompts_of(self, job: JobRecord) -> Iterator[tuple[int, Prompt]]:
        return ((number, self._pending.prompts[number]) for number in job.prompt_numbers)

    def _wait(self) -> None:
        """Wait until the next poll is due; waits grow while nothing changes."""
        self._requests.sleep(self._poll_s)
        self._poll_s = min(self._poll_s * _POLL_GROWTH, self._context.max_poll_s)
        self._sender.is_blocked = self._sender.is_blocked and any(job.job_id for job in self._log.open_jobs)

    @contextmanager
    def _stop_on_call_errors(self) -> Iterator[None]:
        """Raise an error of the run for an error of the service."""
        try:
            yield
        except CallError as error:
            if any(job.job_id for job in self._log.jobs):
                message = f"{error}: the run's jobs are on record; to go on: {self._context.resume_command}"
                raise ServiceError(message) from error
            raise AccessError(str(error)) from error


def _jobs(count: int) -> str:
    return f"{count} {plural(count, 'job', 'jobs')}"


JOB = Mode(
    name="job",
    protocol=JobProvider,
    request_protocol=None,
    size_unit="prompts in one job file",
    generate=generate,
    is_job=True,
)
