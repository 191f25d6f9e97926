"""Forms batch jobs of the prompts that are left, uploads their files, and creates each job once."""

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from runner.batching.base import PendingPrompts
from runner.batching.job_context import JobContext
from runner.batching.job_files import check_job_sizes, counted_prompts, custom_id, job_size, last_job
from runner.config.schema import BatchConfig, GenerationParams
from runner.dispatch.blocking_requests import BlockingRequests
from runner.dispatch.call import max_input_tokens
from runner.errors import JournalError
from runner.providers.errors import CallError
from runner.providers.protocols import JobProvider
from runner.record.jobs import JobRecord, as_ranges

log = logging.getLogger(__name__)


class JobSender:
    """The prompts that are in no open job, and the way from there to a created job.

    Args:
        provider: the service.
        pending: what to generate.
        context: the record of the jobs, and the budget.
        params: how to generate.
        config: the size of a job.
        requests: how requests about jobs are sent.

    Attributes:
        backlog: numbers of the prompts that are in no job yet, ascending.
        unsendable: why a prompt cannot be written into a file, by its number.
        is_blocked: whether the account's queue or the budget has no room until an open job ends.

    Raises:
        ConfigError: prompts are left that the service takes in no job.
    """

    def __init__(
        self,
        provider: JobProvider,
        pending: PendingPrompts,
        context: JobContext,
        params: GenerationParams,
        config: BatchConfig,
        requests: BlockingRequests,
    ) -> None:
        self._provider, self._pending, self._context, self._params = provider, pending, context, params
        self._requests, self._log, self._limits = requests, context.jobs, provider.job_limits()
        self._max_requests = job_size(config, self._limits)
        submitted = {number for job in self._log.open_jobs for number in job.prompt_numbers}
        self.backlog = [number for number, _ in pending.numbered() if number not in submitted]
        self.is_blocked = False
        self.unsendable: dict[int, CallError] = {}
        check_job_sizes(len(self.backlog), self._max_requests, self._limits)
        for job in self._log.open_jobs:
            context.budget.reserve(self._max_cost_usd(job))

    def take_back(self, numbers: Iterable[int]) -> bool:
        """Add prompts of an ended job to the backlog; return False where the service takes no job so small."""
        backlog = sorted([*self.backlog, *numbers])
        fits = not backlog or last_job(len(backlog), self._max_requests) >= self._limits.min_requests
        self.backlog = backlog if fits else self.backlog
        return fits

    def submit_backlog(self) -> None:
        """Form, upload and create jobs of the prompts that are left, until the account's queue is full."""
        while self.backlog and not self.is_blocked and not self._pending.should_stop():
            path = self._path(self._log.next_number)
            try:
                with path.open("wb") as file:
                    job = self._form(file)
                if job is not None:
                    self.create(job, path)
            except OSError as error:
                raise JournalError(f"{path} cannot be written: {error.strerror}") from error
            finally:
                path.unlink(missing_ok=True)

    def _form(self, file: BinaryIO) -> JobRecord | None:
        """Write the lines of the next job, and record it; None while the budget has no room beside the open jobs."""
        numbers, tried = self._write_lines(file)
        if not numbers:
            self.backlog = self.backlog[tried:]
            return None
        number = self._log.next_number
        job = JobRecord(
            number=number,
            name=f"runner-{self._context.run_key}-{number}",
            prompts=as_ranges(numbers),
            planned_at=datetime.now(UTC),
        )
        max_cost_usd = self._max_cost_usd(job)
        if not self._context.budget.has_room(max_cost_usd):
            if error := self._context.budget.refusal(max_cost_usd):
                raise error
            self.is_blocked = True
            return None
        self._context.budget.reserve(max_cost_usd)
        self._log.save(job)
        self.backlog = self.backlog[tried:]
        return job

    def _write_lines(self, file: BinaryIO) -> tuple[list[int], int]:
        """Write the lines of the next job; return the numbers of its prompts, and how many prompts were tried."""
        numbers: list[int] = []
        size = tried = 0
        for prompt_number in self.backlog[: self._max_requests]:
            try:
                line = self._line(prompt_number)
            except CallError as error:
                self.unsendable[prompt_number] = error
                line = b""
            if numbers and size + len(line) > self._limits.max_bytes:
                break
            tried += 1
            if line:
                file.write(line)
                numbers.append(prompt_number)
                size += len(line)
        return numbers, tried

    def create(self, job: JobRecord, path: Path | None = None) -> JobRecord:
        """Upload a job's file, unless the service has it, and create the job, unless it exists."""
        was_tried = path is None  # an earlier process, or an earlier try of this one, did not come to the job's id
        if job.source is None:
            job = self._log.save(job, source=self._upload(job, path))
        try:
            job_id = self._call_create(job, was_tried=was_tried)
        except CallError as error:
            if not error.policy.throttled:
                if not error.policy.retryable:  # the provider has removed the file of a job that nobody takes
                    self._log.save(job, source=None)
                raise
            log.info("job %s waits: %s", job.name, error)
            self.is_blocked = True
            return job
        log.info("job %s is created: %s", job_id, counted_prompts(job.count))
        return self._log.save(job, job_id=job_id)

    def _upload(self, job: JobRecord, path: Path | None) -> str:
        if path is None:
            path = self._path(job.number)
            with path.open("wb") as file:
                file.writelines(map(self._line, job.prompt_numbers))
        log.info("uploading job %d: %s", job.number, counted_prompts(job.count))

        def upload() -> str:
            with path.open("rb") as file:
                return self._provider.upload(file, job.name)

        try:
            return self._requests.send(upload)
        finally:
            path.unlink(missing_ok=True)

    def _call_create(self, job: JobRecord, *, was_tried: bool) -> str:
        """Create a job. Where an answer may have been lost, look for the job first."""
        source, tried = job.source or "", was_tried

        def create() -> str:
            nonlocal tried
            if tried and (found := self._provider.find(job.name)) is not None:
                return found
            tried = True
            return self._provider.create(source, job.name)

        return self._requests.send(create, retry_throttled=False)

    def postpone(self, job: JobRecord) -> None:
        """Have a job that found the account's queue full created again, under another name, once there is room."""
        name = f"runner-{self._context.run_key}-{job.number}-{job.attempts}"
        log.info("job %s found the account's queue full: it is created again later", job.job_id)
        self._log.save(
            job, name=name, attempts=job.attempts + 1, job_id=None, state=None, created_at=None, ended_at=None
        )
        self.is_blocked = True

    def settle(self, job: JobRecord) -> JobRecord:
        """Record that nothing more comes of a job."""
        self._context.budget.release(self._max_cost_usd(job))
        self.is_blocked = False
        return self._log.save(job, is_collected=True)

    def _line(self, number: int) -> bytes:
        prompt = self._pending.prompts[number]
        return self._provider.job_line(custom_id(prompt), prompt, self._params) + b"\n"

    def _path(self, number: int) -> Path:
        return self._context.folder / f"job-{number}.jsonl"

    def _max_cost_usd(self, job: JobRecord) -> float:
        """Return the cost of a job if every answer had `generation.max_tokens`; 0 without a limit."""
        if not self._context.budget.is_limited:
            return 0.0
        output_tokens = self._params.max_tokens * self._params.n
        return sum(
            self._context.budget.cost_usd(max_input_tokens(prompt), output_tokens)
            for prompt in map(self._pending.prompts.__getitem__, job.prompt_numbers)
        )
