"""Leaves a comparison on disk and on the terminal: comparison.html, comparison.json, plots/*.png."""

import json
import secrets
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from runner import display
from runner.comparison import overview, plots, report
from runner.comparison.build import Comparison
from runner.comparison.data import as_data
from runner.comparison.overview import Table
from runner.errors import RequestError

PAGE, DATA, PLOTS = "comparison.html", "comparison.json", "plots"


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Where a comparison was left."""

    page: Path
    data: Path
    plots: tuple[Path, ...]


def default_folder() -> Path:
    """Return a folder that no other comparison has."""
    now = datetime.now().astimezone()
    return Path("outputs/comparisons") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}_{secrets.token_hex(3)}"


def write(comparison: Comparison, folder: Path, *, title: str) -> Files:
    """Write page, data and pictures; an earlier comparison in the same folder is written over.

    Raises:
        RequestError: the folder cannot be written.
    """
    pictures = plots.draw(comparison)
    page = report.render(comparison, pictures, title=title)
    drawn = [(folder / PLOTS / f"{picture.name}.png", picture.png) for picture in pictures if picture.png]
    try:
        (folder / PLOTS).mkdir(parents=True, exist_ok=True)
        for picture in pictures:
            (folder / PLOTS / f"{picture.name}.png").unlink(missing_ok=True)
        for path, png in drawn:
            path.write_bytes(png)
        (folder / PAGE).write_text(page, encoding="utf-8")
        (folder / DATA).write_text(json.dumps(as_data(comparison), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise RequestError(
            f"{str(folder)!r} cannot be written ({error.strerror}): choose another with --output"
        ) from None
    return Files(page=folder / PAGE, data=folder / DATA, plots=tuple(path for path, _ in drawn))


def show(comparison: Comparison, files: Files | None, *, title: str) -> None:
    """Print tables, notes and where the files are, no wider than 100 columns; alarms come before everything else."""
    speed_table, text_tables = overview.speed_table(comparison), overview.text_tables(comparison)
    for text in _notes(comparison, "alarm"):
        display.print_line(text)
    display.print_table(
        f"{title} (* best of its column)", speed_table.columns, speed_table.rows, text_columns=speed_table.text_columns
    )
    if said := overview.headline(comparison):
        display.print_line("")
        display.print_line(textwrap.fill(said, overview.WIDTH, break_on_hyphens=False))
    for table in text_tables:
        display.print_line("")
        display.print_table(table.title, table.columns, table.rows, text_columns=table.text_columns)
    display.print_line("")
    for text in (*_notes(comparison, "note"), *_left_out([speed_table, *text_tables])):
        display.print_line(text)
    if files:
        display.print_line("")
        for name, path in (("Page", files.page), ("Data", files.data), ("Plots", files.data.parent / PLOTS)):
            display.print_line(f"{name:<7} {display.short(path.absolute())}")


def _notes(comparison: Comparison, level: str) -> Iterator[str]:
    start = "ALARM   " if level == "alarm" else "- "
    for note in comparison.notes:
        if note.level == level:
            yield textwrap.fill(
                note.text,
                overview.WIDTH,
                initial_indent=start,
                subsequent_indent=" " * len(start),
                break_on_hyphens=False,
            )


def _left_out(tables: Sequence[Table]) -> Iterator[str]:
    if columns := dict.fromkeys(name for table in tables for name in table.left_out):
        yield f"- No room here for {', '.join(columns)}: see the page"
