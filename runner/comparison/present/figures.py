"""The figures that a comparison shows: the columns of the speed table, and how a figure becomes text."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import floor, log10
from typing import Literal

from runner import text
from runner.comparison import speed
from runner.comparison.present.settings import MISSING
from runner.comparison.speed import Row, Spread

_BEST = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricColumn:
    """A column of the speed table.

    Attributes:
        head: of the column.
        name: of the metric.
        best: picks the best of several values.
        kind: what the values are, for their format.
        has_range: whether repeats show their range beside the median.
    """

    head: str
    name: str
    best: Callable[[Iterable[float]], float]
    kind: Literal["rate", "seconds", "ratio", "usd"]
    has_range: bool = False

    def cells(self, rows: Sequence[Row]) -> list[str]:
        """Return a text per row, with `*` behind the best."""
        spreads = [row.figures.get(self.name) for row in rows]
        number = self._format([spread.median for spread in spreads if spread])
        best = speed.best(rows, self.name, of=self.best, figures=self._tested(rows))
        marks = [(_BEST if index in best else " ") if best else "" for index in range(len(rows))]
        return [self._text(spread, number) + mark for spread, mark in zip(spreads, marks, strict=True)]

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

    def _text(self, spread: Spread | None, number: str) -> str:
        if spread is None:
            return MISSING
        if not self.has_range or spread.count < 2:
            return number.format(spread.median)
        return f"{number.format(spread.median)} ({number.format(spread.low)}-{number.format(spread.high)})"


METRIC_COLUMNS = (
    MetricColumn(head="prompts/s", name=speed.RATE, kind="rate", best=max, has_range=True),
    MetricColumn(head="tokens/s", name=speed.THROUGHPUT, kind="rate", best=max),
    MetricColumn(head="p50 s", name=speed.LATENCY, kind="seconds", best=min),
    MetricColumn(head="padding", name="prompt_padding_ratio", kind="ratio", best=min),
    MetricColumn(head="tail", name="tail_wait_ratio", kind="ratio", best=min),
    MetricColumn(head="TTFT s", name="time_to_first_token_p50_s", kind="seconds", best=min),
    MetricColumn(head="$/1k", name=speed.COST_PROMPTS, kind="usd", best=min),
    MetricColumn(head="p95 s", name="latency_p95_s", kind="seconds", best=min),
    MetricColumn(head="$/M out", name=speed.COST_TOKENS, kind="usd", best=min),
    MetricColumn(head="p99 s", name="latency_p99_s", kind="seconds", best=min),
    MetricColumn(head="TTFT p95", name="time_to_first_token_p95_s", kind="seconds", best=min),
    MetricColumn(head="p90 s", name="latency_p90_s", kind="seconds", best=min),
    MetricColumn(head="total s", name="duration_s", kind="seconds", best=min),
)
"""The most important first: a narrow table leaves out the last."""


def speedup(row: Row) -> str:
    """Return a row's speed-up with its interval; `~` is a difference that is not beyond noise."""
    if row.speedup is None:
        return "reference" if row.reference is None and speed.RATE in row.figures else MISSING
    interval = row.speedup.estimate
    ends = f" ({interval.low:.2f}-{interval.high:.2f})" if interval else ""
    return f"{'~' if row.speedup.in_noise else ''}{row.speedup.ratio:.2f}x{ends}"


def percentage(ratio: float | None) -> str:
    """Return a percentage; 100 % and 0 % are exact, never rounded."""
    return MISSING if ratio is None else text.percentage(ratio)
