"""jobs.json: the batch jobs of a run, written before and after every step, so that no job is created twice."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain, pairwise
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """One batch job: which prompts it has, and how far it is.

    Attributes:
        number: within the run, from 0; `Outcome.batch` of its prompts.
        name: at the service, unique.
        prompts: numbers of its prompts in the run's prompt set, as pairs of the first and the last of a range.
        planned_at: when the job was formed, by this machine's clock.
        attempts: how often its creation was tried: a service that refused the name does not take it again.
        source: where the service has the uploaded file; None until it was uploaded.
        job_id: the service's id; None until the job was created.
        state: the service's word at the last poll.
        created_at, started_at, ended_at: by the service's clock; None where it says nothing, or not yet.
        is_collected: whether all its results are in outcomes.jsonl.
        is_cleaned: whether its files were then removed from the service, or kept there as configured.
    """

    number: int
    name: str
    prompts: tuple[tuple[int, int], ...]
    planned_at: datetime
    attempts: int = 1
    source: str | None = None
    job_id: str | None = None
    state: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    is_collected: bool = False
    is_cleaned: bool = False

    def __post_init__(self) -> None:
        """Refuse what no job of ours has.

        Raises:
            ValueError: a number below 0, a range that ends before it begins, or a time without zone.
        """
        if self.number < 0 or any(not 0 <= first <= last for first, last in self.prompts):
            raise ValueError(f"job {self.number} has no such prompts: {self.prompts}")
        times = (self.planned_at, self.created_at, self.started_at, self.ended_at)
        if any(time is not None and time.tzinfo is None for time in times):
            raise ValueError(f"job {self.number} has a time without zone")

    @property
    def is_open(self) -> bool:
        """Whether results of the job may still come."""
        return not self.is_collected

    @property
    def prompt_numbers(self) -> Iterator[int]:
        """The numbers of its prompts."""
        return chain.from_iterable(range(first, last + 1) for first, last in self.prompts)

    @property
    def count(self) -> int:
        """How many prompts it has."""
        return sum(last - first + 1 for first, last in self.prompts)


def check_jobs(jobs: Sequence[JobRecord], prompts: int) -> None:
    """Check that these may be the jobs of a run with so many prompts.

    Raises:
        ValueError: a number is given twice, a job has a prompt that the run does not have, or two open jobs share one.
    """
    if len({job.number for job in jobs}) < len(jobs):
        raise ValueError("two jobs have the same number")
    for job in jobs:
        if any(last >= prompts for _, last in job.prompts):
            raise ValueError(f"job {job.number} has prompts that the run, of {prompts} prompts, does not have")
    ranges = sorted(chain.from_iterable(job.prompts for job in jobs if job.is_open))
    if any(following <= last for (_, last), (following, _) in pairwise(ranges)):
        raise ValueError("a prompt is in two open jobs")


def as_ranges(numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Return ascending numbers as pairs of the first and the last of each range."""
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return tuple(ranges)


class JobLog:
    """The jobs of a run; every change is on disk before the next step.

    Args:
        jobs: those of earlier processes.
        write: writes all jobs to the run's folder.
    """

    def __init__(self, jobs: Sequence[JobRecord], write: Callable[[Sequence[JobRecord]], None]) -> None:
        self._jobs = {job.number: job for job in jobs}
        self._write = write

    @property
    def jobs(self) -> Sequence[JobRecord]:
        """All jobs."""
        return list(self._jobs.values())

    @property
    def open_jobs(self) -> Sequence[JobRecord]:
        """The jobs whose results are not collected."""
        return [job for job in self._jobs.values() if job.is_open]

    @property
    def next_number(self) -> int:
        """The number of the next job."""
        return max(self._jobs, default=-1) + 1

    def save(self, job: JobRecord, **changes: Any) -> JobRecord:
        """Write a job with these changes, and return it."""
        changed = replace(job, **changes)
        if self._jobs.get(job.number) != changed:
            self._jobs[job.number] = changed
            self._write(self.jobs)
        return changed


def duration_s(jobs: Sequence[JobRecord]) -> float | None:
    """Return the seconds from when the first job was formed to when the last one ended; None while none has ended."""
    ended = [job.ended_at for job in jobs if job.ended_at is not None]
    return (max(ended) - min(job.planned_at for job in jobs)).total_seconds() if ended else None


def job_times(jobs: Sequence[JobRecord]) -> dict[str, float]:
    """Return `job_queue_s` and `job_run_s` where the service has said when every job began and ended."""
    created, started, ended = (
        [time for time in (getattr(job, name) for job in jobs) if time is not None]
        for name in ("created_at", "started_at", "ended_at")
    )
    if not jobs or not len(created) == len(started) == len(ended) == len(jobs):
        return {}
    return {
        "job_queue_s": (min(started) - min(created)).total_seconds(),
        "job_run_s": (max(ended) - min(started)).total_seconds(),
    }
