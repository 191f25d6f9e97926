"""What is printed of a run and of a comparison."""

import logging
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runner.cli import terminal
from runner.comparison.compare import Comparison
from runner.comparison.notes import Level
from runner.comparison.present.headline import headline
from runner.comparison.present.output import PLOTS, Files
from runner.comparison.present.tables import WIDTH, speed_table, text_tables
from runner.record.folder import OUTCOMES, relative_to_start
from runner.run.result import OnOutcomes, RunResult
from runner.tracking.uri import page_address, ui_command

log = logging.getLogger(__name__)


class TerminalObserver:
    """Shows a run on the terminal."""

    @contextmanager
    def generating(self, total: int, *, completed: int) -> Iterator[OnOutcomes]:
        """Show a progress bar, or without a terminal a line in the log now and then."""
        with terminal.progress(total, completed=completed) as ticker:
            yield ticker.tick

    def finished(self, result: RunResult) -> None:
        """Print a few answers, the metrics, and what is missing."""
        terminal.print_samples(result.samples)
        terminal.print_metrics("Metrics", result.metrics)
        terminal.print_line(f"Record        {result.folder.shown}")
        failed, completed = result.metrics["failed_prompts"], result.metrics["completed_prompts"]
        if failed:
            path = relative_to_start(result.folder.path / OUTCOMES, result.folder.start)
            log.warning("%.0f prompts failed: see the field error in %s", failed, path)
        if unsent := result.prompts - completed - failed:
            log.warning("%.0f prompts were not generated", unsent)
        if failed or unsent:
            log.warning("to generate what is missing: %s", result.folder.resume_command)


def print_mlflow(result: RunResult) -> None:
    """Print where MLflow shows the run, or how to publish it later."""
    reference = result.mlflow_run
    if reference is not None and result.is_published:
        terminal.print_line(f"Browse        {ui_command(reference.uri, result.folder.start)}")
        terminal.print_line(f"              {page_address(reference.uri, reference.page)}")
    if not result.is_published:
        log.warning("MLflow does not have all of this run; publish it later: %s", result.folder.resume_command)


def print_comparison(comparison: Comparison, output: Files | None, *, title: str) -> None:
    """Print alarms, tables, notes and the paths of the files, at most 100 columns wide."""
    speed, texts = speed_table(comparison), text_tables(comparison)
    _print_notes(comparison, "alarm", first="ALARM   ")
    terminal.print_table(f"{title} (* best of its column)", speed.columns, speed.rows, text_columns=speed.text_columns)
    if sentence := headline(comparison):
        terminal.print_line("")
        terminal.print_line(textwrap.fill(sentence, WIDTH, break_on_hyphens=False))
    for table in texts:
        terminal.print_line("")
        terminal.print_table(table.title, table.columns, table.rows, text_columns=table.text_columns)
    terminal.print_line("")
    _print_notes(comparison, "note", first="- ")
    if columns := dict.fromkeys(name for table in (speed, *texts) for name in table.left_out):
        terminal.print_line(f"- No room here for {', '.join(columns)}: see the page")
    if output:
        terminal.print_line("")
        for name, path in (("Page", output.page), ("Data", output.data), ("Plots", output.data.parent / PLOTS)):
            terminal.print_line(f"{name:<7} {relative_to_start(path.absolute(), Path.cwd())}")


def _print_notes(comparison: Comparison, level: Level, *, first: str) -> None:
    for note in comparison.notes:
        if note.level == level:
            indent = " " * len(first)
            terminal.print_line(
                textwrap.fill(note.text, WIDTH, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False)
            )
