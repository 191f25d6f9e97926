"""Batch jobs of Bedrock: records and results in S3, and one of two APIs that creates jobs over them."""

from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO, Protocol

from runner.config.schema import GenerationParams
from runner.providers.bedrock.job_settings import JobSettings
from runner.providers.bedrock.job_storage import JobStorage
from runner.providers.errors import CallError
from runner.providers.protocols import JobDiscount, JobLimits, JobResult, JobStatus
from runner.types import Prompt

_MAX_RECORDS, _MAX_FILE_BYTES = 50_000, 10**9
_DISCOUNT = JobDiscount(
    ratio=0.5, source="aws.amazon.com/bedrock/pricing: batch inference at 50 % of the on-demand price, read 2026-11"
)


class JobApi(Protocol):
    """One of Bedrock's APIs of batch jobs."""

    def validate(self) -> None:
        """Raise ConfigError where the API cannot be used as configured."""

    def line(self, custom_id: str, prompt: Prompt, params: GenerationParams) -> bytes:
        """Return a request as a line of a job's file, without the line's end."""

    def create(self, source: str, name: str) -> str:
        """Create a job, and return its id."""

    def find(self, name: str) -> str | None:
        """Return the id of the newest job with this name."""

    def poll(self, job_id: str) -> JobStatus:
        """Return how far a job is."""

    def folder(self, job_id: str) -> str:
        """Return the folder of a job's results in S3, with a slash at its end."""

    def collect(self, job_id: str, params: GenerationParams) -> Iterator[JobResult]:
        """Yield a job's results as they are read."""

    def cancel(self, job_id: str) -> None:
        """Stop a job. One that has ended by itself is left as it is."""

    def close(self) -> None:
        """Close the connection."""


class BedrockJobs:
    """The batch jobs of a provider, which is the only subclass.

    Args:
        api: creates jobs.
        storage: has their files.
        settings: `provider.job`.
    """

    def __init__(self, api: JobApi, storage: JobStorage, settings: JobSettings) -> None:
        self._jobs, self._storage, self._job = api, storage, settings

    def job_limits(self) -> JobLimits:
        """Return what one job may hold, by the default quotas."""
        return JobLimits(
            min_requests=self._job.min_records,
            max_requests=_MAX_RECORDS,
            max_bytes=_MAX_FILE_BYTES,
            window=f"up to {self._job.timeout_hours} hours, after which a job expires",
        )

    def job_discount(self) -> JobDiscount:
        """Return what AWS takes off the on-demand price."""
        return _DISCOUNT

    def validate_jobs(self, params: GenerationParams) -> None:
        """Raise ConfigError where a job has no role or no folder, or the model is not served in batches."""
        self._job.require("role_arn", "s3_input")
        self._jobs.validate()

    def job_line(self, custom_id: str, prompt: Prompt, params: GenerationParams) -> bytes:
        """Return a request as a line of a job's file."""
        return self._jobs.line(custom_id, prompt, params)

    def upload(self, file: BinaryIO, name: str) -> str:
        """Write the records to `provider.job.s3_input`; return the object's URI."""
        return self._storage.upload(file, name)

    def create(self, source: str, name: str) -> str:
        """Create a job. Where the service answers that it takes no such job, now or later, remove the records."""
        try:
            return self._jobs.create(source, name)
        except CallError as error:
            if error.policy.not_billed and not error.policy.retryable and not self._job.keep_files:
                with suppress(CallError):
                    self._storage.remove(source, None)
            raise

    def find(self, name: str) -> str | None:
        """Return the id of the newest job with this name."""
        return self._jobs.find(name)

    def poll(self, job_id: str) -> JobStatus:
        """Return how far a job is."""
        return self._jobs.poll(job_id)

    def collect(self, job_id: str, params: GenerationParams) -> Iterator[JobResult]:
        """Yield the results of a job's files. A job that has processed nothing has no file."""
        return self._jobs.collect(job_id, params)

    def cancel(self, job_id: str) -> None:
        """Stop a job."""
        self._jobs.cancel(job_id)

    def remove_files(self, source: str, job_id: str) -> None:
        """Remove a job's records and results, unless `provider.job.keep_files` is set."""
        if not self._job.keep_files:
            self._storage.remove(source, self._jobs.folder(job_id))

    def close_jobs(self) -> None:
        """Close the connections."""
        self._storage.close()
        self._jobs.close()
