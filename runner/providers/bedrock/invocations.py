"""Bedrock's own API of batch jobs: model invocation jobs over records in S3.

Source: AWS, "Process multiple prompts with batch inference" and its pages, read in 2026-11. A quota of waiting jobs is
answered to the request that creates a job (`ServiceQuotaExceededException`): such an error is throttled, and the same
job may be created later. No status says so of a created job.
"""

import contextlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from runner.config.schema import GenerationParams
from runner.config.secrets import redact
from runner.errors import ConfigError
from runner.providers.bedrock.account import AwsAccount
from runner.providers.bedrock.errors import CREATING, JOBS, ON_CREATE, record_policy
from runner.providers.bedrock.job_settings import JobSettings
from runner.providers.bedrock.job_storage import JobStorage, read_object
from runner.providers.bedrock.model_api import AnswerReader, ModelApi
from runner.providers.bedrock.receive import check_size
from runner.providers.bedrock.wire import ResponseAccumulator
from runner.providers.errors import CallError, ErrorPolicy
from runner.providers.protocols import JobPhase, JobResult, JobStatus
from runner.providers.responses import max_answer_bytes, shape_errors
from runner.text import one_line
from runner.types import ErrorInfo, Generated, Prompt, Timing

log = logging.getLogger(__name__)

_MAX_RECORD_BYTES = 25_000_000
"""Of a record's request, which its result repeats: what InvokeModel takes."""
_TIMEOUT_S, _ATTEMPTS = 60.0, 3
"""Of one request. All may be sent again: that which creates a job has a token."""
_RESULTS = ".jsonl.out"
_PHASES: Mapping[str, JobPhase] = {
    "Completed": "ended",
    "PartiallyCompleted": "ended",
    "Stopped": "ended",
    "Expired": "ended",
    "Failed": "refused",
}
"""By status; every other one is open: Submitted, Validating, Scheduled, InProgress, Stopping."""


class ModelInvocations:
    """Model invocation jobs of one model.

    Args:
        account: opens the client.
        storage: has the results.
        api: the model, and the bodies of its records.
        reader: makes answers of responses.
        settings: `provider.job`.
    """

    def __init__(
        self, account: AwsAccount, storage: JobStorage, api: ModelApi, reader: AnswerReader, settings: JobSettings
    ) -> None:
        self._account, self._storage, self._api, self._reader = account, storage, api, reader
        self._settings = settings
        self._control_client: Any = None

    def validate(self) -> None:
        """Raise ConfigError where a job has no folder for its results, or the model is not served in batches."""
        self._settings.require("s3_output")
        if ":provisioned-model/" in self._api.model_id:
            raise ConfigError(
                f"model.id={self._api.model_id!r}: batch jobs take no provisioned model: set the id of a model or of "
                "an inference profile, or batch.mode=concurrent"
            )

    def line(self, custom_id: str, prompt: Prompt, params: GenerationParams) -> bytes:
        """Return a record, whose `modelInput` is the body of a single request."""
        return json.dumps({"recordId": custom_id, "modelInput": self._api.body(prompt, params)}).encode()

    def create(self, source: str, name: str) -> str:
        """Create a job, with its name as the token that makes a second request of the same name the same job."""
        with self._errors(f"job {name} of role {self._settings.role_arn}", rights=CREATING, policies=ON_CREATE):
            created = self._control.create_model_invocation_job(
                jobName=name,
                clientRequestToken=name,
                roleArn=self._settings.role_arn,
                modelId=self._api.model_id,
                modelInvocationType="Converse" if self._api.api == "converse" else "InvokeModel",
                inputDataConfig={"s3InputDataConfig": {"s3Uri": source, "s3InputFormat": "JSONL"}},
                outputDataConfig={"s3OutputDataConfig": {"s3Uri": f"{self._settings.s3_output}/"}},
                timeoutDurationInHours=self._settings.timeout_hours,
            )
        return str(created["jobArn"])

    def find(self, name: str) -> str | None:
        """Return the ARN of the newest job with this name."""
        with self._errors(f"listing the jobs named {name}", rights=JOBS):
            pages = self._control.get_paginator("list_model_invocation_jobs").paginate(
                nameContains=name, sortBy="CreationTime", sortOrder="Descending"
            )
            jobs = (job for page in pages for job in page.get("invocationJobSummaries", ()))
            return next((str(job["jobArn"]) for job in jobs if job["jobName"] == name), None)

    def poll(self, job_id: str) -> JobStatus:
        """Return how far a job is. One that failed after it had processed records has ended: they are paid for."""
        job = self._get(job_id)
        phase = _PHASES.get(job["status"], "open")
        return JobStatus(
            state=job["status"],
            phase="ended" if phase == "refused" and job.get("processedRecordCount") else phase,
            total=job.get("totalRecordCount") or None,  # 0 until the records are validated
            completed=job.get("successRecordCount"),
            failed=job.get("errorRecordCount"),
            reasons=(redact(job["message"], self._account.secrets),) if job.get("message") else (),
            created_at=job["submitTime"],
            ended_at=job.get("endTime"),
        )

    def collect(self, job_id: str, params: GenerationParams) -> Iterator[JobResult]:
        """Yield the results of a job's files, in their order. A job that has processed nothing has no file."""
        timing = Timing(started_at=self._get(job_id)["submitTime"], latency_s=None)
        counts: Counter[str] = Counter()
        max_bytes = _MAX_RECORD_BYTES + max_answer_bytes(params.max_tokens)
        for line in self._storage.lines(self.folder(job_id), _RESULTS, max_bytes):
            record = read_object(line) or {}
            custom_id = record.get("recordId")
            if not isinstance(custom_id, str):
                counts["unreadable"] += 1
                continue
            counts["error" if "error" in record else "success"] += 1
            generated = (
                self._read_error(record["error"], timing)
                if "error" in record
                else self._read(custom_id, record.get("modelOutput"), timing, params)
            )
            yield JobResult(custom_id=custom_id, generated=generated)
        self._compare(job_id, counts)

    def cancel(self, job_id: str) -> None:
        """Stop a job. One that has ended by itself is left as it is."""
        with self._errors(f"stopping {job_id}", rights=JOBS):
            try:
                self._control.stop_model_invocation_job(jobIdentifier=job_id)
            except self._control.exceptions.ConflictException:
                log.info("job %s cannot be stopped: it has ended", job_id)

    def folder(self, job_id: str) -> str:
        """Return the folder of a job's results, which Bedrock names after the last part of the job's ARN."""
        return f"{self._settings.s3_output}/{job_id.rpartition('/')[2]}/"

    def close(self) -> None:
        """Close the client."""
        if self._control_client is not None:
            self._control_client.close()
            self._control_client = None

    @property
    def _control(self) -> Any:
        if self._control_client is None:
            self._control_client = self._account.connect(
                "bedrock", self._settings.control_endpoint_url, read_timeout_s=_TIMEOUT_S, max_attempts=_ATTEMPTS
            )
        return self._control_client

    def _errors(
        self, where: str, *, rights: str, policies: Mapping[str, ErrorPolicy] | None = None
    ) -> contextlib.AbstractContextManager[None]:
        return self._account.errors(where, rights=rights, policies=policies)

    def _get(self, job_id: str) -> Mapping[str, Any]:
        with self._errors(f"job {job_id}", rights=JOBS):
            job: Mapping[str, Any] = self._control.get_model_invocation_job(jobIdentifier=job_id)
        return job

    def _read(self, custom_id: str, output: Any, timing: Timing, params: GenerationParams) -> Generated:
        """Return what a record's output holds, read as the body of an unstreamed response."""
        response = ResponseAccumulator(self._api.wire_format.response, None)
        try:
            with shape_errors():
                response.add(output)
                check_size(response, 0, params.max_tokens)
                return self._reader.generated(f"of record {custom_id}", response, timing)
        except CallError as error:
            info = ErrorInfo(type=error.type, message=error.message, retryable=error.policy.retryable)
        return Generated(model=self._api.model_id, timing=timing, error=info, lost_answers=1)

    def _read_error(self, error: Any, timing: Timing) -> Generated:
        """Return a failure with the code and the message of a record's error."""
        fields = error if isinstance(error, Mapping) else {"errorMessage": error}
        code = one_line(str(fields.get("errorCode", "")))
        message = one_line(redact(str(fields.get("errorMessage", "")), self._account.secrets))
        info = ErrorInfo(
            type=code or "Refused",
            message=message or "the service gave no reason",
            retryable=record_policy(code, message).retryable,
        )
        return Generated(model=self._api.model_id, timing=timing, error=info)

    def _compare(self, job_id: str, counts: Mapping[str, int]) -> None:
        """Warn of result lines that cannot be read, and of a manifest that counts others."""
        if counts["unreadable"]:
            log.warning("job %s: %d lines of its results cannot be read: skipped", job_id, counts["unreadable"])
        manifest = self._storage.manifest(self.folder(job_id))
        listed = {name: manifest.get(f"{name}RecordCount") for name in ("success", "error")}
        if manifest and any(listed[name] != counts[name] for name in listed):
            log.warning(
                "job %s: its manifest counts %s answers and %s errors, its files of results have %d and %d",
                job_id, listed["success"], listed["error"], counts["success"], counts["error"],
            )  # fmt: skip
