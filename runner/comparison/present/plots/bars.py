"""Pictures of stacked bars, one per configuration: where the time went, and where the work went."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from runner.batching.modes import MODES
from runner.comparison.compare import Comparison
from runner.comparison.load import Run
from runner.comparison.present.plots import axes as shared
from runner.comparison.present.plots.plot import INK, WIDTH
from runner.comparison.present.settings import series
from runner.comparison.speed import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PREFILL, _DECODE, _IDLE, _OTHER = ("#2f7fc1", ""), ("#7fb2e5", "//"), ("#e0a800", "xx"), ("none", "..")
"""Colour and hatch."""
_Fills = Mapping[str, tuple[str, str]]
_SLOTS: _Fills = {"prompt tokens": _PREFILL, "output tokens": _DECODE, "padding": _OTHER, "tail wait": _IDLE}
_JOB: _Fills = {"prefill": _PREFILL, "decoding": _DECODE, "tail wait": _IDLE, "between calls": _OTHER}
_REQUEST: _Fills = {"queued (median)": _OTHER, "to the first token": _PREFILL, "decoding": _DECODE}

_UNDRAWN = (("loading", "load_s"), ("warm-up", "warmup_s"))
"""Seconds that are not part of a job's duration, and would hide it: in the caption."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bar:
    """A row with the mean of its runs' parts, and their totals."""

    row: Row
    parts: Sequence[float]
    totals: Sequence[float]


def draw_work(figure: "Figure", comparison: Comparison) -> str:
    """Draw the shares of all token slots that were computed in padded batches."""
    bars = _bars(comparison, _slot_shares)
    shared.require(bars, "no run padded batches in this process: services do not show their padding")
    axes = _panels(figure, [len(bars)])[0]
    _stack(axes, comparison, bars, _SLOTS)
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of all computed token slots (%): prompt and decode")
    figure.suptitle("Where the work went")
    return "Means of repeats." if any(len(bar.totals) > 1 for bar in bars) else ""


def draw_time(figure: "Figure", comparison: Comparison) -> str:
    """Draw the seconds of a job whose calls follow one another, and the mean seconds of a request elsewhere."""
    jobs, requests = _bars(comparison, _job_seconds), _bars(comparison, _request_seconds)
    shared.require([*jobs, *requests], "no run has the times of first tokens")
    groups = [(bars, parts, label) for bars, parts, label in (
        (jobs, _JOB, "seconds of the job"), (requests, _REQUEST, "mean seconds of a completed request")
    ) if bars]  # fmt: skip
    for axes, (bars, parts, label) in zip(_panels(figure, [len(bars) for bars, *_ in groups]), groups, strict=True):
        _stack(axes, comparison, bars, parts)
        axes.set_xlabel(label)
        axes.margins(x=0.15)
    figure.suptitle("Where the time went")
    return _time_caption(comparison, [*jobs, *requests])


def _time_caption(comparison: Comparison, bars: Sequence[_Bar]) -> str:
    shown = {bar.row.label for bar in bars}
    left_out = [row.label for row in comparison.rows if row.label not in shown]
    runs = [run for bar in bars for run in bar.row.runs]
    before = [f"{name} {seconds} s" for name, key in _UNDRAWN if (seconds := _range(runs, key))]
    repeats = [len(bar.totals) for bar in bars if len(bar.totals) > 1]
    return " ".join([
        *([f"Means of {min(repeats)} repeats; error bars are the range of the whole."] if repeats else []),
        *([f"Not in the bars: {', '.join(before)}."] if before else []),
        *([f"Without first-token times, so not drawn: run {', '.join(left_out)}."] if left_out else []),
    ])  # fmt: skip


def _range(runs: Sequence[Run], name: str) -> str:
    """Return the lowest and the highest of a metric's seconds; nothing where all are under 0.05 s."""
    values = [run.metrics[name] for run in runs if name in run.metrics]
    if max(values, default=0.0) < 0.05:
        return ""
    return "-".join(dict.fromkeys(f"{end:,.1f}" for end in (min(values), max(values))))


def _bars(comparison: Comparison, parts_of: Callable[[Run], Sequence[float] | None]) -> list[_Bar]:
    """Return a bar for each row of which a run has the parts."""
    bars = []
    for row in comparison.rows:
        if parts := [values for run in row.runs if (values := parts_of(run))]:
            means = [fmean(values) for values in zip(*parts, strict=True)]
            bars.append(_Bar(row=row, parts=means, totals=[sum(values) for values in parts]))
    return bars


def _panels(figure: "Figure", counts: Sequence[int]) -> "list[Axes]":
    """Return panels below one another, as high as their bars need."""
    figure.set_size_inches(WIDTH, sum(max(2.0, 1.3 + 0.36 * count) for count in counts) + 0.3)
    return list(figure.subplots(len(counts), 1, squeeze=False, height_ratios=[2 + count for count in counts]).flat)


def _stack(axes: "Axes", comparison: Comparison, bars: Sequence[_Bar], fills: _Fills) -> None:
    """Draw horizontal bars of parts; an error bar is the range of the totals of repeats."""
    ends = [0.0] * len(bars)
    for part, (label, (colour, hatch)) in enumerate(fills.items()):
        widths = [bar.parts[part] for bar in bars]
        if not any(widths):
            continue
        axes.barh(range(len(bars)), widths, left=ends, label=label, color=colour, hatch=hatch, edgecolor=INK,
                  linewidth=0.6)  # fmt: skip
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    ranges = [[max(0.0, end - min(bar.totals)) for end, bar in zip(ends, bars, strict=True)],
              [max(0.0, max(bar.totals) - end) for end, bar in zip(ends, bars, strict=True)]]  # fmt: skip
    if max(map(max, ranges)) > 1e-9 * max(ends):
        axes.errorbar(ends, range(len(bars)), xerr=ranges, fmt="none", ecolor=INK)
    axes.set_yticks(range(len(bars)), _names(comparison, bars))
    axes.invert_yaxis()
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(fills), handlelength=1.2, columnspacing=1.0,
                fontsize="small")  # fmt: skip


def _names(comparison: Comparison, bars: Sequence[_Bar]) -> list[str]:
    names: Mapping[str, str] = series(comparison.runs)
    return [f"{shared.drawable(names[bar.row.runs[0].label])}, {shared.size(bar.row)}" for bar in bars]


def _slot_shares(run: Run) -> Sequence[float] | None:
    """Return prompt tokens, output tokens, padding and tail wait, each in percent of all computed token slots."""
    names = ("input_tokens", "output_tokens", "prompt_padding_ratio", "tail_wait_ratio")
    if any(name not in run.metrics for name in names):
        return None
    inputs, outputs, padding, tail = (run.metrics[name] for name in names)
    inputs *= run.settings.get("generation.n") or 1  # a prompt is computed once per choice
    parts = [inputs, outputs, inputs * _per_useful(padding), outputs * _per_useful(tail)]
    return [100 * part / sum(parts) for part in parts] if sum(parts) else None


def _per_useful(ratio: float) -> float:
    """Return idle slots per useful slot, given the share of idle slots among all."""
    return ratio / (1 - ratio) if ratio < 1 else 0.0


def _job_seconds(run: Run) -> Sequence[float] | None:
    """Return the seconds of a run whose calls follow one another; the tail wait is a share of the decode slots."""
    if not _follows_calls(run) or any(name not in run.metrics for name in ("duration_s", "prefill_s", "decode_s")):
        return None
    duration, prefill, decode = (run.metrics[name] for name in ("duration_s", "prefill_s", "decode_s"))
    tail = decode * run.metrics.get("tail_wait_ratio", 0.0)
    return [prefill, decode - tail, tail, max(0.0, duration - prefill - decode)]


def _request_seconds(run: Run) -> Sequence[float] | None:
    """Return the seconds that a completed request was queued (median), waited for its first token, and decoded."""
    names = ("latency_samples", "prefill_s", "decode_s")
    if _follows_calls(run) or any(not run.metrics.get(name) for name in names):
        return None
    calls, prefill, decode = (run.metrics[name] for name in names)
    return [run.metrics.get("queued_p50_s", 0.0), prefill / calls, decode / calls]


def _follows_calls(run: Run) -> bool:
    """Return whether the calls of a run follow one another, so that their seconds add up to the run's."""
    mode = next((mode for name, mode in MODES.items() if name == run.settings.get("batch.mode")), None)
    return mode is not None and mode.batch_is_call
