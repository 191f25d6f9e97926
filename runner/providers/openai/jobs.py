"""Batch jobs over OpenAI's API: a file of requests is uploaded, its results are downloaded. Shared with Azure.

The SDK's own retries are off: the batch mode retries.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from types import TracebackType
from typing import Any, BinaryIO

from runner.config.schema import GenerationParams, ModelConfig
from runner.errors import ConfigError
from runner.providers.errors import RETRY, THROTTLED, CallError
from runner.providers.openai.client import Client
from runner.providers.openai.endpoints import EndpointName, RequestSettings
from runner.providers.openai.job_client import JobClient
from runner.providers.openai.job_results import JobResultReader
from runner.providers.openai.job_settings import JobApi, JobSettings
from runner.providers.openai.job_status import metadata_of, read_status, read_time
from runner.providers.openai.requests import RequestProvider
from runner.providers.protocols import JobDiscount, JobLimits, JobResult, JobStatus
from runner.providers.responses import max_answer_bytes, shape_errors
from runner.text import excerpt, first_line
from runner.types import Prompt, Timing

NAME_KEY = "runner_job"
"""The key of a job's metadata that has the job's name: OpenAI has no idempotency key for jobs."""
_NOT_READY = ("pending", "running")
"""States of an uploaded file that Azure still checks."""
_READY_WAIT_S = 15.0
_MAX_FILES = 20_000
"""Of an account's files, as many are looked through for uploads that were lost; a service keeps 10,000."""


class JobRequestProvider(RequestProvider):
    """Single requests, and batch jobs of the same requests.

    Args:
        job: settings of batch jobs; None for a server that has none.
        job_api: what the service takes in a job.
        client: has the address and the credential; this and the rest as in RequestProvider.
    """

    def __init__(
        self,
        *,
        job: JobSettings | None,
        job_api: JobApi,
        client: Client,
        model: ModelConfig,
        endpoint: EndpointName,
        settings: RequestSettings,
        stream: bool,
        unsupported_params: Sequence[str],
    ) -> None:
        super().__init__(
            client=client, model=model, endpoint=endpoint, settings=settings, stream=stream,
            unsupported_params=unsupported_params,
        )  # fmt: skip
        self._job, self._job_api = job, job_api
        self._job_client = JobClient(client, model.id)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection of jobs, if there is one."""
        self._job_client.close()

    def describe(self) -> Mapping[str, Any]:
        """Return what describes single requests, and what differs in a job: its lines are never streamed."""
        if self._job is None:
            return super().describe()
        urls = {"endpoint": self._job_endpoint, "line_url": self._line_url}
        return {**super().describe(), "job": {**self._job.model_dump(), **urls, "stream": False}}

    def job_limits(self) -> JobLimits:
        """Return what one job may hold."""
        return self._job_api.limits(self._job)

    def job_discount(self) -> JobDiscount:
        """Return what the service takes off its list price."""
        return self._job_api.discount

    def validate_jobs(self, params: GenerationParams) -> None:
        """Refuse a server without batch jobs, and service tiers, of which a job has its own."""
        if self._job is None:
            raise ConfigError(
                "batch.mode='job': provider.job=null says that this server has no batch jobs: set "
                "batch.mode=concurrent, or provider=openai and provider.base_url if the server has them"
            )
        tier = self._settings.service_tier
        if tier not in (None, "auto", "default"):
            raise ConfigError(
                f"provider.service_tier={tier!r} is for single requests, and a batch job has its own price and speed: "
                "set provider.service_tier=null, or batch.mode=concurrent"
            )

    def job_line(self, custom_id: str, prompt: Prompt, params: GenerationParams) -> bytes:
        """Return a request as a line of a job's file.

        Raises:
            CallError: the prompt's text cannot be written as UTF-8.
        """
        body = self._endpoint.body(self._endpoint.content(prompt), params, self._settings)
        line = {"custom_id": custom_id, "method": "POST", "url": self._line_url, "body": body}
        with self._client.errors(self._model.id):  # the SDK writes a single request's body with the same arguments
            return json.dumps(line, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()

    def upload(self, file: BinaryIO, name: str) -> str:
        """Upload a job's file, and return its id."""
        with self._job_client.requests() as client:
            uploaded = client.files.create(file=(f"{name}.jsonl", file), purpose="batch")
        return _id_of(uploaded)

    def create(self, source: str, name: str) -> str:
        """Create the job of an uploaded file, and return its id.

        Raises:
            CallError: also where the service is not done with the file yet (retryable), or where the account's queue
                is full (throttled).
        """
        import openai

        endpoint: Any = self._job_endpoint
        window: Any = self._job and self._job.completion_window
        with self._job_client.requests(f"file {source}") as client:
            state = getattr(client.files.retrieve(source), "status", None)
            if state in _NOT_READY:
                message = f"the service is not done with the uploaded file {source} ({state})"
                raise CallError("FileNotReady", message, RETRY, retry_after_s=_READY_WAIT_S)
            try:
                batch = client.batches.create(
                    input_file_id=source, endpoint=endpoint, completion_window=window, metadata={NAME_KEY: name}
                )
            except openai.BadRequestError as error:
                if "token_limit_exceeded" in f"{error.code} {error}":  # Azure, before it reads the file
                    policy = replace(THROTTLED, not_billed=True)
                    raise CallError("QueueFull", excerpt(first_line(error)), policy) from error
                raise
        return _id_of(batch)

    def find(self, name: str) -> str | None:
        """Return the id of a job with this name, before that of a refused one; None if none is younger than 30 days."""
        refused: str | None = None
        for batch in self._job_client.recent_batches():
            if metadata_of(batch).get(NAME_KEY) != name:
                continue
            if batch.status != "failed":
                return batch.id
            refused = refused or batch.id
        return refused

    def poll(self, job_id: str) -> JobStatus:
        """Return how far a job is."""
        batch = self._job_client.batch(job_id)
        with shape_errors():
            return read_status(batch)

    def collect(self, job_id: str, params: GenerationParams) -> Iterator[JobResult]:
        """Yield a job's results, those of its output file first."""
        batch = self._job_client.batch(job_id)
        with shape_errors():
            file_ids = dict.fromkeys(filter(None, (batch.output_file_id, batch.error_file_id)))
            started_at = read_time(batch.created_at) or datetime.now(UTC)
        reader = JobResultReader(
            client=self._client,
            endpoint=self._endpoint,
            answers=self._answers,
            count=params.n,
            timing=Timing(started_at=started_at, latency_s=None),
        )
        max_bytes, max_lines = max_answer_bytes(params.max_tokens * params.n), self.job_limits().max_requests
        for file_id in file_ids:
            yield from reader.read(self._job_client.lines(file_id, max_bytes, max_lines), file_id)

    def cancel(self, job_id: str) -> None:
        """Ask the service to end a job; one that has ended meanwhile is left as it is."""
        try:
            with self._job_client.requests(f"job {job_id}") as client:
                client.batches.cancel(job_id)
        except CallError as error:
            if error.policy.fatal or self.poll(job_id).phase == "open":
                raise

    def remove_files(self, source: str, job_id: str) -> None:
        """Remove the files of a job, and then those of uploads of the same name whose answers were lost."""
        if self._job is None or self._job.keep_files:
            return
        batch = self._job_client.batch(job_id)
        self._job_client.delete(filter(None, (source, batch.output_file_id, batch.error_file_id)))
        name = f"{metadata_of(batch).get(NAME_KEY)}.jsonl"
        with self._job_client.requests() as client:
            files = islice(client.files.list(purpose="batch"), _MAX_FILES)
            lost = {file.id for file in files if file.filename == name}
        self._job_client.delete(lost)

    @property
    def _job_endpoint(self) -> str:
        return (self._job and self._job.endpoint) or self._job_api.endpoints[self._endpoint.name]

    @property
    def _line_url(self) -> str:
        return (self._job and self._job.line_url) or self._job_api.line_urls[self._endpoint.name]


def _id_of(created: object) -> str:
    """Return the id of an object that the service has made.

    Raises:
        CallError: it has none.
    """
    with shape_errors():
        object_id = getattr(created, "id", None)
        if not isinstance(object_id, str) or not object_id:
            raise TypeError(f"no id in {excerpt(str(created))}")
        return object_id
