"""Intervals and tests against published values."""

from math import exp

import pytest

from runner.comparison.inference import (
    holm,
    mcnemar_p_value,
    paired_ratio,
    percentile_interval,
    rate_interval,
    share_interval,
    survival_quantiles,
    unpaired_ratio,
)


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_shares_have_the_wilson_intervals_of_newcombe_1998_table_1(count: int, total: int, low: float, high: float):
    interval = share_interval(count, total)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


def test_a_share_of_all_is_not_certain():
    assert share_interval(20, 20).low == pytest.approx(1 - 0.1611, abs=5e-5)


def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs():
    assert mcnemar_p_value(1, 9) == pytest.approx(2 * (1 + 10) / 2**10), "worked out by hand"
    assert mcnemar_p_value(9, 1) == mcnemar_p_value(1, 9)
    assert mcnemar_p_value(0, 5) == pytest.approx(2 / 2**5), "five of five are not enough at 5 %"
    assert mcnemar_p_value(0, 0) == 1.0


def test_paired_ratios_have_students_interval_of_1908():
    """Student's sleep data: mean difference 1.58, t = 4.0621 on 9 degrees of freedom, p = 0.002833, 0.70 to 2.46."""
    differences = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    estimate = paired_ratio([exp(difference) for difference in differences], [1.0] * 10)
    assert estimate is not None
    assert estimate.ratio == pytest.approx(exp(1.58))
    assert estimate.p_value == pytest.approx(0.002833, abs=5e-7)
    assert (estimate.low, estimate.high) == pytest.approx((exp(0.7001142), exp(2.4598858)), rel=1e-6)
    assert estimate.blocks == 10


def test_repeats_that_do_not_vary_have_no_interval():
    """Three times 100.1 against three times 100.0 is a coarse clock, and no evidence."""
    assert paired_ratio([100.1] * 3, [100.0] * 3) is None
    assert unpaired_ratio([100.1] * 3, [100.0] * 3) is None
    assert unpaired_ratio([100.0] * 3, [100.0] * 3) is None
    assert unpaired_ratio([100.1] * 3, [100.0, 101.0, 99.0]) is None
    third = [1 / 3, 1 / 7, 1 / 11]
    assert paired_ratio([1.1 * rate for rate in third], third) is None, "they differ in the last bit"


def test_unpaired_ratios_are_welchs():
    """The worked example of equal variances and sizes on Wikipedia's page on Welch's t-test: p = 0.021."""
    first = [27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7, 21.4]
    second = [27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 20.5, 24.4]
    estimate = unpaired_ratio([exp(value) for value in first], [exp(value) for value in second])
    assert estimate is not None
    assert estimate.p_value == pytest.approx(0.021, abs=5e-4)
    assert estimate.low < estimate.ratio < estimate.high < 1
    assert estimate.ratio == pytest.approx(exp(sum(first) / 15 - sum(second) / 15))


@pytest.mark.parametrize(
    ("count", "rank", "low", "high"),
    [(10, 50, 2, 9), (20, 50, 6, 15), (25, 50, 8, 18), (100, 90, 84, 96)],
)
def test_percentiles_have_the_order_statistics_of_the_tables(count: int, rank: int, low: int, high: int):
    """The median's ranks are in every table; for p90 of 100, P(B <= 83) = 2.1 % and P(B >= 96) = 2.4 %, B binomial."""
    interval = percentile_interval(range(count, 0, -1), rank)
    assert (interval.low, interval.high) == (low, high)


def test_an_end_that_so_few_samples_do_not_have_is_absent():
    assert percentile_interval(range(5), 50).low is None
    interval = percentile_interval(range(100), 99)
    assert interval.low is not None
    assert interval.high is None


@pytest.mark.parametrize(
    ("count", "low", "high"), [(0, 0.0, 3.6889), (1, 0.0253, 5.5716), (10, 4.7954, 18.3904), (20, 12.2165, 30.8884)]
)
def test_rates_have_garwoods_intervals(count: int, low: float, high: float):
    interval = rate_interval(count, 1.0)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)
    per_thousand = rate_interval(count, 1000.0)
    assert per_thousand.high == pytest.approx(high / 1000, abs=1e-6)


def test_holm_is_the_step_down_procedure():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02]), "worked out by hand"
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_survival_quantiles_agree_with_the_published_medians_of_remission():
    """Freireich et al. 1963 (weeks of remission): median 23 under 6-MP, 8 under placebo; Klein and Moeschberger 4.1."""
    treated = [6, 6, 6, 7, 10, 13, 16, 22, 23], [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
    placebo = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]
    assert survival_quantiles(*treated, (0.5, 0.75)) == [23, None], "fewer than three quarters are known to relapse"
    assert survival_quantiles(placebo, [], (0.5,)) == [8]
    assert survival_quantiles([], [1, 2], (0.5,)) == [None]
