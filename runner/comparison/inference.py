"""Intervals and tests behind a comparison's conclusions, on scipy. Pure functions of numbers: no runs, no files."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

from scipy import stats

CONFIDENCE = 0.95
_MIN_VARIATION = 1e-9
"""Range of logarithms from which repeats vary; below it they differ by rounding of the last digits only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An interval of a figure; an end that cannot be had from so few samples is None."""

    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioEstimate:
    """A ratio of two rates with its interval.

    Attributes:
        ratio: the geometric mean of the paired ratios, or the ratio of the geometric means.
        low, high: ends of the interval.
        p_value: of the hypothesis that the ratio is 1; two-sided.
        blocks: how many pairs, or the smaller group's size where runs are not paired.
    """

    ratio: float
    low: float
    high: float
    p_value: float
    blocks: int


def share_interval(count: int, total: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Return the Wilson score interval of a share `count / total`.

    Source: Wilson 1927; Newcombe, Statistics in Medicine 17 (1998) 857-872, method 3.
    """
    low, high = stats.binomtest(count, total).proportion_ci(confidence, method="wilson")
    return Interval(low=float(low), high=float(high))


def mcnemar_p_value(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value that two paired shares are equal.

    Args:
        only_first: pairs in which only the first has the property.
        only_second: pairs in which only the second has it.

    Source: McNemar 1947 in its exact (binomial) form; Fay, Biostatistics 11 (2010) 373-374.
    """
    total = only_first + only_second
    return float(stats.binomtest(only_first, total).pvalue) if total else 1.0


def paired_ratio(
    rates: Sequence[float], reference_rates: Sequence[float], *, confidence: float = CONFIDENCE
) -> RatioEstimate | None:
    """Return the ratio of two rates measured in the same blocks: a t interval on the logarithms of the ratios.

    None where the ratios do not vary at all, as of a clock that is too coarse: the t statistic does not exist.

    Args:
        rates: one for each block, above 0.
        reference_rates: the reference's, in the same order.
        confidence: of the interval.

    Raises:
        ValueError: there are fewer than two blocks, or not as many of one as of the other.
    """
    logs = [log(rate / reference) for rate, reference in zip(rates, reference_rates, strict=True)]
    if len(logs) < 2:
        raise ValueError("an interval needs two blocks at least")
    if max(logs) - min(logs) < _MIN_VARIATION:
        return None
    test = stats.ttest_1samp(logs, 0.0)
    low, high = test.confidence_interval(confidence)
    return RatioEstimate(
        ratio=exp(sum(logs) / len(logs)),
        low=exp(low),
        high=exp(high),
        p_value=float(test.pvalue),
        blocks=len(logs),
    )


def unpaired_ratio(
    rates: Sequence[float], reference_rates: Sequence[float], *, confidence: float = CONFIDENCE
) -> RatioEstimate | None:
    """Return the ratio of two rates measured apart: Welch's t interval on their logarithms.

    None where one of the two does not vary: its spread is not known.

    Source: Welch, Biometrika 34 (1947) 28-35.

    Raises:
        ValueError: one of the two has fewer than two values.
    """
    if min(len(rates), len(reference_rates)) < 2:
        raise ValueError("an interval needs two values of each at least")
    logs, reference_logs = [log(rate) for rate in rates], [log(rate) for rate in reference_rates]
    if any(max(group) - min(group) < _MIN_VARIATION for group in (logs, reference_logs)):
        return None
    test = stats.ttest_ind(logs, reference_logs, equal_var=False)
    low, high = test.confidence_interval(confidence)
    difference = sum(logs) / len(logs) - sum(reference_logs) / len(reference_logs)
    return RatioEstimate(
        ratio=exp(difference),
        low=exp(low),
        high=exp(high),
        p_value=float(test.pvalue),
        blocks=min(len(rates), len(reference_rates)),
    )


def percentile_interval(samples: Sequence[float], rank: float, *, confidence: float = CONFIDENCE) -> Interval:
    """Return the order-statistic interval of a percentile; it assumes independent samples and no distribution.

    Args:
        samples: in any order.
        rank: of the percentile, in percent (50 is the median).
        confidence: at least this; each end errs with half of the rest at most.

    Source: Hahn and Meeker, Statistical Intervals (1991), section 5.2.
    """
    ordered, count, quantile = sorted(samples), len(samples), rank / 100
    tail = (1 - confidence) / 2
    below = int(stats.binom.ppf(tail, count, quantile))
    if stats.binom.cdf(below, count, quantile) > tail:
        below -= 1  # now P(at most `below` samples under the percentile) is within the tail
    above = int(stats.binom.isf(tail, count, quantile)) + 1
    return Interval(low=ordered[below] if below >= 0 else None, high=ordered[above - 1] if above <= count else None)


def rate_interval(count: int, exposure: float, *, confidence: float = CONFIDENCE) -> Interval:
    """Return the exact interval of a Poisson rate `count / exposure`.

    Source: Garwood, Biometrika 28 (1936) 437-442.
    """
    tail = (1 - confidence) / 2
    low = stats.chi2.ppf(tail, 2 * count) / 2 if count else 0.0
    return Interval(low=float(low) / exposure, high=float(stats.chi2.isf(tail, 2 * count + 2)) / 2 / exposure)


def survival_quantiles(
    events: Sequence[float], censored: Sequence[float], shares: Sequence[float]
) -> list[float | None]:
    """Return by when each share of the subjects has had its event; None where fewer had, as far as is known.

    Args:
        events: the times of those who had it.
        censored: how long the others were observed without it.
        shares: 0.5 is the median: the smallest time at which at most half are left.

    Source: Kaplan and Meier, JASA 53 (1958) 457-481; Klein and Moeschberger, Survival Analysis (2003), section 4.5.
    """
    if not events:
        return [None] * len(shares)
    left = stats.ecdf(stats.CensoredData(uncensored=events, right=censored)).sf
    steps = list(zip(left.quantiles.tolist(), left.probabilities.tolist(), strict=True))
    return [next((time for time, alive in steps if alive <= 1 - share + 1e-12), None) for share in shares]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in the order given.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for position, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - position) * p_values[index]))
        corrected[index] = largest
    return corrected
