"""Paired statistics against values worked out by hand, scipy's and lm-eval's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from lm_eval.api.metrics import mean, mean_stderr, perplexity
from scipy import stats

from spikeplug.harness.paired import Paired, combined, mcnemar, paired_aggregate, paired_mean, paired_t, swap_test


@pytest.mark.parametrize(
    ("lost", "gained", "p"),
    [(0, 0, 1.0), (0, 1, 1.0), (0, 5, 2 / 32), (5, 0, 2 / 32), (3, 3, 1.0), (2, 6, 2 * (1 + 8 + 28) / 256)],
)
def test_mcnemar_by_hand(lost, gained, p):
    assert mcnemar(lost, gained) == p


def test_mcnemar_is_the_binomial_test():
    for lost in range(13):
        for gained in range(13):
            if lost + gained:
                assert mcnemar(lost, gained) == pytest.approx(stats.binomtest(lost, lost + gained).pvalue, rel=1e-12)
    assert mcnemar(3000, 3200) == pytest.approx(stats.binomtest(3000, 6200).pvalue, rel=1e-9)


def test_paired_t_by_hand():
    # d = 1, 2, 3: mean 2, sd 1, t = 2 sqrt(3); with 2 degrees of freedom P[|T| > t] = 1 - t / sqrt(2 + t^2).
    t = 2 * math.sqrt(3)
    assert paired_t(np.array([1.0, 2.0, 3.0])) == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-12)
    assert paired_t(np.zeros(5)) == 1.0
    assert paired_t(np.ones(5)) == 0.0  # no spread at all
    assert paired_t(np.array([1.0])) is None


def test_means_of_0_and_1():
    exact, spiking = [1, 1, 1, 0, 0, 1, 0, 1], [1, 0, 0, 0, 1, 1, 0, 0]
    found = paired_mean(exact, spiking)
    assert (found.exact, found.spiking, found.difference) == (5 / 8, 3 / 8, -2 / 8)
    assert (found.changed, found.lost, found.gained) == (4, 3, 1)
    assert (found.test, found.p) == ("McNemar", 2 * (1 + 4) / 16)
    # d: three -1, one +1, four 0: squares about the mean -1/4 add up to 4 - 8/16 = 3.5.
    assert found.difference_error == pytest.approx(math.sqrt(3.5 / 7 / 8), rel=1e-12)
    assert found.exact_error == pytest.approx(mean_stderr(exact), rel=1e-12)
    assert found.spiking_error == pytest.approx(mean_stderr(spiking), rel=1e-12)


def test_means_of_other_numbers():
    random = np.random.default_rng(1)
    exact = random.normal(size=40)
    spiking = exact + random.normal(0.1, 0.2, size=40)
    found = paired_mean(exact, spiking)
    assert found.test == "t"
    assert found.p == pytest.approx(stats.ttest_rel(spiking, exact).pvalue, rel=1e-9)
    assert found.lost is None


def test_the_paired_error_is_smaller_than_the_unpaired():
    random = np.random.default_rng(2)
    exact = random.normal(size=200)
    found = paired_mean(exact, exact + random.normal(0, 0.01, size=200))
    assert found.difference_error < 0.05 * found.exact_error


def test_one_item_has_no_error():
    found = paired_mean([1.0], [0.0])
    assert (found.exact_error, found.difference_error, found.p) == (None, None, 1.0)


def test_the_bootstrap_of_a_mean_has_the_error_of_the_mean():
    random = np.random.default_rng(3)
    exact, spiking = [random.normal(size=100).tolist() for _ in range(2)]
    expected, found = paired_mean(exact, spiking), paired_aggregate(exact, spiking, mean)
    for name in ("exact_error", "spiking_error", "difference_error"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=0.1)
    assert found.difference == pytest.approx(expected.difference, rel=1e-12)
    assert found.p == pytest.approx(expected.p, abs=0.05)


def test_perplexity_is_tested_on_likelihoods():
    random = np.random.default_rng(4)
    exact = random.normal(-3, 1, size=50).tolist()
    spiking = [value - 0.01 for value in exact]
    spiking[0] += 0.02
    found = paired_aggregate(exact, spiking, perplexity, likelihoods=(exact, spiking))
    assert found.exact == pytest.approx(math.exp(-np.mean(exact)))
    assert found.spiking > found.exact
    assert (found.test, found.changed) == ("t", 50)
    assert found.p == pytest.approx(stats.ttest_rel(spiking, exact).pvalue, rel=1e-9)
    assert found.difference_error < 0.05 * found.exact_error


def test_the_swap_test():
    same = [(1, 0), (0, 0), (1, 1)]
    matches = lambda pairs: sum(a == b for a, b in pairs) / len(pairs)  # noqa: E731
    assert swap_test(same, same, matches) == 1.0
    exact, spiking = [1.0] * 8, [0.0] * 8
    # Only "none swapped" and "all swapped", of 2^8, reach the observed difference.
    assert swap_test(exact, spiking, mean, draws=20_000) == pytest.approx(2 / 256, abs=0.003)
    assert swap_test([1.0], [math.nan], mean) is None


def test_combinations():
    parts = [paired_mean([1, 1, 0, 0], [1, 0, 0, 0]), paired_mean([1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0])]
    found = combined(parts, [0.5, 0.5])
    assert found.items == 10
    assert found.changed == 3
    assert found.exact == 0.5
    assert found.spiking == pytest.approx((1 / 4 + 5 / 6) / 2)
    error = math.hypot(parts[0].difference_error, parts[1].difference_error) / 2
    assert found.difference_error == pytest.approx(error)
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(found.difference) / error))
    pooled = combined(parts, [0.4, 0.6])
    assert pooled.exact == pytest.approx(5 / 10)
    assert pooled.spiking == pytest.approx(6 / 10)


def test_a_combination_without_an_error():
    part = Paired(1, 1.0, None, 0.0, None, -1.0, None, None, None, 1)
    found = combined([part, part], [0.5, 0.5])
    assert (found.difference, found.difference_error, found.test, found.p) == (-1.0, None, None, None)
