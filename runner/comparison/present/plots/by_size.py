"""Pictures with the batch size on their axis: prompts per second, latency, exact matches."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from runner.comparison import speed
from runner.comparison.compare import Comparison
from runner.comparison.present.figures import Added, Measured, measured
from runner.comparison.present.plots import axes as shared
from runner.comparison.present.plots.plot import HEIGHT, INK, WIDTH
from runner.comparison.speed import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EXACT_MATCH = "exact_match_ratio"
_MAX_COLUMNS = 2
"""Panels side by side."""
_SHIFT = 0.06
"""Between two series at one batch size, in powers of two."""


def draw_throughput(figure: "Figure", comparison: Comparison) -> str:
    """Draw prompts per second, which rank the configurations of one prompt set, a line per series."""
    axes = figure.subplots()
    drawn = _lines(axes, comparison, speed.RATE, "no run has a rate of prompts")
    axes.set_ylabel("prompts per second")
    axes.set_title("Prompts per second by batch size")
    shared.from_zero(axes)
    prompts = shared.count_caption(comparison.rows, "completed_prompts", "completed prompts")
    return f"{prompts} {shared.bars_caption(drawn)}".strip()


def draw_divergence(figure: "Figure", comparison: Comparison) -> str:
    """Draw the share of answers with the reference's exact text, a line per series, and the reference as a star."""
    from matplotlib.ticker import PercentFormatter

    axes = figure.subplots()
    labels = {
        compared.pair.reference.label for compared in comparison.compared if compared.exact_match_ratio is not None
    }
    references = [row for row in comparison.rows if any(run.label in labels for run in row.runs)]
    reason = "no two runs of the same model and generation parameters could be compared"
    drawn = _lines(axes, comparison, EXACT_MATCH, reason, references)
    positions = shared.size_axis(axes, [*references, *_rows_with(comparison, EXACT_MATCH)])
    axes.scatter([positions[shared.size(row)] for row in references], [1.0] * len(references), marker="*", s=320,
                 facecolors="none", edgecolors=INK, label="reference")  # fmt: skip
    axes.legend()
    axes.set_ylim(-0.04, 1.06)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylabel("share of compared answers")
    axes.set_title("Answers with the reference's exact text")
    counts = [comparison.compared_texts(row) for row in comparison.rows]
    texts = f"At least {min(filter(None, counts), default=0):,} compared answers a run."
    return f"{texts} {shared.bars_caption(drawn)}"


def draw_latency(figure: "Figure", comparison: Comparison) -> str:
    """Draw the percentiles of completed calls, a panel per series, with one scale for all.

    Raises:
        NoDataError: no run has a latency.
    """
    rows = _rows_with(comparison, speed.LATENCY)
    shared.require(rows, "no run has a latency")
    entries = shared.series_of(comparison, rows)
    panelled = [entry for entry in entries if entry[0] is not shared.OTHERS]
    shared.require(panelled, f"none of the first {len(shared.STYLES)} series has a latency")
    panels, added = _panels(figure, len(panelled)), comparison.metrics
    figures = []
    for axes, (_, name, members) in zip(panels, panelled, strict=True):
        figures += _percentiles(axes, members, added)
        axes.set_title(name)
    panels[0].legend()
    for axes in panels[::_MAX_COLUMNS]:
        axes.set_ylabel("seconds of a call")
    shared.from_zero(panels[0])  # the scale is shared: after the lines of all panels
    figure.suptitle("Latency of completed calls by batch size")
    more = [f"{name}." for style, name, _ in entries if style is shared.OTHERS]
    calls = shared.count_caption(rows, "latency_samples", "completed calls")
    return " ".join(filter(None, [calls, shared.bars_caption(figures), *more]))


def _rows_with(comparison: Comparison, name: str) -> list[Row]:
    added = comparison.metrics
    return [row for row in comparison.rows if measured(row, name, added)]


def _lines(axes: "Axes", comparison: Comparison, name: str, reason: str, others: Sequence[Row] = ()) -> list[Measured]:
    """Draw a line of one figure for each series, and return what was drawn.

    Args:
        axes: an empty one.
        comparison: has the rows.
        name: of the figure.
        reason: why there is no picture where no row has the figure.
        others: further rows that need a place on the axis.
    """
    added = comparison.metrics
    figures = {id(row): figure for row in comparison.rows if (figure := measured(row, name, added))}
    rows = [row for row in comparison.rows if id(row) in figures]
    shared.require(rows, reason)
    positions = shared.size_axis(axes, [*others, *rows])
    entries = shared.series_of(comparison, rows)
    for number, (style, label, members) in enumerate(entries):
        shift = _SHIFT * (number - (len(entries) - 1) / 2)  # error bars of two series do not cover each other
        shared.line(axes, [(positions[shared.size(row)] + shift, figures[id(row)]) for row in members], style, label)
    axes.legend()
    return list(figures.values())


def _panels(figure: "Figure", count: int) -> "list[Axes]":
    """Return panels with one scale, two in a row."""
    columns = min(count, _MAX_COLUMNS)
    lines = -(-count // columns)
    figure.set_size_inches(WIDTH, HEIGHT if lines == 1 else 2.6 * lines)
    grid = list(figure.subplots(lines, columns, sharey=True, squeeze=False).flat)
    for axes in grid[count:]:
        axes.remove()
    return grid[:count]


def _percentiles(axes: "Axes", members: Sequence[Row], added: Added) -> list[Measured]:
    positions = shared.size_axis(axes, members)
    drawn = []
    for style, rank in zip(shared.STYLES, (50, 90, 95, 99), strict=False):
        points = [
            (positions[shared.size(row)], figure)
            for row in members
            if (figure := measured(row, f"latency_p{rank}_s", added))
        ]
        if points:
            shared.line(axes, points, style, f"p{rank}")
            drawn += [figure for _, figure in points]
    return drawn
