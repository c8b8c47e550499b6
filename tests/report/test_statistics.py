"""Means, deviations, intervals and the paired test: scipy's and numpy's on the same numbers."""

import math

import numpy as np
import pytest
from scipy import stats

from distill_app.report.statistics import Paired, Spread, p_text, paired, spread

SAMPLES = [
    [0.81, 0.84],
    [0.8123, 0.8456, 0.8311],
    [86.1, 86.4, 85.9, 86.3, 86.2],
    list(np.random.default_rng(0).normal(3, 2, 40)),
]


@pytest.mark.parametrize("values", SAMPLES, ids=len)
def test_mean_deviation_and_interval_are_those_of_numpy_and_scipy(values):
    found = spread(values)
    assert found.n == len(values) and found.mean == pytest.approx(np.mean(values))
    assert found.std == pytest.approx(np.std(values, ddof=1))
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_one_value_has_no_deviation_and_no_interval():
    assert spread([0.8]) == Spread(1, 0.8, None, None, None)
    assert spread([]) is None


@pytest.mark.parametrize("values", SAMPLES, ids=len)
def test_the_paired_test_is_scipys(values):
    noise = np.random.default_rng(1).normal(0.1, 1.0, len(values))
    seeds = [str(seed) for seed in range(len(values))]
    mine, theirs = dict(zip(seeds, values, strict=True)), dict(zip(seeds, values + noise, strict=True))
    found = paired(mine, theirs)
    test = stats.ttest_rel(list(mine.values()), list(theirs.values()))
    interval = test.confidence_interval(0.95)
    assert found.n == len(values) and found.p == pytest.approx(test.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.mean == pytest.approx(-noise.mean())


def test_pairs_are_made_by_seed_and_others_left_out():
    found = paired({"3": 0.9, "0": 0.5, "1": 0.7}, {"0": 0.4, "1": 0.5, "2": 0.0})
    assert found.n == 2 and found.mean == pytest.approx(0.15)
    assert paired({"0": 1.0}, {"1": 1.0}) is None


def test_one_pair_has_a_difference_and_no_p():
    assert paired({"0": 0.9}, {"0": 0.5, "1": 0.6}) == Paired(1, pytest.approx(0.4), None, None, None)


def test_differences_that_are_all_the_same_number_have_no_p():
    found = paired({"0": 0.3, "1": 0.5, "2": 0.7}, {"0": 0.2, "1": 0.4, "2": 0.6})
    assert found.mean == pytest.approx(0.1) and found.p is None
    assert paired({"0": 0.3, "1": 0.5}, {"0": 0.3, "1": 0.5}).p is None


def test_p_values_are_told_as_papers_do():
    assert [p_text(p) for p in (None, 0.0002, 0.0123, 0.64)] == ["-", "< 0.001", "0.012", "0.64"]
    assert not math.isnan(paired({"0": 0.3, "1": 0.5}, {"0": 0.1, "1": 0.5}).p)
