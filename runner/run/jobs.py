"""Gives a run's batch jobs what they need of the run: the record, the budget, the person who watches."""

from collections.abc import Sequence
from dataclasses import replace

from runner.batching.job_context import JobContext
from runner.errors import Interrupted, RecordError
from runner.record.folder import JOBS
from runner.record.jobs import JobLog, JobRecord, check_jobs
from runner.run.prepare import PreparedRun
from runner.run.result import RunObserver


def job_context(run: PreparedRun, observer: RunObserver) -> JobContext:
    """Return the context of the run's jobs.

    Raises:
        RecordError: jobs.json cannot be read, or has what no job of this run has.
    """
    folder, config = run.folder, run.config

    def should_cancel(jobs: Sequence[JobRecord]) -> bool:
        return isinstance(run.calls.stop.reason, Interrupted) and observer.should_cancel(jobs)

    def recorded_ids(number: int) -> set[str]:
        return {outcome.prompt_id for outcome in folder.outcomes.read() if outcome.batch == number}

    return JobContext(
        run_key=folder.read_manifest().key,
        model_id=config.model.id,
        folder=folder.path,
        jobs=JobLog(_recorded_jobs(run), folder.write_jobs),
        detach=config.batch.detach or run.leaves_jobs,
        max_attempts=config.limits.max_attempts,
        min_poll_s=run.waits.min_poll_s,
        max_poll_s=run.waits.max_poll_s,
        budget=run.calls.budget,
        recorded_ids=recorded_ids,
        should_cancel=should_cancel,
        resume_command=folder.resume_command,
    )


def _recorded_jobs(run: PreparedRun) -> list[JobRecord]:
    """Return the run's jobs; of a record that is not the user's own, without the files that it names.

    What it names is never removed from the service, and no job is created over it: the requests are uploaded again.
    """
    jobs = run.folder.read_jobs()
    try:
        check_jobs(jobs, len(run.prompts))
    except ValueError as error:
        path = run.folder.path / JOBS
        raise RecordError(f"{path} is damaged ({error}): restore it, or start a new run") from None
    return jobs if run.folder.is_own else [replace(job, source=None) for job in jobs]
