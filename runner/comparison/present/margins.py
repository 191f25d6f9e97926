"""The picture of the margins: how far apart the two best tokens were where answers part, beside the noise bound."""

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from runner.comparison.compare import Comparison
from runner.comparison.explain import Explanation
from runner.comparison.explained_notes import verdict
from runner.comparison.present.plots import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NEAR_TIE, _UNEXPLAINED, _BOUND = "#0b3c8c", "#c2410c", "#111827"
_MIN_MARGIN = 1e-3
"""Logits: a smaller margin, 0 included, is drawn here, where a logarithmic axis ends."""
_MIN_TOP = 10.0
"""Logits: where the axis ends at least, so that pictures of different runs can be compared."""
_MAX_PANELS = 12
"""Runs that are drawn; the table has all."""


def draw(comparison: Comparison) -> Picture:
    """Return a strip per run with a point per measured difference, or the reason why there is no picture."""
    name, title = "margins", "Margins of the differences"
    alt = (
        "The gap between the two tokens where answers part, a point per answer and a strip per run, and the noise bound"
    )
    entries = [
        (f"run {entry.pair.run.label}", entry.explanation)
        for entry in comparison.compared
        if entry.explanation and entry.explanation.max_margin is not None
    ]
    if not entries:
        reason = "no margin was measured (python -m runner.compare SWEEP --explain)"
        return Picture(name=name, title=title, alt=alt, png=None, reason=reason)
    return Picture(name=name, title=title, alt=alt, png=_png(entries[:_MAX_PANELS], title))


def _png(entries: Sequence[tuple[str, Explanation]], title: str) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, max(2.6, 1.7 + 0.55 * len(entries))), dpi=150, layout="constrained")
    axes = figure.subplots()
    for row, (_, explanation) in enumerate(entries):
        _strip(axes, row, explanation)
    axes.set_xscale("log")
    axes.set_xlim(_MIN_MARGIN / 1.5, max(_MIN_TOP, 1.5 * axes.get_xlim()[1]))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.set_yticks(
        range(len(entries)), [f"{label}\n{verdict(explanation).split(':')[0]}" for label, explanation in entries]
    )
    axes.set_ylim(len(entries) - 0.5, -0.5)
    axes.set_xlabel(f"|margin| in logits (up to {_MIN_MARGIN:g}: drawn at {_MIN_MARGIN:g})")
    axes.set_title(title, fontweight="bold")
    axes.grid(visible=True, axis="x", color="#d1d5db", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    distinct = dict(zip(labels, handles, strict=True))
    figure.legend(distinct.values(), distinct.keys(), loc="outside lower center", ncols=3, frameon=False)
    png = BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


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
        axes.plot([bound] * 2, [row - 0.4, row + 0.4], color=_BOUND, linewidth=2, label="noise bound", zorder=4)
