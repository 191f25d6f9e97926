"""Prints a comparison."""

import textwrap
from pathlib import Path

from runner.cli import terminal
from runner.comparison.compare import Comparison
from runner.comparison.notes import Level
from runner.comparison.present.headline import headline
from runner.comparison.present.output import PLOTS, Files
from runner.comparison.present.tables import WIDTH, speed_table, text_tables
from runner.record.folder import relative_to_start


def print_comparison(comparison: Comparison, output: Files | None, *, title: str) -> None:
    """Print alarms, tables, notes and the paths of the files, at most 100 columns wide."""
    speed, texts = speed_table(comparison), text_tables(comparison)
    _print_notes(comparison, "alarm", prefix="ALARM   ")
    terminal.print_table(
        f"{title} (* best of its column; percentiles are of completed calls)",
        speed.columns,
        speed.rows,
        text_columns=speed.text_columns,
    )
    if sentence := headline(comparison):
        terminal.print_line("")
        terminal.print_line(textwrap.fill(sentence, WIDTH, break_on_hyphens=False))
    for table in texts:
        terminal.print_line("")
        terminal.print_table(table.title, table.columns, table.rows, text_columns=table.text_columns)
    terminal.print_line("")
    _print_notes(comparison, "note", prefix="- ")
    if columns := dict.fromkeys(name for table in (speed, *texts) for name in table.left_out):
        sentence = f"- No room here for {', '.join(columns)}: see the page"
        terminal.print_line(textwrap.fill(sentence, WIDTH, subsequent_indent="  ", break_on_hyphens=False))
    if output:
        terminal.print_line("")
        for name, path in (("Page", output.page), ("Data", output.data), ("Plots", output.data.parent / PLOTS)):
            terminal.print_line(f"{name:<7} {relative_to_start(path.absolute(), Path.cwd())}")


def _print_notes(comparison: Comparison, level: Level, *, prefix: str) -> None:
    for note in comparison.notes:
        if note.level == level:
            indent = " " * len(prefix)
            terminal.print_line(
                textwrap.fill(note.text, WIDTH, initial_indent=prefix, subsequent_indent=indent, break_on_hyphens=False)
            )
