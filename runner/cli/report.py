"""Prints a comparison."""

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from runner.cli import terminal
from runner.comparison.compare import Comparison
from runner.comparison.present import tables
from runner.comparison.present.output import PLOTS, Files
from runner.comparison.present.tables import Table
from runner.record.folder import relative_to_start


def print_comparison(comparison: Comparison, output: Files | None, *, title: str) -> None:
    """Print tables, notes and where the files are, no wider than 100 columns; alarms come before everything else."""
    speed_table, text_tables = tables.speed_table(comparison), tables.text_tables(comparison)
    for text in _notes(comparison, "alarm"):
        terminal.print_line(text)
    terminal.print_table(
        f"{title} (* best of its column)", speed_table.columns, speed_table.rows, text_columns=speed_table.text_columns
    )
    if headline := tables.headline(comparison):
        terminal.print_line("")
        terminal.print_line(textwrap.fill(headline, tables.WIDTH, break_on_hyphens=False))
    for table in text_tables:
        terminal.print_line("")
        terminal.print_table(table.title, table.columns, table.rows, text_columns=table.text_columns)
    terminal.print_line("")
    for text in (*_notes(comparison, "note"), *_left_out([speed_table, *text_tables])):
        terminal.print_line(text)
    if output:
        terminal.print_line("")
        for name, path in (("Page", output.page), ("Data", output.data), ("Plots", output.data.parent / PLOTS)):
            terminal.print_line(f"{name:<7} {relative_to_start(path.absolute(), Path.cwd())}")


def _notes(comparison: Comparison, level: str) -> Iterator[str]:
    start = "ALARM   " if level == "alarm" else "- "
    for note in comparison.notes:
        if note.level == level:
            yield textwrap.fill(
                note.text,
                tables.WIDTH,
                initial_indent=start,
                subsequent_indent=" " * len(start),
                break_on_hyphens=False,
            )


def _left_out(shown: Sequence[Table]) -> Iterator[str]:
    if columns := dict.fromkeys(name for table in shown for name in table.left_out):
        yield f"- No room here for {', '.join(columns)}: see the page"
