"""A sweep at its end: its jobs compared on disk and on the terminal, and MLflow told of it."""

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median

from runner import display, runfiles
from runner.comparison import files, overview
from runner.comparison.build import Comparison, compare_folders
from runner.comparison.files import Files
from runner.comparison.runs import sweep_folders
from runner.errors import TrackingError
from runner.runfiles import Status, Summary
from runner.tracking import sweep as parent
from runner.tracking.address import page, ui_command
from runner.tracking.sweep import Story

log = logging.getLogger(__name__)

_CURVES = ("output_tokens_per_s", "prompts_per_s", "latency_p50_s")


def summaries(directory: Path) -> list[Summary | None]:
    """Return how the jobs ended, in their order; None for a job that left no summary."""
    return [runfiles.read_summary(folder) for folder in sweep_folders(directory)]


def compare(directory: Path) -> tuple[Comparison, Files]:
    """Compare a sweep's jobs, leave page, data and pictures in its folder, and print what came of it."""
    comparison, title = compare_folders(sweep_folders(directory)), f"Sweep {directory.name}"
    written = files.write(comparison, directory, title=title)
    files.show(comparison, written, title=title)
    return comparison, written


def tell(directory: Path, comparison: Comparison, written: Files, *, interrupted: bool = False) -> None:
    """Tell MLflow what came of a sweep and print where it shows it; a store that is away costs a warning."""
    try:
        tracked = parent.finish(
            directory, _story(comparison, written), status=_status(directory, interrupted=interrupted)
        )
    except TrackingError as error:
        log.warning("the comparison is not in MLflow: %s; python -m runner.compare SWEEP tells it later", error)
        return
    if tracked is not None:
        display.print_line(f"Browse  {ui_command(tracked.uri)}")
        display.print_line(f"        {page(tracked.uri, tracked.address)}")


def _story(comparison: Comparison, written: Files) -> Story:
    table = overview.speed_table(comparison, width=0)
    return Story(
        note=overview.markdown(comparison),
        table=[dict(zip(table.columns, row, strict=True)) for row in table.rows],
        files=[(written.page, ""), (written.data, ""), *((plot, files.PLOTS) for plot in written.plots)],
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
    series = overview.series(comparison)
    names: dict[str, str] = {}
    for said in dict.fromkeys(series.values()):
        plain = re.sub(r"[^\w. -]", "_", re.sub(r", |=", " ", said.replace("…", "")))
        names[said] = plain if plain not in names.values() else f"{plain} {len(names) + 1}"
    return {label: names[said] for label, said in series.items()}


def _status(directory: Path, *, interrupted: bool) -> Status:
    if interrupted:
        return "KILLED"
    return "FINISHED" if all(end and end.status == "FINISHED" for end in summaries(directory)) else "FAILED"
