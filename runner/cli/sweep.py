"""A sweep's end, whoever ran its jobs: their comparison on disk, on the terminal and in MLflow, and the exit codes."""

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median

from runner.cli import terminal
from runner.cli.report import print_comparison
from runner.comparison.compare import Comparison, compare_folders
from runner.comparison.load import sweep_folders
from runner.comparison.present.markdown import markdown_note
from runner.comparison.present.output import PLOTS, Files, write
from runner.comparison.present.settings import series
from runner.comparison.present.tables import speed_table
from runner.errors import RunnerError, TrackingError
from runner.record.folder import RunFolder
from runner.record.manifest import Status, Summary
from runner.tracking import sweep_run
from runner.tracking.sweep_run import SweepReport
from runner.tracking.uri import page_address, ui_command

log = logging.getLogger(__name__)

_CURVES = ("output_tokens_per_s", "prompts_per_s", "latency_p50_s")


def finish(directory: Path, *, interrupted: bool) -> list[int]:
    """Compare a sweep's jobs, end its parent run in MLflow, and return an exit code per job.

    What a job's folder says counts, for the job may have run in another process. A job without a summary was lost.
    """
    summaries = _summaries(directory)
    if any(summaries):
        comparison, output = compare(directory)
        publish(directory, comparison, output, interrupted=interrupted)
    return [summary.exit_code if summary else RunnerError.exit_code for summary in summaries]


def compare(directory: Path) -> tuple[Comparison, Files]:
    """Compare a sweep's jobs, write page, data and plots into its folder, and print the result."""
    comparison, title = compare_folders(sweep_folders(directory)), f"Sweep {directory.name}"
    output = write(comparison, directory, title=title)
    print_comparison(comparison, output, title=title)
    return comparison, output


def publish(directory: Path, comparison: Comparison, output: Files, *, interrupted: bool = False) -> None:
    """Publish a sweep's comparison to MLflow and print where it shows; an unreachable store costs a warning."""
    try:
        reference = sweep_run.finish(
            directory, _sweep_report(comparison, output), status=_status(directory, interrupted=interrupted)
        )
    except TrackingError as error:
        log.warning("the comparison is not in MLflow: %s; python -m runner.compare SWEEP publishes it later", error)
        return
    if reference is not None:
        terminal.print_line(f"Browse  {ui_command(reference.uri, Path.cwd())}")
        terminal.print_line(f"        {page_address(reference.uri, reference.page)}")


def _sweep_report(comparison: Comparison, output: Files) -> SweepReport:
    table = speed_table(comparison, width=0)
    return SweepReport(
        note=markdown_note(comparison),
        table=[dict(zip(table.columns, row, strict=True)) for row in table.rows],
        files=[(output.page, ""), (output.data, ""), *((plot, PLOTS) for plot in output.plots)],
        curves=list(curves(comparison)),
        metrics=comparison.metrics,
    )


def curves(comparison: Comparison) -> Iterator[tuple[str, int, float]]:
    """Yield figures over the batch size, a curve for each mode and whatever else was swept."""
    names = _names(comparison)
    for row in comparison.rows:
        run = row.runs[0]
        size = run.settings.get("batch.size")
        values = {name: row.figures[name].median for name in _CURVES if name in row.figures}
        values |= {"exact_match_ratio": median(ratios)} if (ratios := comparison.exact_matches(row)) else {}
        if not isinstance(size, int):  # auto: the run found its own
            continue
        for name, value in values.items():
            yield f"by batch size/{name}/{names[run.label]}", size, value


def _names(comparison: Comparison) -> Mapping[str, str]:
    """Return the name of every run's curve by the run's label: in characters that a metric may have, none for two."""
    values = series(comparison.runs)
    names: dict[str, str] = {}
    for said in dict.fromkeys(values.values()):
        plain = re.sub(r"[^\w. -]", "_", re.sub(r", |=", " ", said.replace("…", "")))
        names[said] = plain if plain not in names.values() else f"{plain} {len(names) + 1}"
    return {label: names[said] for label, said in values.items()}


def _status(directory: Path, *, interrupted: bool) -> Status:
    if interrupted:
        return "KILLED"
    return (
        "FINISHED" if all(summary and summary.status == "FINISHED" for summary in _summaries(directory)) else "FAILED"
    )


def _summaries(directory: Path) -> list[Summary | None]:
    """Return how the jobs ended, in their order; None for a job that left no summary."""
    return [RunFolder(folder).read_summary() for folder in sweep_folders(directory)]
