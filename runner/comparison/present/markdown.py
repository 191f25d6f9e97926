"""A comparison as a Markdown note, which MLflow shows on the page of a sweep."""

from collections.abc import Sequence

from runner.comparison.compare import Comparison
from runner.comparison.present.headline import headline
from runner.comparison.present.output import PAGE
from runner.comparison.present.tables import Table, speed_table, text_tables
from runner.text import escape_markdown

_MAX_NOTES = 8
"""Alarms, and notes, that a note in MLflow repeats."""


def markdown_note(comparison: Comparison, *, max_chars: int = 7500) -> str:
    """Return alarms, headline, tables and notes, with as many rows of each table as fit into `max_chars`."""
    tables = [speed_table(comparison), *text_tables(comparison)]
    rows = max(len(table.rows) for table in tables)
    while len(note := _note(comparison, tables, rows)) > max_chars and rows > 1:
        rows //= 2
    return note


def _note(comparison: Comparison, tables: Sequence[Table], max_rows: int) -> str:
    alarms = [f"**ALARM** {escape_markdown(note.text)}" for note in comparison.notes if note.level == "alarm"]
    notes = [f"- {escape_markdown(note.text)}" for note in comparison.notes if note.level == "note"]
    sentence = headline(comparison)
    return "\n\n".join(
        [
            *alarms[:_MAX_NOTES],
            *_more(alarms, _MAX_NOTES, "alarms"),
            *([f"**{escape_markdown(sentence)}**"] if sentence else []),
            *(part for table in tables for part in _table(table, max_rows)),
            "\n".join([*notes[:_MAX_NOTES], *_more(notes, _MAX_NOTES, "notes")]),
        ]
    )


def _table(table: Table, max_rows: int) -> list[str]:
    """Return a table's first rows, then a line each about the rows and the columns that are left out."""
    rule = ["---" if index < table.text_columns else "--:" for index in range(len(table.columns))]
    rows = ([escape_markdown(cell) for cell in cells] for cells in (table.columns, *table.rows))
    head, *body = (f"| {' | '.join(cells)} |" for cells in rows)
    columns = escape_markdown(", ".join(table.left_out))
    return [
        "\n".join([f"**{table.title}**\n", head, f"| {' | '.join(rule)} |", *body[:max_rows]]),
        *_more(body, max_rows, "rows"),
        *([f"No room here for {columns}: see {PAGE}"] if columns else []),
    ]


def _more(texts: Sequence[str], shown: int, unit: str) -> list[str]:
    more = len(texts) - shown
    return [f"{more} more {unit}: see {PAGE}"] if more > 0 else []
