"""Speed and cost, a row per configuration: the median and the range of its repeats. Reads no texts."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from runner.comparison.load import Run
from runner.comparison.pairing import configuration

THROUGHPUT, LATENCY = "output_tokens_per_s", "latency_p50_s"
COST_PROMPTS, COST_TOKENS = "cost_per_1000_prompts_usd", "cost_per_million_output_tokens_usd"
_MAX_LABEL = 18
"""Characters of the labels of several runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Median, minimum and maximum of `count` repeats. A single run has the same value three times."""

    median: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One configuration and its runs.

    Attributes:
        figures: by metric name; a metric that no run has is absent.
        reference: label of the run that `speedup` compares with; None for the row of the reference.
        speedup: in output tokens per second; the range is that of all quotients of a run's and a reference's rate.
        in_noise: whether the range of `speedup` includes 1; None where neither row has repeats.
        on_front: finished, and no other finished row has both a lower latency and a higher throughput.
    """

    runs: tuple[Run, ...]
    figures: Mapping[str, Spread]
    reference: str | None
    speedup: Spread | None
    in_noise: bool | None
    on_front: bool

    @property
    def label(self) -> str:
        """The labels of the runs; if several are too long together, the first label and the number of the others."""
        first, *others = (run.label for run in self.runs)
        labels = ",".join((first, *others))
        return f"{first} +{len(others)}" if others and len(labels) > _MAX_LABEL else labels

    @property
    def is_finished(self) -> bool:
        """Whether all runs finished. Figures of a row that did not finish are shown, and are never the best."""
        return all(run.is_finished for run in self.runs)

    @property
    def status(self) -> str:
        """How the runs ended: the status that all have, or how many are ok."""
        statuses = {run.status for run in self.runs}
        if len(statuses) == 1:
            return statuses.pop()
        return f"{sum(run.status == 'ok' for run in self.runs)} of {len(self.runs)} ok"


def _figures(run: Run) -> dict[str, float]:
    """Return a run's metrics and its relative costs; a figure without data is absent."""
    figures = dict(run.metrics)
    cost, prompts, tokens = (figures.get(name) for name in ("cost_usd", "completed_prompts", "output_tokens"))
    if cost is not None and prompts:
        figures[COST_PROMPTS] = cost / prompts * 1000
    if cost is not None and tokens:
        figures[COST_TOKENS] = cost / tokens * 1_000_000
    return figures


def rows(runs: Sequence[Run], references: Mapping[str, Run]) -> tuple[Row, ...]:
    """Return a row per configuration, with its speed-up against the row of its reference."""
    groups: dict[Hashable, list[Run]] = {}
    for run in runs:
        groups.setdefault(configuration(run), []).append(run)
    members = [tuple(group) for group in groups.values()]
    figures = [_spreads(group) for group in members]
    finished = {index: row for index, row in enumerate(figures) if all(run.is_finished for run in members[index])}
    front = _pareto_front(finished)
    return tuple(
        _row(group, figures[index], _reference_runs(group, references, members), on_front=index in front)
        for index, group in enumerate(members)
    )


def _row(
    group: tuple[Run, ...], figures: Mapping[str, Spread], reference_runs: tuple[Run, ...], *, on_front: bool
) -> Row:
    speedup = _quotient(figures.get(THROUGHPUT), _spreads(reference_runs).get(THROUGHPUT))
    return Row(
        runs=group,
        figures=figures,
        reference=reference_runs[0].label if reference_runs else None,
        speedup=speedup,
        in_noise=_includes_1(speedup),
        on_front=on_front,
    )


def in_noise(first: Row, second: Row) -> bool:
    """Return whether the throughputs of two rows are equal within the range of repeats; False without repeats."""
    return bool(_includes_1(_quotient(first.figures.get(THROUGHPUT), second.figures.get(THROUGHPUT))))


def _includes_1(quotient: Spread | None) -> bool | None:
    return quotient.low <= 1 <= quotient.high if quotient and quotient.count > 1 else None


def speedups(rows: Sequence[Row]) -> dict[str, float]:
    """Return every run's speed-up by its label: its rate over the median rate of its reference's repeats."""
    rates = {run.label: row.figures.get(THROUGHPUT) for row in rows for run in row.runs}
    speedup: dict[str, float] = {}
    for row in rows:
        base = rates.get(row.reference) if row.reference else None
        for run in row.runs:
            rate = run.metrics.get(THROUGHPUT)
            if base and base.median and rate is not None:
                speedup[run.label] = rate / base.median
    return speedup


def best(rows: Sequence[Row], name: str, *, of: Callable[[Iterable[float]], float]) -> frozenset[int]:
    """Return the indexes of the finished rows with the best median; none where fewer than two medians differ."""
    medians = {
        index: row.figures[name].median for index, row in enumerate(rows) if name in row.figures and row.is_finished
    }
    if len(set(medians.values())) < 2:
        return frozenset()
    best_median = of(medians.values())
    return frozenset(index for index, value in medians.items() if value == best_median)


def _reference_runs(
    group: tuple[Run, ...], references: Mapping[str, Run], members: Sequence[tuple[Run, ...]]
) -> tuple[Run, ...]:
    """Return a row's reference, then the reference's repeats; none if the reference is in the row."""
    reference = next((references[run.label] for run in group if run.label in references), None)
    if reference is None or reference in group:
        return ()
    repeats = next(others for others in members if reference in others)
    return (reference, *(run for run in repeats if run is not reference))


def _spreads(group: Sequence[Run]) -> dict[str, Spread]:
    measured = [_figures(run) for run in group]
    names = dict.fromkeys(name for figures in measured for name in figures)
    return {name: spread([figures[name] for figures in measured if name in figures]) for name in names}


def spread(values: Sequence[float]) -> Spread:
    """Return median, minimum and maximum of at least one value."""
    return Spread(median=median(values), low=min(values), high=max(values), count=len(values))


def _quotient(run: Spread | None, reference: Spread | None) -> Spread | None:
    if run is None or reference is None or not reference.low:
        return None
    return Spread(
        median=run.median / reference.median,
        low=run.low / reference.high,
        high=run.high / reference.low,
        count=max(run.count, reference.count),
    )


def _pareto_front(figures: Mapping[int, Mapping[str, Spread]]) -> frozenset[int]:
    """Return the indexes on the Pareto front of low latency and high throughput."""
    points = {
        index: (row[LATENCY].median, row[THROUGHPUT].median)
        for index, row in figures.items()
        if LATENCY in row and THROUGHPUT in row
    }
    return frozenset(
        index
        for index, (latency, rate) in points.items()
        if not any(
            other_latency <= latency and other_rate >= rate and (other_latency, other_rate) != (latency, rate)
            for other_latency, other_rate in points.values()
        )
    )
