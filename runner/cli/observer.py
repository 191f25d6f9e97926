"""Shows a run on the terminal: progress, a few answers, metrics, its MLflow page, and what the user can do next."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from runner.cli import terminal
from runner.record.folder import OUTCOMES, relative_to_start
from runner.record.jobs import JobRecord
from runner.run.overrides import REMEDIES
from runner.run.result import OnOutcomes, RunResult
from runner.tracking.uri import page_address, ui_command

log = logging.getLogger(__name__)


class TerminalObserver:
    """Shows a run on the terminal."""

    @contextmanager
    def generating(self, total: int, *, completed: int) -> Iterator[OnOutcomes]:
        """Show a progress bar; without a terminal, log progress every 30 s."""
        with terminal.progress(total, completed=completed) as ticker:
            yield ticker.tick

    def should_cancel(self, jobs: Sequence[JobRecord]) -> bool:
        """Ask; without a terminal, and without an answer, the jobs go on."""
        ids = ", ".join(str(job.job_id) for job in jobs)
        return terminal.confirm(f"Cancel {ids} at the service? Without an answer they go on there. [y/N] ")

    def finished(self, result: RunResult) -> None:
        """Print a few answers and the metrics; warn of prompts that failed or were not generated."""
        terminal.print_samples(result.samples)
        terminal.print_metrics("Metrics", result.metrics)
        terminal.print_line(f"Record        {result.folder.display_path}")
        failed, completed = result.metrics["failed_prompts"], result.metrics["completed_prompts"]
        if failed:
            path = relative_to_start(result.folder.path / OUTCOMES, result.folder.start)
            log.warning("%.0f prompts failed: see the field error in %s", failed, path)
        not_generated = result.prompts - completed - failed
        if not_generated and result.status != "SUBMITTED":
            log.warning("%.0f prompts were not generated", not_generated)
        if result.status == "SUBMITTED":
            log.info("the jobs go on at the service; to collect: %s", result.folder.resume_command)
        elif failed or not_generated or result.status == "KILLED":
            log.warning("to finish the run: %s", _resume_command(result))

    def published(self, result: RunResult) -> None:
        """Print the run's page in the MLflow UI, or how to publish the run later."""
        reference = result.mlflow_run
        if reference is not None and result.is_published:
            terminal.print_line(f"Browse        {ui_command(reference.uri, result.folder.start)}")
            terminal.print_line(f"              {page_address(reference.uri, reference.page)}")
        if not result.is_published:
            log.warning("MLflow does not have all of this run; publish it later: %s", result.folder.resume_command)


def _resume_command(result: RunResult) -> str:
    """Return the command that resumes a run, with the limit to be raised where one has ended the run."""
    error = result.summary.error or {}
    return " ".join(filter(None, (result.folder.resume_command, REMEDIES.get(error.get("type", "")))))
