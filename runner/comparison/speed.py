"""Speed and cost, a row per configuration: repeats become a median and the range they span. Knows no texts."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from runner.comparison.load import Run
from runner.comparison.pairing import configuration

THROUGHPUT, LATENCY = "output_tokens_per_s", "latency_p50_s"
_LONGEST_LABEL = 18
COST_PROMPTS, COST_TOKENS = "cost_per_1000_prompts_usd", "cost_per_million_output_tokens_usd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """What `count` repeats measured: the median, the least and the most. A run alone has all three alike."""

    median: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One configuration and its runs.

    Attributes:
        figures: by metric name; a metric that no run has is absent.
        reference: the label of the run that `speedup` is against; None for the reference itself.
        speedup: in output tokens per second; its range is that of all quotients of a run's and a reference's rate.
        in_noise: whether the ranges overlap, so that the difference may be none; None where neither side has repeats.
        on_front: finished, and no other finished row answers both sooner and more per second.
    """

    runs: tuple[Run, ...]
    figures: Mapping[str, Spread]
    reference: str | None
    speedup: Spread | None
    in_noise: bool | None
    on_front: bool

    @property
    def label(self) -> str:
        """The labels of its runs; of many, the first and how many more."""
        labels = ",".join(run.label for run in self.runs)
        return labels if len(labels) <= _LONGEST_LABEL else f"{self.runs[0].label} +{len(self.runs) - 1}"

    @property
    def is_finished(self) -> bool:
        """Whether all of its runs are: figures of others are shown, and win nothing."""
        return all(run.is_finished for run in self.runs)

    @property
    def status(self) -> str:
        """How its runs ended: one word if all the same."""
        found = list(dict.fromkeys(run.status for run in self.runs))
        return found[0] if len(found) == 1 else f"{sum(run.status == 'ok' for run in self.runs)} of {len(self.runs)} ok"


def figures_of(run: Run) -> dict[str, float]:
    """Return a run's metrics and what its cost comes to; a figure that it does not have is absent."""
    figures = dict(run.metrics)
    cost, prompts, tokens = (figures.get(name) for name in ("cost_usd", "completed_prompts", "output_tokens"))
    if cost is not None and prompts:
        figures[COST_PROMPTS] = cost / prompts * 1000
    if cost is not None and tokens:
        figures[COST_TOKENS] = cost / tokens * 1_000_000
    return figures


def rows(runs: Sequence[Run], references: Mapping[str, Run]) -> tuple[Row, ...]:
    """Put repeats together, and set every row against its reference's."""
    groups: dict[Hashable, list[Run]] = {}
    for run in runs:
        groups.setdefault(configuration(run), []).append(run)
    members = [tuple(group) for group in groups.values()]
    figures = [_spreads(group) for group in members]
    front = _front({at: own for at, own in enumerate(figures) if all(run.is_finished for run in members[at])})
    return tuple(
        _row(group, own, _against(group, references, members), at in front)
        for at, (group, own) in enumerate(zip(members, figures, strict=True))
    )


def _row(group: tuple[Run, ...], own: Mapping[str, Spread], against: tuple[Run, ...], on_front: bool) -> Row:
    speedup = _quotient(own.get(THROUGHPUT), _spreads(against).get(THROUGHPUT))
    return Row(
        runs=group,
        figures=own,
        reference=against[0].label if against else None,
        speedup=speedup,
        in_noise=_holds_1(speedup),
        on_front=on_front,
    )


def in_noise(first: Row, second: Row) -> bool:
    """Return whether the throughputs of two rows are alike within their repeats; False where neither has any."""
    return bool(_holds_1(_quotient(first.figures.get(THROUGHPUT), second.figures.get(THROUGHPUT))))


def _holds_1(quotient: Spread | None) -> bool | None:
    return quotient.low <= 1 <= quotient.high if quotient and quotient.count > 1 else None


def speedups(found: Iterable[Row]) -> dict[str, float]:
    """Return every run's own speed-up, by its label: its rate over the median of its reference's repeats."""
    table = list(found)
    rates = {run.label: row.figures.get(THROUGHPUT) for row in table for run in row.runs}
    speedup: dict[str, float] = {}
    for row in table:
        base = rates.get(row.reference) if row.reference else None
        for run in row.runs:
            rate = run.metrics.get(THROUGHPUT)
            if base and base.median and rate is not None:
                speedup[run.label] = rate / base.median
    return speedup


def best(found: Sequence[Row], name: str, *, of: Callable[[Iterable[float]], float]) -> frozenset[int]:
    """Return the places of the finished rows with the best median; none where there is nothing to be better than."""
    medians = {at: row.figures[name].median for at, row in enumerate(found) if name in row.figures and row.is_finished}
    if len(medians) < 2 or len(set(medians.values())) == 1:
        return frozenset()
    top = of(medians.values())
    return frozenset(at for at, value in medians.items() if value == top)


def _against(
    group: tuple[Run, ...], references: Mapping[str, Run], members: Sequence[tuple[Run, ...]]
) -> tuple[Run, ...]:
    """Return the repeats of a row's reference, that one first; none if the row is the reference's own."""
    reference = next((references[run.label] for run in group if run.label in references), None)
    if reference is None or reference in group:
        return ()
    repeats = next(others for others in members if reference in others)
    return (reference, *(run for run in repeats if run is not reference))


def _spreads(group: Sequence[Run]) -> dict[str, Spread]:
    measured = [figures_of(run) for run in group]
    names = dict.fromkeys(name for figures in measured for name in figures)
    return {name: spread([figures[name] for figures in measured if name in figures]) for name in names}


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the range of at least one value."""
    return Spread(median=median(values), low=min(values), high=max(values), count=len(values))


def _quotient(own: Spread | None, base: Spread | None) -> Spread | None:
    if own is None or base is None or not base.low:
        return None
    return Spread(
        median=own.median / base.median,
        low=own.low / base.high,
        high=own.high / base.low,
        count=max(own.count, base.count),
    )


def _front(figures: Mapping[int, Mapping[str, Spread]]) -> frozenset[int]:
    """Return the places of the Pareto front: low latency, high throughput."""
    points = {
        at: (own[LATENCY].median, own[THROUGHPUT].median)
        for at, own in figures.items()
        if LATENCY in own and THROUGHPUT in own
    }
    return frozenset(
        at
        for at, (latency, rate) in points.items()
        if not any(
            other <= latency and more >= rate and (other, more) != (latency, rate) for other, more in points.values()
        )
    )
