"""The picture of latency against throughput, with the Pareto front."""

from typing import TYPE_CHECKING

from runner.comparison import speed
from runner.comparison.compare import Comparison
from runner.comparison.present.figures import measured
from runner.comparison.present.plots import axes as shared
from runner.comparison.present.plots.plot import INK
from runner.comparison.speed import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_pareto(figure: "Figure", comparison: Comparison) -> str:
    """Draw a point per row with its intervals, and a line through the Pareto front of each request.

    Raises:
        NoDataError: no run has both figures.
    """
    rows = [row for row in comparison.rows if speed.LATENCY in row.figures and speed.RATE in row.figures]
    shared.require(rows, "no run has both a latency and a rate of prompts")
    axes, added = figure.subplots(), comparison.metrics
    drawn = []
    for style, name, members in shared.series_of(comparison, rows):
        latencies = [value for row in members if (value := measured(row, speed.LATENCY, added))]
        rates = [value for row in members if (value := measured(row, speed.RATE, added))]
        drawn += [*latencies, *rates]
        xs, ys = [latency.value for latency in latencies], [rate.value for rate in rates]
        axes.errorbar(
            xs, ys, xerr=shared.error_bars(latencies), yerr=shared.error_bars(rates), fmt="none",
            ecolor=style["color"], elinewidth=0.9, capsize=2,
        )  # fmt: skip
        axes.scatter(
            xs, ys, label=name, s=50, zorder=3, marker=style["marker"], edgecolors=style["color"],
            facecolors=[style["color"] if row.on_front else "none" for row in members],
        )  # fmt: skip
        for row, point in zip(members, zip(xs, ys, strict=True), strict=True):
            axes.annotate(shared.size(row), point, xytext=(7, -4), textcoords="offset points")
    for request in dict.fromkeys(row.request for row in rows if row.on_front):
        front = sorted(_point(row) for row in rows if row.on_front and row.request == request)
        axes.plot([x for x, _ in front], [y for _, y in front], color=INK, linewidth=0.9, zorder=1, label="_front")
    axes.set_xlabel("median latency of a call (s): less is better")
    axes.set_ylabel("prompts per second: more is better")
    axes.set_title("Latency against throughput")
    axes.margins(0.12)
    axes.grid(visible=True)
    axes.legend()
    shared.from_zero(axes)
    return f"Numbers are batch.size; filled points are the Pareto front. {shared.bars_caption(drawn)}".strip()


def _point(row: Row) -> tuple[float, float]:
    return row.figures[speed.LATENCY].median, row.figures[speed.RATE].median
