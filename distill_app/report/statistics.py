"""Figures over seeds: mean, deviation, interval, and the paired test; all of them scipy's."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """A figure over independent runs.

    Attributes:
        n: How many there are.
        mean: Their mean.
        std: The sample standard deviation (n - 1); None for one run, which has none.
        low: The lower end of the confidence interval of the mean by Student's t; None for one run.
        high: The upper end.
    """

    n: int
    mean: float
    std: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Paired:
    """What two results differ by over the seeds that both have.

    Attributes:
        n: How many pairs there are.
        mean: The mean difference.
        low: The lower end of its confidence interval; None for one pair.
        high: The upper end.
        p: Of the two-sided paired t-test; None for one pair, and where all differences are the same number, which has
            no deviation to be tested against.
    """

    n: int
    mean: float
    low: float | None = None
    high: float | None = None
    p: float | None = None


def spread(values: Sequence[float]) -> Spread | None:
    """Mean, standard deviation and 95 % interval of the mean; None where there are no values."""
    if not values:
        return None
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Spread(1, mean)
    std = statistics.stdev(values)
    low, high = _interval(mean, std=std, n=len(values))
    return Spread(len(values), mean, std, low, high)


def paired(values: Mapping[str, float], others: Mapping[str, float]) -> Paired | None:
    """How far values lie above others, seed by seed; None where they have no seed in common.

    Runs of one seed share initial weights, order and labels, so that a difference within a seed says more than one of
    two means: the test is that of the differences (scipy.stats.ttest_rel).

    Args:
        values: Seed -> value.
        others: Seed -> value, of what they are compared with.
    """
    from scipy import stats  # imported here: half a second, which other commands need not pay

    seeds = [seed for seed in values if seed in others]
    gaps = [values[seed] - others[seed] for seed in seeds]
    found = spread(gaps)
    if found is None or found.n == 1:
        return None if found is None else Paired(1, found.mean)
    scale = max(abs(values[seed]) + abs(others[seed]) for seed in seeds)
    if found.std is None or found.std <= 1e-12 * scale:  # what rounding leaves of equal differences is no deviation
        return Paired(found.n, found.mean)
    test = stats.ttest_rel([values[seed] for seed in seeds], [others[seed] for seed in seeds])
    return Paired(found.n, found.mean, found.low, found.high, float(test.pvalue))


def _interval(mean: float, *, std: float, n: int) -> tuple[float, float]:
    from scipy import stats

    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * std / math.sqrt(n)
    return mean - half, mean + half


def p_text(p: float | None) -> str:
    """A p-value as papers print it."""
    if p is None:
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
