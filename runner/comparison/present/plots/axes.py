"""What pictures share: a style for each series, the axis of batch sizes, lines with error bars, words of a caption."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from runner.batching.modes import MODES
from runner.comparison.compare import Comparison
from runner.comparison.present.figures import Measured
from runner.comparison.present.plots.plot import INK, NoDataError
from runner.comparison.present.settings import series
from runner.comparison.speed import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES: tuple[Mapping[str, Any], ...] = (
    {"color": "#2f7fc1", "marker": "o", "linestyle": "-"},
    {"color": "#d55e00", "marker": "s", "linestyle": "--"},
    {"color": "#009e73", "marker": "^", "linestyle": "-."},
    {"color": "#9467bd", "marker": "D", "linestyle": ":"},
    {"color": "#a6761d", "marker": "v", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
    {"color": "#7f7f7f", "marker": "P", "linestyle": (0, (8, 2))},
)
"""Colours with a contrast of at least 3 on a light and a dark page; marker and line tell series apart without."""
OTHERS: Mapping[str, Any] = {"color": INK, "marker": ".", "linestyle": ""}
"""Style of all series beyond those: points, no line."""
_BARS = {
    frozenset[str](): "",
    frozenset({"range"}): "Error bars are their range.",
    frozenset({"95 % interval"}): "Error bars are 95 % intervals{ends}.",
    frozenset({"range", "95 % interval"}): "Error bars are 95 % intervals{ends}, or else the range of repeats.",
}
"""What error bars are, by the kinds of intervals; `ends` says what they are of repeats."""


def require(rows: Sequence[object], reason: str) -> None:
    """Raise NoDataError with the reason if there are no rows."""
    if not rows:
        raise NoDataError(reason)


def series_of(comparison: Comparison, rows: Sequence[Row]) -> list[tuple[Mapping[str, Any], str, list[Row]]]:
    """Return style, name and rows of each series; series beyond the styles as one. Styles are alike in all pictures."""
    names = series(comparison.runs)
    distinct = list(dict.fromkeys(names[row.runs[0].label] for row in comparison.rows))
    entries: list[tuple[Mapping[str, Any], str, list[Row]]] = []
    for style, name in zip(STYLES, distinct, strict=False):
        if members := [row for row in rows if names[row.runs[0].label] == name]:
            entries.append((style, drawable(name), members))
    rest = [row for row in rows if names[row.runs[0].label] in distinct[len(STYLES) :]]
    if rest:
        entries.append((OTHERS, f"{len(distinct) - len(STYLES)} more: see the table", rest))
    return entries


def size(row: Row) -> str:
    """Return a row's batch size as text."""
    return str(row.runs[0].settings.get("batch.size", "unknown"))


def size_axis(axes: "Axes", rows: Sequence[Row]) -> dict[str, float]:
    """Return the position of each batch size, by powers of two; auto and unknown sizes are at the right end."""
    from math import log2

    sizes = {size(row) for row in rows}
    numbers = sorted({int(text) for text in sizes if text.isdigit()})
    positions = {str(number): log2(number) for number in numbers}
    for text in sorted(sizes - positions.keys()):
        positions[text] = max(positions.values(), default=-1.0) + 1.0
    axes.set_xticks(list(positions.values()), list(positions))
    axes.set_xlim(min(positions.values(), default=0) - 0.4, max(positions.values(), default=0) + 0.4)
    modes = {row.runs[0].settings.get("batch.mode") for row in rows}
    units = {mode.size_unit for name, mode in MODES.items() if name in modes}
    axes.set_xlabel(f"batch.size ({units.pop() if len(units) == 1 else 'its meaning depends on the mode'})")
    axes.grid(visible=True)
    return positions


def line(axes: "Axes", points: Iterable[tuple[float, Measured]], style: Mapping[str, Any], name: str) -> None:
    """Draw one line through values at their positions, with their intervals as error bars."""
    drawn = sorted(points, key=lambda point: point[0])
    figures = [figure for _, figure in drawn]
    axes.errorbar(
        [position for position, _ in drawn], [figure.value for figure in figures],
        yerr=error_bars(figures), label=name, markersize=6, **style,
    )  # fmt: skip


def error_bars(figures: Sequence[Measured]) -> list[list[float]] | None:
    """Return how far the intervals reach below and above the values; None where no figure has one."""
    if not any(figure.interval for figure in figures):
        return None
    below = [max(0.0, figure.value - figure.low) if figure.low is not None else 0.0 for figure in figures]
    above = [max(0.0, figure.high - figure.value) if figure.high is not None else 0.0 for figure in figures]
    return [below, above]


def from_zero(axes: "Axes") -> None:
    """Begin the scale at 0. Later lines do not change the scale."""
    bottom, top = axes.get_ylim()
    axes.set_ylim(min(0.0, bottom), top)


def drawable(text: str) -> str:
    """Return a name in at most three lines, in characters of the built-in font, without formulas."""
    text = "".join(char if " " <= char < "\u0250" or char == "…" else "?" for char in text)
    return textwrap.fill(text, 28, max_lines=3, placeholder=" …").replace("$", r"\$")


def bars_caption(figures: Sequence[Measured]) -> str:
    """Return what points and error bars are."""
    repeats = _count({figure.runs for figure in figures if figure.runs > 1}, "repeats")
    has_repeats = any(figure.runs > 1 and figure.interval == "95 % interval" for figure in figures)
    bars = _BARS[frozenset(figure.interval for figure in figures if figure.interval)].format(
        ends=", of repeats from the lowest end to the highest" if has_repeats else ""
    )
    return f"Points are medians of {repeats}. {bars}".strip() if repeats else bars


def count_caption(rows: Iterable[Row], name: str, unit: str) -> str:
    """Say how many prompts or calls a run has: the metric `name`."""
    counts = {round(run.metrics[name]) for row in rows for run in row.runs if name in run.metrics}
    return f"{_count(counts, unit)} a run." if counts else ""


def _count(counts: set[int], unit: str) -> str:
    """Return `16 calls` or `4 to 16 calls`; nothing without a count."""
    ends = dict.fromkeys(f"{end:,}" for end in (min(counts), max(counts))) if counts else ()
    return f"{' to '.join(ends)} {unit}" if ends else ""
