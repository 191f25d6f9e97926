"""A service with batch jobs that lives in this process: a JobProvider whose jobs end when a test says so."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO

from runner.config.schema import GenerationParams
from runner.providers.errors import THROTTLED, CallError, ErrorPolicy
from runner.providers.protocols import JobDiscount, JobLimits, JobResult, JobStatus
from runner.types import Answer, ErrorInfo, Generated, Prompt, Timing, Usage

CREATED = datetime(2026, 11, 24, 12, tzinfo=UTC)


class Killed(BaseException):
    """Ends a process of a test at the place where it is raised."""


@dataclass
class ServiceJob:
    """What the service has of a job."""

    name: str
    lines: list[dict[str, Any]]
    polls: int = 0
    is_cancelled: bool = False


@dataclass
class JobService:
    """The state of a service, which outlives the processes of a run.

    Attributes:
        polls_to_end: how many polls a job takes.
        end: the state in which jobs end.
        answered: how many requests of an ended job have a result; None for all.
        unsendable: texts that no line can hold.
        failing: texts whose requests fail.
        kill_after: the hook after whose effect the process is killed, once.
        kill_before: the same before its effect.
        max_open: jobs that the account's queue takes.
        breaks_after: results after which a download breaks off, once.
        oddities: further results of each job.
    """

    polls_to_end: int = 2
    end: str = "completed"
    answered: int | None = None
    unsendable: set[str] = field(default_factory=set)
    failing: set[str] = field(default_factory=set)
    kill_after: str | None = None
    kill_before: str | None = None
    max_open: int | None = None
    breaks_after: int | None = None
    oddities: list[str] = field(default_factory=list)
    refusal: tuple[str, ...] = ()
    min_requests: int = 1
    max_bytes: int = 10**6
    files: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    jobs: dict[str, ServiceJob] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)


class JobServiceProvider:
    """The provider of a JobService."""

    def __init__(self, service: JobService) -> None:
        self.service = service

    def job_limits(self) -> JobLimits:
        return JobLimits(
            min_requests=self.service.min_requests, max_requests=50, max_bytes=self.service.max_bytes, window="a day"
        )

    def job_discount(self) -> JobDiscount:
        return JobDiscount(ratio=0.5, source="a test")

    def validate_jobs(self, params: GenerationParams) -> None:
        """Everything is valid."""

    def job_line(self, custom_id: str, prompt: Prompt, params: GenerationParams) -> bytes:
        if prompt.text in self.service.unsendable:
            raise CallError("Unsendable", "no UTF-8")
        return json.dumps({"id": custom_id, "text": prompt.text, "max_tokens": params.max_tokens}).encode()

    def upload(self, file: BinaryIO, name: str) -> str:
        self._kill("before", "upload")
        self.service.files[f"file-{name}"] = [json.loads(line) for line in file]
        self._kill("after", "upload")
        return f"file-{name}"

    def create(self, source: str, name: str) -> str:
        self._kill("before", "create")
        running = [job for job in self.service.jobs.values() if job.polls < self.service.polls_to_end]
        if self.service.max_open is not None and len(running) >= self.service.max_open:
            raise CallError("QueueFull", "too many jobs wait", THROTTLED)
        job_id = f"job_{len(self.service.jobs)}"
        self.service.jobs[job_id] = ServiceJob(name=name, lines=self.service.files[source])
        self._kill("after", "create")
        return job_id

    def find(self, name: str) -> str | None:
        self._kill("before", "find")
        return next((job_id for job_id, job in self.service.jobs.items() if job.name == name), None)

    def poll(self, job_id: str) -> JobStatus:
        self._kill("before", "poll")
        job, service = self.service.jobs[job_id], self.service
        job.polls += 1
        self._kill("after", "poll")
        if service.refusal:
            return JobStatus(state="failed", phase="refused", reasons=service.refusal)
        times: Any = {"created_at": CREATED, "started_at": CREATED + timedelta(seconds=10)}
        if job.is_cancelled or job.polls >= service.polls_to_end:
            state = "cancelled" if job.is_cancelled else service.end
            total = len(job.lines)
            ended_at = CREATED + timedelta(seconds=30)
            return JobStatus(
                state=state, phase="ended", total=total, completed=total, failed=0, ended_at=ended_at, **times
            )
        return JobStatus(state="in_progress", phase="open", total=len(job.lines), completed=0, failed=0, **times)

    def collect(self, job_id: str, params: GenerationParams) -> Iterator[JobResult]:
        self._kill("before", "collect")
        job, service = self.service.jobs[job_id], self.service
        lines = random.Random(job_id).sample(job.lines, len(job.lines))
        timing = Timing(started_at=CREATED, latency_s=None)
        yield from (JobResult(custom_id=key, generated=self._answer("odd", timing)) for key in service.oddities)
        for count, line in enumerate(lines[: service.answered]):
            if service.breaks_after == count:
                service.breaks_after = None
                raise CallError("Broken", "the download broke off", ErrorPolicy(retryable=True))
            if service.kill_after == "results" and count == len(lines) // 2:
                service.kill_after = None
                raise Killed
            if line["text"] in service.failing:
                error = ErrorInfo(type="invalid", message="refused", retryable=False)
                yield JobResult(custom_id=line["id"], generated=Generated(model="m", timing=timing, error=error))
            else:
                yield JobResult(custom_id=line["id"], generated=self._answer(line["text"], timing))
        self._kill("after", "collect")

    def cancel(self, job_id: str) -> None:
        self.service.calls.append(f"cancel {job_id}")
        self.service.jobs[job_id].is_cancelled = True

    def remove_files(self, source: str, job_id: str) -> None:
        self._kill("before", "remove_files")
        self.service.removed.append(source)

    def _answer(self, text: str, timing: Timing) -> Generated:
        usage = Usage(input_tokens=len(text), output_tokens=2)
        return Generated(
            model="m", timing=timing, answers=(Answer(text=text.upper(), finish_reason="stop", usage=usage),)
        )

    def _kill(self, when: str, hook: str) -> None:
        if when == "before":
            self.service.calls.append(hook)
        if getattr(self.service, f"kill_{when}") == hook:
            setattr(self.service, f"kill_{when}", None)
            raise Killed
