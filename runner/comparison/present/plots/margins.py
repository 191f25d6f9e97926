"""The picture of the margins: how far apart the two best tokens were where answers part, beside the noise bound."""

from typing import TYPE_CHECKING

from runner.comparison.compare import Comparison
from runner.comparison.explain import Explanation
from runner.comparison.explained_notes import verdict
from runner.comparison.present.plots.plot import INK, WIDTH, NoDataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NEAR_TIE, _UNEXPLAINED = "#2f7fc1", "#d9541e"
_MIN_MARGIN = 1e-3
"""Logits: a smaller margin, 0 included, is drawn here, where a logarithmic axis ends."""
_MIN_TOP = 10.0
"""Logits: where the axis ends at least, so that pictures of different runs can be compared."""
_MAX_PANELS = 12
"""Runs that are drawn; the table has all."""


def draw_margins(figure: "Figure", comparison: Comparison) -> str:
    """Draw a strip per run with a point per measured difference."""
    entries = [
        (f"run {entry.pair.run.label}", entry.explanation)
        for entry in comparison.compared
        if entry.explanation and entry.explanation.max_margin is not None
    ]
    if not entries:
        raise NoDataError("no margin was measured (python -m runner.compare SWEEP --explain)")
    drawn = entries[:_MAX_PANELS]
    figure.set_size_inches(WIDTH, max(2.6, 1.7 + 0.55 * len(drawn)))
    axes = figure.subplots()
    for row, (_, explanation) in enumerate(drawn):
        _strip(axes, row, explanation)
    axes.set_xscale("log")
    axes.set_xlim(_MIN_MARGIN / 1.5, max(_MIN_TOP, 1.5 * axes.get_xlim()[1]))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.set_yticks(
        range(len(drawn)), [f"{label}\n{verdict(explanation).split(':')[0]}" for label, explanation in drawn]
    )
    axes.set_ylim(len(drawn) - 0.5, -0.5)
    axes.set_xlabel("|margin| in logits")
    axes.set_title("Margins of the differences")
    axes.grid(visible=True, axis="x")
    handles, labels = axes.get_legend_handles_labels()
    distinct = dict(zip(labels, handles, strict=True))
    figure.legend(distinct.values(), distinct.keys(), loc="outside upper center", ncols=3)
    without = sum(entry.margin is None for _, explanation in drawn for entry in explanation.explained)
    parts = [
        f"A point is an answer. Margins up to {_MIN_MARGIN:g} are drawn at {_MIN_MARGIN:g}.",
        f"Unexplained without a margin, so without a point: {without}." if without else "",
        f"{len(entries) - len(drawn)} more runs are in the table." if len(entries) > len(drawn) else "",
    ]
    return " ".join(filter(None, parts))


def _strip(axes: "Axes", row: int, explanation: Explanation) -> None:
    """Draw a run's margins, spread over the height of its strip, and its bound as a line."""
    for is_near_tie, label, marker, colour in (
        (True, "near-tie", "o", _NEAR_TIE), (False, "not explained by rounding", "X", _UNEXPLAINED),
    ):  # fmt: skip
        margins = [
            max(abs(entry.margin), _MIN_MARGIN)
            for entry in explanation.explained
            if entry.margin is not None and entry.is_near_tie is is_near_tie
        ]
        heights = [row + 0.5 * ((index * 0.618) % 1 - 0.5) for index in range(len(margins))]
        if margins:
            axes.scatter(margins, heights, label=label, marker=marker, s=22, color=colour, alpha=0.75, zorder=3)
    if explanation.bound:
        bound = max(explanation.bound.max_change, _MIN_MARGIN)
        axes.plot([bound] * 2, [row - 0.4, row + 0.4], color=INK, linewidth=2, label="noise bound", zorder=4)
