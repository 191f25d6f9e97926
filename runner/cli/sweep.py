"""Owns the end of a sweep: the comparison of its jobs on disk, on the terminal and in MLflow, and the exit code."""

import logging
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from runner.cli import terminal
from runner.cli.common import log_into
from runner.cli.observer import TerminalObserver
from runner.cli.report import print_comparison
from runner.comparison.compare import Comparison, compare_folders
from runner.comparison.explain_pairs import ExplainRequest
from runner.comparison.load import Run, sweep_folders
from runner.comparison.pairing import swept_keys
from runner.comparison.present.markdown import markdown_note
from runner.comparison.present.output import PLOTS, Files, write
from runner.comparison.present.settings import series
from runner.comparison.present.tables import speed_table
from runner.errors import Interrupted, RunnerError, TrackingError, UsageError
from runner.record.folder import RunFolder, relative_to_start
from runner.record.manifest import Status
from runner.run.signals import Signals
from runner.tracking import sweep_run
from runner.tracking.sweep_run import SweepReport
from runner.tracking.uri import page_address, ui_command
from runner.tracking.view import jobs_page

log = logging.getLogger(__name__)

_CURVES = ("output_tokens_per_s", "prompts_per_s", "latency_p50_s")
_FAILED = "failed_prompts"
_COLUMNS = (
    *("prompts_per_s", "speedup", "exact_match_ratio", "near_tie_ratio", "output_tokens_per_s", "latency_p50_s"),
    *("time_to_first_token_p50_s", "cost_usd", _FAILED),
)
"""Metrics that the view of a sweep's jobs in MLflow shows, where a job has them; of failed prompts, more than 0."""


def finish(
    directory: Path, codes: Sequence[int], signals: Signals, *, interrupted: bool, has_refused_jobs: bool = False
) -> int:
    """Compare a sweep's jobs, end its parent run in MLflow, and return the sweep's exit code.

    Where a launcher ran the jobs in other processes, their summaries have their exit codes. A job without a summary was
    killed.

    Args:
        directory: the sweep's folder.
        codes: exit codes of the jobs that ran in this process.
        signals: those of this process; the first interrupts the comparison.
        interrupted: whether the sweep itself was interrupted.
        has_refused_jobs: whether further jobs were refused before the sweep began.

    Returns:
        130 if a job was interrupted, 2 if every job was refused, 1 if any job failed or was refused, else 0.
    """
    collected = _collect_jobs(directory) if not interrupted else {}
    summaries = {folder: RunFolder(folder).read_summary() for folder in sweep_folders(directory)}
    interrupted = interrupted or Interrupted.exit_code in collected.values()
    codes = () if collected else codes  # the summaries have them
    is_compared = False
    try:
        with signals.interruptible():
            if any(summaries.values()):
                _compare(directory, interrupted=interrupted, is_whole=not has_refused_jobs)
                is_compared = True
    except KeyboardInterrupt:
        interrupted = True
        log.warning("the sweep is not compared; to compare it: %s", _compare_command(directory))
    finally:
        if not is_compared:
            _end_parent(directory, signals, "KILLED" if interrupted else "FAILED")
    written = {path: summary.exit_code if summary else RunnerError.exit_code for path, summary in summaries.items()}
    recorded = {**written, **collected}.values()
    distinct = {*(codes or recorded), *([UsageError.exit_code] if has_refused_jobs else [])}
    if interrupted or Interrupted.exit_code in distinct:
        return Interrupted.exit_code
    return max(distinct, default=0) if len(distinct) < 2 else RunnerError.exit_code


def _collect_jobs(directory: Path) -> dict[Path, int]:
    """Collect the batch jobs that the sweep's runs have submitted, run by run; at an interrupt, leave the rest.

    Returns:
        The exit code of each run that was collected or failed to be, by its folder.
    """
    from runner import app

    codes: dict[Path, int] = {}
    for path in sweep_folders(directory):
        folder = RunFolder(path)
        summary = folder.read_summary()
        if summary is None or summary.status != "SUBMITTED" or folder.read_config()["batch"]["detach"]:
            continue
        if Interrupted.exit_code in codes.values():
            break
        try:
            log_into(path)  # Hydra's logging has gone back to its own
            log.info("collecting the jobs of %s", folder.display_path)
            codes[path] = app.resume(path, observer=TerminalObserver()).exit_code
        except RunnerError as error:
            log.error("%s", error)  # noqa: TRY400 - a RunnerError is one message
            codes[path] = error.exit_code
    return codes


def _compare(directory: Path, *, interrupted: bool, is_whole: bool) -> None:
    """Compare the jobs on disk, on the terminal and in MLflow; without a job, a sweep has FAILED there."""
    title = f"Sweep {directory.name}"
    with terminal.progress_of("explaining differences") as on_progress:
        request = ExplainRequest(is_bounded=True, on_progress=on_progress)
        comparison = compare_folders(sweep_folders(directory), explain=None if interrupted else request)
    output = write(comparison, directory, title=title)
    print_comparison(comparison, output, title=title)
    publish(directory, comparison, output, interrupted=interrupted, is_whole=is_whole)


def _end_parent(directory: Path, signals: Signals, status: Status) -> None:
    """End the parent run where no comparison does; a signal ends the waiting for the store."""
    try:
        with signals.interruptible():
            sweep_run.end(directory, status=status)
    except (TrackingError, KeyboardInterrupt) as error:
        reason = "interrupted" if isinstance(error, KeyboardInterrupt) else error
        log.warning(
            "MLflow may show the sweep as running (%s) until it is compared: %s", reason, _compare_command(directory)
        )


def _compare_command(directory: Path) -> str:
    return f"python -m runner.compare {shlex.quote(relative_to_start(directory.absolute(), Path.cwd()))}"


def publish(
    directory: Path, comparison: Comparison, output: Files, *, interrupted: bool = False, is_whole: bool = True
) -> None:
    """Publish a sweep's comparison to MLflow and print its address; without a reachable store, log a warning."""
    summaries = [RunFolder(folder).read_summary() for folder in sweep_folders(directory)]
    finished = is_whole and all(summary and summary.status == "FINISHED" for summary in summaries)
    status: Status = "KILLED" if interrupted else "FINISHED" if finished else "FAILED"
    try:
        reference = sweep_run.finish(directory, _sweep_report(directory, comparison, output), status=status)
    except TrackingError as error:
        log.warning("the comparison is not in MLflow: %s; python -m runner.compare SWEEP publishes it later", error)
        return
    if reference is not None:
        terminal.print_line(f"Browse  {ui_command(reference.uri, Path.cwd())}")
        terminal.print_line(f"        {page_address(reference.uri, jobs_page(reference))}")


def _sweep_report(directory: Path, comparison: Comparison, output: Files) -> SweepReport:
    table, added = speed_table(comparison, width=0), comparison.metrics
    jobs = [run for run in comparison.runs if _is_job(run, directory)]
    rows = tuple(row for row in comparison.rows if _is_job(row.runs[0], directory))
    compared = {run.folder.path: added.get(run.folder.path, {}) for run in jobs}
    figures = [figure for run in jobs for figure in {**run.metrics, **compared[run.folder.path]}.items()]
    available = {name for name, value in figures if value or name != _FAILED}
    return SweepReport(
        title=f"Sweep {directory.name}",
        note=markdown_note(comparison),
        table=[dict(zip(table.columns, row, strict=True)) for row in table.rows],
        files=[(output.page, ""), (output.data, ""), *((plot, PLOTS) for plot in output.plots)],
        curves=list(curves(replace(comparison, runs=tuple(jobs), rows=rows))),
        metrics=compared,
        swept=_swept(jobs),
        columns=[name for name in _COLUMNS if name in available],
    )


def _is_job(run: Run, directory: Path) -> bool:
    """Return whether a run is of the sweep; a named reference may be another one."""
    return run.folder.path.parent == directory.resolve()


def _swept(runs: Sequence[Run]) -> Mapping[str, Sequence[object]]:
    """Return the values of every key that was swept: what the comparison tells apart, and what it takes for repeats."""
    repeated = [key for key in ("repeat", "seed") if len(_distinct_values(runs, key)) > 1]
    return {key: _distinct_values(runs, key) for key in (*swept_keys(runs), *repeated)}


def _distinct_values(runs: Sequence[Run], key: str) -> list[object]:
    """Return the values of a key in the order of the runs; a record without configuration has none."""
    values: list[object] = []
    for run in runs:
        if run.settings and (value := run.settings.get(key)) not in values:
            values.append(value)
    return values


def curves(comparison: Comparison) -> Iterator[tuple[str, int, float]]:
    """Yield (metric name, batch size, value): a curve over the batch size for each mode and whatever else was swept."""
    names = _curve_names(comparison)
    for row in comparison.rows:
        run = row.runs[0]
        size = run.settings.get("batch.size")
        values = {name: row.figures[name].median for name in _CURVES if name in row.figures}
        values |= {"exact_match_ratio": median(ratios)} if (ratios := comparison.exact_matches(row)) else {}
        if isinstance(size, int):  # batch.size=auto is no point of the axis
            yield from ((f"by batch size/{name}/{names[run.label]}", size, value) for name, value in values.items())


def _curve_names(comparison: Comparison) -> Mapping[str, str]:
    """Return a curve name by run label: unique, and in characters that MLflow takes in a metric's name."""
    titles = series(comparison.runs)
    names: dict[str, str] = {}
    for title in dict.fromkeys(titles.values()):
        name = re.sub(r"[^\w. -]", "_", re.sub(r", |=", " ", title.replace("…", "")))
        names[title] = name if name not in names.values() else f"{name} {len(names) + 1}"
    return {label: names[title] for label, title in titles.items()}
