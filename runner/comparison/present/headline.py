"""The first sentence of a comparison: the fastest configuration and how its texts differ."""

from collections.abc import Sequence
from statistics import median

from runner.comparison import speed
from runner.comparison.compare import Comparison
from runner.comparison.pairing import are_comparable
from runner.comparison.present.figures import percentage, speedup
from runner.comparison.present.settings import setting_columns
from runner.comparison.speed import Row

_MAX_NAMED = 3
"""Rows of equal speed that the headline names."""


def headline(comparison: Comparison) -> str | None:
    """Return the fastest configuration and how its texts differ from the reference's.

    Only finished rows count. There is no fastest among rows with different requests.
    """
    measured = [row for row in comparison.rows if speed.THROUGHPUT in row.figures and row.is_finished]
    if len(measured) < 2 or not are_comparable([run for row in measured for run in row.runs]):
        return None
    rate = max(row.figures[speed.THROUGHPUT].median for row in measured)
    fastest = [row for row in measured if row.figures[speed.THROUGHPUT].median == rate]
    first = fastest[0]
    alike = [row for row in measured if row is first or speed.in_noise(first, row)]
    if len(alike) > 1:
        return f"No difference beyond the noise of the repeats between the fastest: {_joined(comparison, alike)}"
    if len(fastest) > 1:
        return f"Equally fast: {_joined(comparison, fastest)}, {rate:,.1f} output tokens/s"
    sentence = f"Fastest: {_described(comparison, first)}, {rate:,.1f} output tokens/s"
    if first.speedup and first.reference:
        sentence += f", {speedup(first)} run {first.reference}'s"
    if first.reference and (matches := comparison.exact_matches(first)):
        sentence += f"; {percentage(median(matches))} of its answers are run {first.reference}'s to the letter"
    return sentence


def _described(comparison: Comparison, row: Row) -> str:
    settings = ", ".join(f"{name} {value}" for name, (value,) in setting_columns(comparison.runs, row.runs[:1]))
    return f"run {row.label} ({settings})"


def _joined(comparison: Comparison, rows: Sequence[Row]) -> str:
    described = [_described(comparison, row) for row in rows[:_MAX_NAMED]]
    more = len(rows) - len(described)
    last = f"{more} more" if more else described.pop()
    return f"{', '.join(described)} and {last}"
