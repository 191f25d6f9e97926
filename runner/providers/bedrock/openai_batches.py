"""OpenAI's Batch API as Bedrock serves it for OpenAI's models: the file is in S3, and so are the results beside it.

Source: AWS, "Submit a batch of prompts with the OpenAI Batch API", read in 2026-11: two headers have the role and the
model, `input_file_id` is the file's URI, and the results are in a folder of the job's id beside the file. The lines are
those of OpenAI's own service, which `providers.openai` writes and reads.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from runner.config.schema import GenerationParams, ModelConfig
from runner.errors import ConfigError
from runner.providers.bedrock.errors import ON_CREATE
from runner.providers.bedrock.job_settings import JobSettings
from runner.providers.bedrock.job_storage import JobStorage
from runner.providers.errors import CallError, require_packages
from runner.providers.openai.answers import AnswerReader
from runner.providers.openai.client import ApiKey, Client, open_blocking_plain, open_plain
from runner.providers.openai.endpoints import ENDPOINTS, RequestSettings
from runner.providers.openai.job_client import JobClient
from runner.providers.openai.job_results import JobResultReader
from runner.providers.openai.job_settings import OPENAI_JOBS
from runner.providers.openai.job_settings import JobSettings as BatchSettings
from runner.providers.openai.job_status import read_time
from runner.providers.openai.jobs import NAME_KEY, JobRequestProvider
from runner.providers.protocols import JobResult, JobStatus
from runner.providers.responses import max_answer_bytes, shape_errors
from runner.types import Prompt, Timing

_WINDOW: Literal["24h"] = "24h"
_KEY = "AWS_BEARER_TOKEN_BEDROCK"
_RESULTS, _ERRORS = ".jsonl.out", ".jsonl.err"


@dataclass(frozen=True, slots=True, kw_only=True)
class _BedrockKey(ApiKey):
    @property
    def advice(self) -> str:
        """For a message, where the service does not accept the key: what to do."""
        return f"the Bedrock API key is not accepted: check the environment variable {_KEY}"


class OpenAIBatches:
    """Batches of one model.

    Args:
        address: returns the address of Bedrock's runtime.
        storage: has the results.
        model: an OpenAI model of Bedrock.
        settings: `provider.job`.
    """

    def __init__(
        self, address: Callable[[], str], storage: JobStorage, model: ModelConfig, settings: JobSettings
    ) -> None:
        self._storage, self._model, self._settings = storage, model, settings
        self._client = Client(
            provider="openai",
            address=lambda: f"{address()}/openai/v1",
            credential=_BedrockKey(provider="bedrock", variable=_KEY),
            open=open_plain,
            open_blocking=open_blocking_plain,
            description={},
        )
        self._requests = JobClient(self._client, model.id)
        fields = RequestSettings(
            model=model.id, max_tokens_field=None, service_tier=None, reasoning_effort=None, prediction=None, seed=True
        )
        jobs = BatchSettings(
            completion_window=_WINDOW, endpoint=None, line_url=None, max_requests=None, keep_files=True
        )
        self._batches = JobRequestProvider(
            job=jobs, job_api=OPENAI_JOBS, client=self._client, model=model, endpoint="chat", settings=fields,
            stream=False, unsupported_params=(),
        )  # fmt: skip

    def validate(self) -> None:
        """Raise UsageError where the SDK or the key is missing, or a setting or the model is not for this API."""
        require_packages("openai", "openai")
        if not os.environ.get(_KEY):
            raise ConfigError(f"provider.job.api=openai needs a Bedrock API key: set the environment variable {_KEY}")
        if self._settings.s3_output is not None:
            raise ConfigError(
                f"provider.job.s3_output={self._settings.s3_output!r}: with provider.job.api=openai the results are "
                "beside the records: set provider.job.s3_output=null"
            )
        if self._settings.timeout_hours != 24:
            raise ConfigError(
                f"provider.job.timeout_hours={self._settings.timeout_hours}: with provider.job.api=openai it is 24"
            )
        if "openai." not in self._model.id:
            raise ConfigError(
                f"model.id={self._model.id!r}: provider.job.api=openai is for OpenAI's models "
                "(openai.gpt-oss-20b-1:0): set provider.job.api=invocation"
            )

    def line(self, custom_id: str, prompt: Prompt, params: GenerationParams) -> bytes:
        """Return a request as a line of a batch's file: OpenAI's chat completions, whatever `provider.api` is."""
        return self._batches.job_line(custom_id, prompt, params)

    def create(self, source: str, name: str) -> str:
        """Create a batch. The API has no idempotency: `find` looks for the name in the metadata.

        Raises:
            CallError: with the remedy where the role, the folder or the model may be wrong.
        """
        headers = {
            "X-Amzn-Bedrock-RoleArn": str(self._settings.role_arn), "X-Amzn-Bedrock-ModelId": self._model.id,
        }  # fmt: skip
        try:
            with self._requests.requests() as client:
                batch = client.batches.create(
                    input_file_id=source, endpoint="/v1/chat/completions", completion_window=_WINDOW,
                    metadata={NAME_KEY: name}, extra_headers=headers,
                )  # fmt: skip
        except CallError as error:
            if error.policy.retryable or error.policy.fatal:
                raise
            raise CallError(error.type, f"{error.message}: {ON_CREATE['Validation'].advice}", error.policy) from error
        with shape_errors():
            return str(batch.id)

    def find(self, name: str) -> str | None:
        """Return the id of the newest batch with this name in its metadata."""
        return self._batches.find(name)

    def poll(self, job_id: str) -> JobStatus:
        """Return how far a batch is."""
        return self._batches.poll(job_id)

    def folder(self, job_id: str) -> str:
        """Return the folder of a batch's results."""
        return f"{self._settings.s3_input}/{job_id}/"

    def collect(self, job_id: str, params: GenerationParams) -> Iterator[JobResult]:
        """Yield a batch's results, those of its output file first."""
        started_at = read_time(self._requests.batch(job_id).created_at) or datetime.now(UTC)
        reader = JobResultReader(
            client=self._client,
            endpoint=ENDPOINTS["chat"],
            answers=AnswerReader(model_id=self._model.id, secrets=self._client.credential.secrets),
            count=params.n,
            timing=Timing(started_at=started_at, latency_s=None),
        )
        folder, max_bytes = self.folder(job_id), max_answer_bytes(params.max_tokens * params.n)
        for suffix in (_RESULTS, _ERRORS):
            yield from reader.read(self._storage.lines(folder, suffix, max_bytes), f"{folder}*{suffix}")

    def cancel(self, job_id: str) -> None:
        """Ask the service to end a batch; one that has ended meanwhile is left as it is."""
        self._batches.cancel(job_id)

    def close(self) -> None:
        """Close the connections."""
        self._requests.close()
        self._batches.__exit__(None, None, None)
