"""The five pictures of a comparison. Owns matplotlib. Pictures are readable without colour and show no model text."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

from runner.batching.modes import MODES
from runner.comparison import speed
from runner.comparison.compare import Comparison
from runner.comparison.inference import share_interval
from runner.comparison.present.settings import series
from runner.comparison.speed import Row, Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLES: tuple[Mapping[str, Any], ...] = (
    {"color": "#0b3c8c", "marker": "o", "linestyle": "-"},
    {"color": "#c2410c", "marker": "s", "linestyle": "--"},
    {"color": "#15803d", "marker": "^", "linestyle": "-."},
    {"color": "#7e22ce", "marker": "D", "linestyle": ":"},
    {"color": "#0891b2", "marker": "v", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
    {"color": "#4b5563", "marker": "P", "linestyle": (0, (8, 2))},
)
_OTHERS: Mapping[str, Any] = {"color": "#9ca3af", "marker": ".", "linestyle": ""}
"""Style of all series beyond those: points, no line."""
_SIZE = (7.2, 4.2)
"""Inches."""
_MAX_COLUMNS = 3
"""Panels side by side."""
_WORK = (
    ("prompt tokens", "#1d4ed8", ""),
    ("output tokens", "#93c5fd", "//"),
    ("padding", "#fbbf24", "xx"),
    ("tail wait", "#ffffff", ".."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture as PNG, or the reason why there is none."""

    name: str
    title: str
    alt: str
    png: bytes | None
    reason: str | None = None


class NoDataError(Exception):
    """A picture has no data; the message is the reason on the page."""


def draw(comparison: Comparison) -> tuple[Picture, ...]:
    """Draw all five pictures; one without data has a reason instead."""
    return tuple(_draw(comparison, *picture) for picture in _PICTURES)


def _draw(
    comparison: Comparison, name: str, title: str, alt: str, plot: Callable[["Figure", Comparison], None]
) -> Picture:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, dpi=150, layout="constrained")
    try:
        plot(figure, comparison)
    except NoDataError as reason:
        return Picture(name=name, title=title, alt=alt, png=None, reason=str(reason))
    png = BytesIO()
    figure.savefig(png, format="png")
    return Picture(name=name, title=title, alt=alt, png=png.getvalue())


def _throughput(figure: "Figure", comparison: Comparison) -> None:
    rows = [row for row in comparison.rows if speed.THROUGHPUT in row.figures]
    _require(rows, "no run has a throughput")
    axes = figure.subplots()
    positions = _size_axis(axes, rows)
    for style, name, members in _series(comparison, rows):
        _line(axes, positions, [(row, row.figures[speed.THROUGHPUT]) for row in members], style, name)
    axes.set_ylabel("output tokens per second")
    _finish(axes, "Throughput by batch size")
    _from_zero(axes)


def latency(figure: "Figure", comparison: Comparison) -> None:
    """Draw a panel per series, with one scale for all.

    Raises:
        NoDataError: no run has a latency.
    """
    rows = [row for row in comparison.rows if speed.LATENCY in row.figures]
    _require(rows, "no run has a latency")
    drawn = [entry for entry in _series(comparison, rows) if entry[0] is not _OTHERS]
    _require(drawn, f"none of the first {len(_STYLES)} series has a latency")
    panels = _panels(figure, len(drawn))
    for axes, (_, name, members) in zip(panels, drawn, strict=True):
        _percentiles(axes, members)
        _finish(axes, name, legend=axes is panels[0])
    for axes in panels[::_MAX_COLUMNS]:
        axes.set_ylabel("latency of a prompt (s)")
    _from_zero(panels[0])  # the scale is shared: after the lines of all panels
    figure.suptitle("Latency by batch size" + _more(comparison), fontweight="bold")


def _panels(figure: "Figure", count: int) -> "list[Axes]":
    """Return panels with one scale, three in a row."""
    columns = min(count, _MAX_COLUMNS)
    lines = -(-count // columns)
    figure.set_size_inches(max(_SIZE[0], 3.4 * columns), max(_SIZE[1], 3.2 * lines))
    grid = list(figure.subplots(lines, columns, sharey=True, squeeze=False).flat)
    for axes in grid[count:]:
        axes.remove()
    return grid[:count]


def _percentiles(axes: "Axes", members: Sequence[Row]) -> None:
    positions = _size_axis(axes, members)
    for style, rank in zip(_STYLES, (50, 90, 95, 99), strict=False):
        key = f"latency_p{rank}_s"
        if points := [(row, row.figures[key]) for row in members if key in row.figures]:
            _line(axes, positions, points, style, f"p{rank}")


def _token_shares(figure: "Figure", comparison: Comparison) -> None:
    rows = [(row, shares) for row in comparison.rows if (shares := _shares(row))]
    _require(rows, "no run padded batches in this process: services do not show their padding")
    figure.set_size_inches(7.2, max(2.4, 1.4 + 0.4 * len(rows)))
    axes = figure.subplots()
    names = series(comparison.runs)
    labels = [f"{_drawable(names[row.runs[0].label])}, {_size(row)}" for row, _ in rows]
    left = [0.0] * len(rows)
    for part, (label, colour, hatch) in enumerate(_WORK):
        widths = [shares[part] for _, shares in rows]
        axes.barh(
            range(len(rows)),
            widths,
            left=left,
            label=label,
            color=colour,
            hatch=hatch,
            edgecolor="black",
            linewidth=0.6,
        )
        left = [before + width for before, width in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(rows)), labels)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of all computed token slots (%): prompt and decode")
    axes.set_title("Where the work went", fontweight="bold")
    figure.legend(loc="outside lower center", ncols=4, frameon=False)


def _divergence(figure: "Figure", comparison: Comparison) -> None:
    references = {
        compared.pair.reference.label for compared in comparison.compared if compared.exact_match_ratio is not None
    }
    rows = [row for row in comparison.rows if comparison.exact_matches(row)]
    _require(rows, "no two runs of the same model and generation parameters could be compared")
    reference_rows = [row for row in comparison.rows if any(run.label in references for run in row.runs)]
    axes = figure.subplots()
    positions = _size_axis(axes, [*reference_rows, *rows])
    for style, name, members in _series(comparison, rows):
        points = [(row, _match_spread(comparison, row)) for row in members]
        _line(axes, positions, points, style, name)
    sizes = [positions[_size(row)] for row in reference_rows]
    axes.scatter(
        sizes, [100.0] * len(sizes), marker="*", s=420, facecolors="none", edgecolors="black", label="reference"
    )
    axes.set_ylim(-4, 106)
    axes.set_ylabel("answers with the reference's exact text (%)")
    _finish(axes, "Divergence by batch size")


def pareto(figure: "Figure", comparison: Comparison) -> None:
    """Draw a point per row, and a line through the Pareto front of each request.

    Raises:
        NoDataError: no run has both figures.
    """
    rows = [row for row in comparison.rows if speed.LATENCY in row.figures and speed.RATE in row.figures]
    _require(rows, "no run has both a latency and a rate of prompts")
    axes = figure.subplots()
    for style, name, members in _series(comparison, rows):
        colour = str(style["color"])
        axes.scatter(
            [_point(row)[0] for row in members], [_point(row)[1] for row in members], label=name, s=60, zorder=3,
            marker=str(style["marker"]), edgecolors=colour,
            facecolors=[colour if row.on_front else "white" for row in members],
        )  # fmt: skip
        for row in members:
            axes.annotate(_size(row), _point(row), xytext=(7, -4), textcoords="offset points", fontsize=9)
    label = "front (filled)"
    for request in dict.fromkeys(row.request for row in rows if row.on_front):
        front = sorted(_point(row) for row in rows if row.on_front and row.request == request)
        axes.plot([x for x, _ in front], [y for _, y in front], color="black", linewidth=0.9, zorder=1, label=label)
        label = ""  # one entry in the legend
    axes.set_xlabel("median latency of a prompt (s): less is better")
    axes.set_ylabel("prompts per second: more is better")
    axes.margins(0.12)
    _finish(axes, "Latency against throughput; numbers are batch.size")
    _from_zero(axes)


_PICTURES = (
    ("throughput", "Throughput", "Output tokens per second by batch size, a line per mode", _throughput),
    ("latency", "Latency", "Percentiles of the latency by batch size, a panel per mode", latency),
    ("work", "Where the work went", "Shares of useful tokens, padding and tail wait, a bar per run", _token_shares),
    ("divergence", "Divergence", "Share of answers with the reference's exact text by batch size", _divergence),
    (
        "pareto",
        "Latency against throughput",
        "Every run's median latency and prompts per second, the front marked",
        pareto,
    ),
)


def _line(
    axes: "Axes",
    positions: Mapping[str, float],
    points: Sequence[tuple[Row, Spread]],
    style: Mapping[str, Any],
    name: str,
) -> None:
    """Draw one line through medians; an error bar is the range of repeats, or the interval of a share."""
    drawn = sorted(((positions[_size(row)], spread) for row, spread in points), key=lambda point: point[0])
    below = [max(0.0, spread.median - spread.low) for _, spread in drawn]
    above = [max(0.0, spread.high - spread.median) for _, spread in drawn]
    ranges = [below, above] if any(below) or any(above) else None
    axes.errorbar(
        [position for position, _ in drawn], [spread.median for _, spread in drawn], yerr=ranges, capsize=3, label=name,
        markersize=6, **style,
    )  # fmt: skip


def _series(comparison: Comparison, rows: Sequence[Row]) -> list[tuple[Mapping[str, Any], str, list[Row]]]:
    """Return style, name and rows of each series; series beyond the styles as one. Styles are alike in all pictures."""
    names = series(comparison.runs)
    distinct = list(dict.fromkeys(names[row.runs[0].label] for row in comparison.rows))
    entries: list[tuple[Mapping[str, Any], str, list[Row]]] = []
    for style, name in zip(_STYLES, distinct, strict=False):
        if members := [row for row in rows if names[row.runs[0].label] == name]:
            entries.append((style, _drawable(name), members))
    rest = [row for row in rows if names[row.runs[0].label] in distinct[len(_STYLES) :]]
    if rest:
        entries.append((_OTHERS, _more(comparison).strip(" ()"), rest))
    return entries


def _more(comparison: Comparison) -> str:
    more = len(set(series(comparison.runs).values())) - len(_STYLES)
    return f" ({more} more: see the table)" if more > 0 else ""


def _size_axis(axes: "Axes", rows: Sequence[Row]) -> dict[str, float]:
    """Return the position of each batch size, by powers of two; auto and unknown sizes are at the right end."""
    from math import log2

    sizes = {_size(row) for row in rows}
    numbers = sorted({int(size) for size in sizes if size.isdigit()})
    positions = {str(number): log2(number) for number in numbers}
    for size in sorted(sizes - positions.keys()):
        positions[size] = max(positions.values(), default=-1.0) + 1.0
    axes.set_xticks(list(positions.values()), list(positions))
    axes.set_xlim(min(positions.values(), default=0) - 0.4, max(positions.values(), default=0) + 0.4)
    modes = {row.runs[0].settings.get("batch.mode") for row in rows}
    units = {mode.size_unit for name, mode in MODES.items() if name in modes}
    axes.set_xlabel(f"batch.size ({units.pop() if len(units) == 1 else 'its meaning depends on the mode'})")
    return positions


def _finish(axes: "Axes", title: str, *, legend: bool = True) -> None:
    axes.set_title(title, fontweight="bold", fontsize="medium" if "\n" in title else "large")
    axes.grid(visible=True, color="#d1d5db", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if legend:
        is_long = len(axes.get_legend_handles_labels()[0]) > _MAX_COLUMNS
        axes.legend(frameon=False, fontsize="small" if is_long else None)


def _from_zero(axes: "Axes") -> None:
    """Begin the scale at 0. Later lines do not change the scale."""
    bottom, top = axes.get_ylim()
    axes.set_ylim(min(0.0, bottom), top)


def _require(rows: Sequence[object], reason: str) -> None:
    if not rows:
        raise NoDataError(reason)


def _shares(row: Row) -> list[float] | None:
    """Return prompt tokens, output tokens, padding and tail wait, each in percent of all computed token slots."""
    names = ("input_tokens", "output_tokens", "prompt_padding_ratio", "tail_wait_ratio")
    if any(name not in row.figures for name in names):
        return None
    inputs, outputs, padding, tail = (row.figures[name].median for name in names)
    inputs *= row.runs[0].settings.get("generation.n") or 1  # a prompt is computed once per choice
    parts = [inputs, outputs, inputs * _per_useful(padding), outputs * _per_useful(tail)]
    return [100 * part / sum(parts) for part in parts] if sum(parts) else None


def _per_useful(ratio: float) -> float:
    """Return idle slots per useful slot, given the share of idle slots among all."""
    return ratio / (1 - ratio) if ratio < 1 else 0.0


def _match_spread(comparison: Comparison, row: Row) -> speed.Spread:
    """Return the exact match ratio in percent: of one run with its interval, of repeats with their range."""
    ratios, texts = comparison.exact_matches(row), comparison.compared_texts(row)
    spread = speed.spread([100 * ratio for ratio in ratios])
    interval = share_interval(round(ratios[0] * texts), texts)
    if spread.count > 1 or interval.low is None or interval.high is None:
        return spread
    return replace(spread, low=100 * interval.low, high=100 * interval.high)


def _point(row: Row) -> tuple[float, float]:
    return row.figures[speed.LATENCY].median, row.figures[speed.RATE].median


def _drawable(text: str) -> str:
    """Return a name in at most three lines, in characters of the built-in font, without formulas."""
    text = "".join(char if " " <= char < "\u0250" or char == "…" else "?" for char in text)
    return textwrap.fill(text, 28, max_lines=3, placeholder=" …").replace("$", r"\$")


def _size(row: Row) -> str:
    return str(row.runs[0].settings.get("batch.size", "unknown"))
