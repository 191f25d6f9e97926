"""Speed and cost, a row per configuration, and which difference of speed is more than noise. Reads no texts."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, log
from statistics import fmean, median

from runner.comparison.inference import RatioEstimate, holm, paired_ratio, unpaired_ratio
from runner.comparison.load import Run
from runner.comparison.pairing import configuration, request_of

RATE, THROUGHPUT, LATENCY = "prompts_per_s", "output_tokens_per_s", "latency_p50_s"
"""One prompt set is one job: prompts per second rank it. Tokens per second are shown."""
COST_PROMPTS, COST_TOKENS = "cost_per_1000_prompts_usd", "cost_per_million_output_tokens_usd"
MIN_BLOCKS = 3
"""Repeats from which a difference has an interval; with fewer, nothing is called faster."""
SIGNIFICANCE = 0.05
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
class Speedup:
    """The ratio of two configurations' prompts per second.

    Attributes:
        ratio: of the geometric means, over the blocks that both have.
        estimate: the interval and the p-value, from MIN_BLOCKS repeats on; None also where repeats do not vary.
        corrected_p: the p-value, corrected for the number of rows (Holm).
        output_tokens_ratio: the ratio of output tokens per second; it differs where answers differ in length.
    """

    ratio: float
    estimate: RatioEstimate | None
    corrected_p: float | None
    output_tokens_ratio: float | None

    @property
    def in_noise(self) -> bool | None:
        """Whether the difference may be noise; None where that is not known."""
        return None if self.corrected_p is None else self.corrected_p >= SIGNIFICANCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One configuration and its runs.

    Attributes:
        figures: by metric name; a metric that no run has is absent.
        reference: the label of the run that `speedup` is against; None for the row of the reference.
        speedup: absent where the two had different requests, or did not complete all prompts.
        on_front: complete, and no other complete row with the same request has a lower latency and a higher throughput.
    """

    runs: tuple[Run, ...]
    figures: Mapping[str, Spread]
    reference: str | None
    speedup: Speedup | None
    on_front: bool

    @property
    def label(self) -> str:
        """The labels of the runs; if several are too long together, the first label and the number of the others."""
        first, *others = (run.label for run in self.runs)
        labels = ",".join((first, *others))
        return f"{first} +{len(others)}" if others and len(labels) > _MAX_LABEL else labels

    @property
    def is_complete(self) -> bool:
        """Whether all runs finished and completed every prompt: other rows are shown, and win nothing."""
        return all(run.is_complete for run in self.runs)

    @property
    def request(self) -> Hashable:
        """What rows must share to be compared in speed: model, generation parameters, prompts."""
        requests = {request_of(run) for run in self.runs}
        return requests.pop() if len(requests) == 1 else self.runs

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
    plain = [_row(group, _reference_runs(group, references, members)) for group in members]
    front = _pareto_front(plain)
    corrected = _corrected([row.speedup for row in plain])
    return tuple(
        replace(row, speedup=speedup, on_front=index in front)
        for index, (row, speedup) in enumerate(zip(plain, corrected, strict=True))
    )


def _row(group: tuple[Run, ...], reference_runs: tuple[Run, ...]) -> Row:
    return Row(
        runs=group,
        figures=_spreads(group),
        reference=reference_runs[0].label if reference_runs else None,
        speedup=_speedup(group, reference_runs) if reference_runs else None,
        on_front=False,
    )


def _speedup(runs: Sequence[Run], reference_runs: Sequence[Run]) -> Speedup | None:
    both = [*runs, *reference_runs]
    if len({request_of(run) for run in both}) > 1 or not all(run.is_complete for run in both):
        return None
    if len(_values(both, RATE)) < len(both):
        return None
    return Speedup(
        ratio=_ratio(runs, reference_runs, RATE),
        estimate=estimate(runs, reference_runs, RATE),
        corrected_p=None,
        output_tokens_ratio=_ratio(runs, reference_runs, THROUGHPUT)
        if len(_values(both, THROUGHPUT)) == len(both)
        else None,
    )


def _corrected(speedups: Sequence[Speedup | None]) -> list[Speedup | None]:
    """Return the speed-ups with p-values that hold for all of them together."""
    tested = [index for index, speedup in enumerate(speedups) if speedup and speedup.estimate]
    p_values = holm([speedup.estimate.p_value for speedup in speedups if speedup and speedup.estimate])
    corrected = dict(zip(tested, p_values, strict=True))
    return [
        replace(speedup, corrected_p=corrected[index]) if speedup and index in corrected else speedup
        for index, speedup in enumerate(speedups)
    ]


def estimate(runs: Sequence[Run], others: Sequence[Run], name: str) -> RatioEstimate | None:
    """Return the ratio of a figure in two configurations with its interval.

    Runs of one sweep with the same `repeat` and seed are a block: what else the machine did hit both. Others are not
    paired. None for fewer than MIN_BLOCKS repeats, and where repeats do not vary.
    """
    are_paired, rates, other_rates = _samples(runs, others, name)
    if min(len(rates), len(other_rates)) < MIN_BLOCKS:
        return None
    return paired_ratio(rates, other_rates) if are_paired else unpaired_ratio(rates, other_rates)


def _samples(runs: Sequence[Run], others: Sequence[Run], name: str) -> tuple[bool, list[float], list[float]]:
    """Return whether a figure of two configurations is paired by block, and its values: of common blocks, else all."""
    blocks, other_blocks = _blocks(runs, name), _blocks(others, name)
    common = [key for key in blocks if key in other_blocks]
    values, other_values = _values(runs, name), _values(others, name)
    if len(common) >= MIN_BLOCKS or (common and min(len(values), len(other_values)) < MIN_BLOCKS):
        return True, [blocks[key] for key in common], [other_blocks[key] for key in common]
    return False, values, other_values


def _blocks(runs: Sequence[Run], name: str) -> dict[Hashable, float]:
    """Return a figure by sweep, repeat and seed; nothing where a block has several runs of the configuration."""
    keys = [(run.folder.path.parent, run.settings.get("repeat"), run.settings.get("seed")) for run in runs]
    if len(set(keys)) < len(keys):
        return {}
    return {key: value for key, run in zip(keys, runs, strict=True) if (value := _figures(run).get(name, 0.0)) > 0}


def _values(runs: Sequence[Run], name: str) -> list[float]:
    return [value for run in runs if (value := _figures(run).get(name, 0.0)) > 0]


def _ratio(runs: Sequence[Run], others: Sequence[Run], name: str) -> float:
    """Return the ratio of a figure's geometric means."""
    _, values, other_values = _samples(runs, others, name)
    return exp(fmean(map(log, values)) - fmean(map(log, other_values)))


def speedups(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Return the metrics that a comparison adds to each run, by its label: its speed-up, with the interval if known."""
    added: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.speedup:
            metrics = {"speedup": row.speedup.ratio}
            if row.speedup.output_tokens_ratio is not None:
                metrics["output_tokens_speedup"] = row.speedup.output_tokens_ratio
            if interval := row.speedup.estimate:
                metrics |= {"speedup_low": interval.low, "speedup_high": interval.high}
            added |= {run.label: metrics for run in row.runs}
    return added


def told_apart(
    best: Row,
    others: Sequence[Row],
    name: str,
    *,
    of: Callable[[Iterable[float]], float] = max,
    figures: int = 1,
) -> list[bool]:
    """Return for each other row whether `best` is better beyond noise.

    The level holds for all other rows together (Holm), and for so many figures (Bonferroni). The row
    with the better median may still be the worse one in the blocks that both have.
    """
    estimates = [estimate(best.runs, other.runs, name) for other in others]
    p_values = iter(holm([found.p_value for found in estimates if found]))
    return [
        found is not None and figures * next(p_values) < SIGNIFICANCE and of((found.ratio, 1.0)) == found.ratio
        for found in estimates
    ]


def best(rows: Sequence[Row], name: str, *, of: Callable[[Iterable[float]], float], figures: int) -> frozenset[int]:
    """Return the indexes of the best of their column, among complete rows with one request.

    Args:
        rows: of a comparison.
        name: of the figure.
        of: max or min.
        figures: how many figures are tested together, for the best must be beyond noise; 0 for a figure that does not
            vary by itself, of which the best median is enough.
    """
    groups: dict[Hashable, list[int]] = {}
    for index, row in enumerate(rows):
        if row.is_complete and name in row.figures:
            groups.setdefault(row.request, []).append(index)
    return frozenset(index for group in groups.values() for index in _best_of(rows, group, name, of, figures))


def _best_of(
    rows: Sequence[Row], group: Sequence[int], name: str, of: Callable[[Iterable[float]], float], figures: int
) -> list[int]:
    medians = {index: rows[index].figures[name].median for index in group}
    if len(set(medians.values())) < 2:
        return []
    top = [index for index, value in medians.items() if value == of(medians.values())]
    others = [rows[index] for index in group if index != top[0]]
    if figures and not all(told_apart(rows[top[0]], others, name, of=of, figures=figures)):
        return []
    return top


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


def _pareto_front(rows: Sequence[Row]) -> frozenset[int]:
    """Return the indexes on the Pareto front of low latency and high throughput, within each request."""
    points = {
        index: (row.request, row.figures[LATENCY].median, row.figures[RATE].median)
        for index, row in enumerate(rows)
        if row.is_complete and LATENCY in row.figures and RATE in row.figures
    }
    return frozenset(
        index
        for index, (request, latency, rate) in points.items()
        if not any(
            other_request == request
            and other_latency <= latency
            and other_rate >= rate
            and (other_latency, other_rate) != (latency, rate)
            for other_request, other_latency, other_rate in points.values()
        )
    )
