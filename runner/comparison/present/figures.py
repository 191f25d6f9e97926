"""The figures that a comparison shows: a figure with its interval, the columns of the speed tables, and their texts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import floor, log10
from pathlib import Path
from typing import Literal

from runner import text
from runner.comparison import speed
from runner.comparison.present.settings import MISSING
from runner.comparison.speed import Row

Added = Mapping[Path, Mapping[str, float]]
"""`Comparison.metrics`: what the comparison adds to the metrics of each run."""

Group = Literal["speed", "latency", "first_token", "work"]

_BEST = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A figure of a row.

    Attributes:
        value: the median of the row's runs.
        low, high: the ends of `interval`; None where there is none, and for an end that so few samples do not give.
        interval: the 95 % interval of a run (of several runs, from the lowest to the highest end), the range of several
            runs, or None.
        runs: how many runs have the figure.
    """

    value: float
    low: float | None
    high: float | None
    interval: Literal["95 % interval", "range"] | None
    runs: int


def measured(row: Row, name: str, added: Added) -> Measured | None:
    """Return a row's figure with its interval; None where no run has it."""
    metrics = [{**run.metrics, **added.get(run.folder.path, {})} for run in row.runs]
    runs = [values for values in metrics if name in values]
    spread = row.figures.get(name) or (speed.spread([values[name] for values in runs]) if runs else None)
    if spread is None:
        return None
    low, high = _outermost(min, runs, f"{name}_low"), _outermost(max, runs, f"{name}_high")
    interval: Literal["95 % interval", "range"] | None = "95 % interval"
    if low is None and high is None:
        interval = None
        if spread.count > 1:
            low, high, interval = spread.low, spread.high, "range"
    return Measured(value=spread.median, low=low, high=high, interval=interval, runs=spread.count)


def _outermost(of: Callable[[Iterable[float]], float], runs: Sequence[Mapping[str, float]], name: str) -> float | None:
    """Return the outermost end of the runs' intervals; None where a run lacks it."""
    ends = [values[name] for values in runs if name in values]
    return of(ends) if ends and len(ends) == len(runs) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricColumn:
    """A column of the speed table.

    Attributes:
        head: of the column.
        name: of the metric.
        best: picks the best of several values.
        kind: what the values are, for their format.
        group: the table of the page that has the column.
        has_range: whether a table of limited width shows the interval beside the value; the page always does.
    """

    head: str
    name: str
    best: Callable[[Iterable[float]], float]
    kind: Literal["rate", "seconds", "ratio", "usd"]
    group: Group
    has_range: bool = False

    def cells(self, rows: Sequence[Row], added: Added, *, with_interval: bool = False) -> list[str]:
        """Return a text per row, with `*` behind the best."""
        figures = [measured(row, self.name, added) for row in rows]
        number = self._format([figure.value for figure in figures if figure])
        best = speed.best(rows, self.name, of=self.best, figures=self._tested(rows))
        if self.kind == "usd":  # the cheapest by a lower bound may have cost more
            best = frozenset(index for index in best if "cost_at_most_usd" not in rows[index].figures)
        marks = [(_BEST if index in best else " ") if best else "" for index in range(len(rows))]
        has_interval = self.has_range or (with_interval and self._is_measured(rows))
        texts = [_text(figure, number, has_interval=has_interval) for figure in figures]
        return [text + mark for text, mark in zip(texts, marks, strict=True)]

    def _is_measured(self, rows: Sequence[Row]) -> bool:
        """Whether the figure varies by itself: times do, and the cost of hardware by the hour."""
        by_hour = any(run.settings.get("model.price.usd_per_hour") for row in rows for run in row.runs)
        return self.kind in ("rate", "seconds") or (self.kind == "usd" and by_hour)

    def _tested(self, rows: Sequence[Row]) -> int:
        """Return how many figures are tested together; prompts/s, which ranks the rows, is tested alone."""
        if self.name == speed.RATE or not self._is_measured(rows):
            return int(self.name == speed.RATE)
        others = [column for column in METRIC_COLUMNS if column.name != speed.RATE and column._is_measured(rows)]
        return sum(any(column.name in row.figures for row in rows) for column in others)

    def _format(self, values: Sequence[float]) -> str:
        """Return one format for a column, so that decimal points are aligned; small values keep two digits."""
        if self.kind == "ratio":
            return "{:.0%}"
        smallest = min((value for value in values if value > 0), default=1.0)
        min_decimals = {"rate": 0 if smallest >= 1000 else 1}.get(self.kind, 2)
        return f"{{:,.{min(6, max(min_decimals, 1 - floor(log10(smallest))))}f}}"


def _text(figure: Measured | None, number: str, *, has_interval: bool) -> str:
    if figure is None:
        return MISSING
    value, low, high = (None if end is None else number.format(end) for end in (figure.value, figure.low, figure.high))
    if not has_interval or (low is None and high is None):
        return f"{value}"
    ends = f"from {low}" if high is None else f"to {high}" if low is None else f"{low}-{high}"
    return f"{value} ({ends})"


METRIC_COLUMNS = (
    MetricColumn(head="prompts/s", name=speed.RATE, kind="rate", best=max, group="speed", has_range=True),
    MetricColumn(head="tokens/s", name=speed.THROUGHPUT, kind="rate", best=max, group="speed"),
    MetricColumn(head="p50 s", name=speed.LATENCY, kind="seconds", best=min, group="latency"),
    MetricColumn(head="padding", name="prompt_padding_ratio", kind="ratio", best=min, group="work"),
    MetricColumn(head="tail", name="tail_wait_ratio", kind="ratio", best=min, group="work"),
    MetricColumn(head="TTFT s", name="time_to_first_token_p50_s", kind="seconds", best=min, group="first_token"),
    MetricColumn(head="$/1k", name=speed.COST_PROMPTS, kind="usd", best=min, group="work"),
    MetricColumn(head="p95 s", name="latency_p95_s", kind="seconds", best=min, group="latency"),
    MetricColumn(head="$/M out", name=speed.COST_TOKENS, kind="usd", best=min, group="work"),
    MetricColumn(head="p99 s", name="latency_p99_s", kind="seconds", best=min, group="latency"),
    MetricColumn(head="TTFT p95", name="time_to_first_token_p95_s", kind="seconds", best=min, group="first_token"),
    MetricColumn(head="p90 s", name="latency_p90_s", kind="seconds", best=min, group="latency"),
    MetricColumn(head="total s", name="duration_s", kind="seconds", best=min, group="speed"),
)
"""The most important first: a narrow table leaves out the last."""
GROUPS: Mapping[Group, str] = {
    "speed": "Speed",
    "latency": "Latency of completed calls",
    "first_token": "Time to first token of completed calls",
    "work": "Padding, tail wait and cost",
}
"""The tables of the page, with their titles."""


def speedup(row: Row) -> str:
    """Return a row's speed-up with its interval; `~` is a difference that is not beyond noise."""
    if row.speedup is None:
        return "reference" if row.reference is None and speed.RATE in row.figures else MISSING
    interval = row.speedup.estimate
    ends = f" ({interval.low:.2f}-{interval.high:.2f})" if interval else ""
    return f"{'~' if row.speedup.in_noise else ''}{row.speedup.ratio:.2f}x{ends}"


def failed_share(row: Row) -> str:
    """Return the share of a row's prompts that failed, with its denominator; of repeats the sum."""
    counted = [run.metrics for run in row.runs if "failed_prompts" in run.metrics]
    failed = round(sum(metrics["failed_prompts"] for metrics in counted))
    prompts = failed + round(sum(metrics.get("completed_prompts", 0.0) for metrics in counted))
    if not prompts:
        return MISSING
    return f"{percentage(failed / prompts)} of {prompts:,}" if failed else "0%"


def percentage(ratio: float | None) -> str:
    """Return a percentage; 100 % and 0 % are exact, never rounded."""
    return MISSING if ratio is None else text.percentage(ratio)
