"""What a run gives its batch jobs: their record, their budget, and what a person decides."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.dispatch.budget import Budget
from runner.record.jobs import JobLog, JobRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class JobContext:
    """What a run gives its batch jobs besides the prompts.

    Attributes:
        run_key: the run's unique id; the names of its jobs begin with it.
        model_id: the configured model, which failures name.
        folder: where a job's file is written before it is uploaded.
        jobs: the jobs on record.
        detach: leave the jobs once they are created.
        max_attempts: for every request about a job.
        min_poll_s, max_poll_s: from one poll to the next.
        budget: what may be spent.
        recorded_ids: returns the ids of prompts that have an outcome of a job's number.
        should_cancel: asks, at an interrupt, whether the open jobs are to be cancelled.
        resume_command: how to come back.
    """

    run_key: str
    model_id: str
    folder: Path
    jobs: JobLog
    detach: bool
    max_attempts: int
    min_poll_s: float
    max_poll_s: float
    budget: Budget
    recorded_ids: Callable[[int], set[str]]
    should_cancel: Callable[[Sequence[JobRecord]], bool]
    resume_command: str
