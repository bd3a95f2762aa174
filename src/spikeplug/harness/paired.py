"""Paired statistics: test whether two models differ on the same items by more than chance.

Notation: item i has the value e_i in the exact model and s_i in the spiking one; d_i = s_i - e_i; n items.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000  # resamples of a bootstrap, and random swaps of a randomisation test
_SEED = 0


@dataclass(frozen=True)
class Paired:
    """One metric of both models on the same items. Standard errors and p are None where they cannot be computed.

    items                number of items
    exact, spiking       the metric of each model; exact_error, spiking_error: its standard error
    difference           spiking - exact
    difference_error     standard error of the paired difference: both models saw the same items
    test, p              "McNemar", "t", "swap" or "normal", and the two-sided p value of that test
    changed              items whose value differs; lost: exact better, gained: spiking better (0/1 metrics only)
    """

    items: int
    exact: float
    exact_error: float | None
    spiking: float
    spiking_error: float | None
    difference: float
    difference_error: float | None
    test: str | None
    p: float | None
    changed: int
    lost: int | None = None
    gained: int | None = None


def paired_mean(exact: Sequence[float], spiking: Sequence[float]) -> Paired:
    """Return the means over all items of both models, their difference, standard errors, and a test of the difference.

    exact, spiking   one value per item, in the same order

    A standard error is sd / sqrt(number of items), with items - 1 in the variance, as in lm-eval; for the difference it
    is that of the differences by item. The test is McNemar's exact test if all values are 0 or 1, else a paired t-test.
    """
    e, s = np.asarray(exact, dtype=np.float64), np.asarray(spiking, dtype=np.float64)
    d = s - e
    binary = bool(np.isin(e, (0.0, 1.0)).all() and np.isin(s, (0.0, 1.0)).all())
    lost, gained = int((d < 0).sum()), int((d > 0).sum())
    return Paired(
        items=len(d),
        exact=float(e.mean()),
        exact_error=_standard_error(e),
        spiking=float(s.mean()),
        spiking_error=_standard_error(s),
        difference=float(d.mean()),
        difference_error=_standard_error(d),
        test="McNemar" if binary else "t",
        p=mcnemar(lost, gained) if binary else paired_t(d),
        changed=int((d != 0).sum()),
        lost=lost if binary else None,
        gained=gained if binary else None,
    )


def paired_aggregate(
    exact: Sequence[Any],
    spiking: Sequence[Any],
    aggregate: Callable[[list[Any]], float],
    *,
    draws: int = DRAWS,
    likelihoods: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Paired:
    """Return a metric of both models that is not a mean over items (F1, a correlation, a perplexity), with a test.

    exact, spiking   one value per item, in the same order
    aggregate        function from the values of all items to the metric
    draws            number of bootstrap resamples, and of random swaps of the test
    likelihoods      for perplexities: log-likelihoods of the items in the exact and in the spiking model

    Standard errors come from a bootstrap over items, the same items for both models. p comes from `swap_test`, or from
    the paired t-test on the likelihoods if there are any.
    """
    n = len(exact)
    random = np.random.default_rng(_SEED)
    values: list[tuple[float, float]] = []
    for _ in range(draws if n > 1 else 0):
        index = random.integers(0, n, n)
        values.append((aggregate([exact[i] for i in index]), aggregate([spiking[i] for i in index])))
    pairs = np.asarray(values, dtype=np.float64).reshape(-1, 2)
    e, s = float(aggregate([*exact])), float(aggregate([*spiking]))
    if likelihoods is None:
        test, p = "swap", swap_test(exact, spiking, aggregate, draws=draws)
    else:
        test, p = "t", paired_t(np.asarray(likelihoods[1], dtype=np.float64) - np.asarray(likelihoods[0]))
    return Paired(
        items=n,
        exact=e,
        exact_error=_spread(pairs[:, 0]),
        spiking=s,
        spiking_error=_spread(pairs[:, 1]),
        difference=s - e,
        difference_error=_spread(pairs[:, 1] - pairs[:, 0]),
        test=test,
        p=p,
        changed=sum(a != b for a, b in zip(exact, spiking, strict=True)),
    )


def combined(parts: Sequence[Paired], weights: Sequence[float]) -> Paired:
    """Return the weighted mean of a metric over several sets of items, such as the tasks of a group.

    parts     the metric on each set
    weights   one per part; they sum to 1

    Standard errors add in squares. p is two-sided, from the normal distribution of difference / standard error.
    """
    errors = [
        _combined_error([getattr(part, name) for part in parts], weights)
        for name in ("exact_error", "spiking_error", "difference_error")
    ]
    difference = math.fsum(w * part.difference for w, part in zip(weights, parts, strict=True))
    p = None
    if errors[2] is not None:
        p = 1.0 if difference == 0 else math.erfc(abs(difference) / errors[2] / math.sqrt(2)) if errors[2] else 0.0
    return Paired(
        items=sum(part.items for part in parts),
        exact=math.fsum(w * part.exact for w, part in zip(weights, parts, strict=True)),
        exact_error=errors[0],
        spiking=math.fsum(w * part.spiking for w, part in zip(weights, parts, strict=True)),
        spiking_error=errors[1],
        difference=difference,
        difference_error=errors[2],
        test=None if p is None else "normal",
        p=p,
        changed=sum(part.changed for part in parts),
    )


def mcnemar(lost: int, gained: int) -> float:
    """Return the two-sided p value of McNemar's exact test.

    lost     number of items only the exact model has right
    gained   number of items only the spiking model has right

    p = min(1, 2 P[X <= min(lost, gained)]), X binomial(lost + gained, 1/2).
    """
    n, term, total = lost + gained, 1, 0
    for k in range(min(lost, gained) + 1):
        total += term
        term = term * (n - k) // (k + 1)  # C(n, k + 1)
    return min(1.0, 2 * total / (1 << n))  # integers until the last division


def paired_t(differences: NDArray[np.float64]) -> float | None:
    """Return the two-sided p value of the paired t-test that the mean difference is 0; None if it cannot be computed.

    differences   spiking - exact, one per item; 1.0 is returned if all are 0
    """
    from scipy import stats

    d = np.asarray(differences, dtype=np.float64)
    if not d.any():
        return 1.0
    error = _standard_error(d)
    if error is None:
        return None
    return float(2 * stats.t.sf(abs(d.mean()) / error, len(d) - 1)) if error else 0.0


def swap_test(
    exact: Sequence[Any], spiking: Sequence[Any], aggregate: Callable[[list[Any]], float], *, draws: int = DRAWS
) -> float | None:
    """Return the two-sided p value of a randomisation test, which swaps both models' values of an item at random.

    exact, spiking   one value per item, in the same order
    aggregate        function from the values of all items to the metric
    draws            number of random draws; each item is swapped with probability 1/2

    p = (1 + number of draws with a |difference| of the metric at least as large as without swaps) / (1 + draws).
    None if a difference is NaN or infinite.
    """
    observed = abs(aggregate([*spiking]) - aggregate([*exact]))
    random = np.random.default_rng(_SEED)
    reached = 0
    for _ in range(draws):
        swap = random.integers(0, 2, len(exact))
        first = [s if w else e for e, s, w in zip(exact, spiking, swap, strict=True)]
        second = [e if w else s for e, s, w in zip(exact, spiking, swap, strict=True)]
        drawn = abs(aggregate(second) - aggregate(first))
        if not math.isfinite(drawn):
            return None
        reached += drawn >= observed * (1 - 1e-12)  # the same swap, added up in another order
    return (1 + reached) / (1 + draws) if math.isfinite(observed) else None


def _standard_error(values: NDArray[np.float64]) -> float | None:
    if len(values) < 2:
        return None
    return _finite(float(values.std(ddof=1)) / math.sqrt(len(values)))


def _spread(values: NDArray[np.float64]) -> float | None:
    return _finite(float(values.std(ddof=1))) if len(values) > 1 and np.isfinite(values).all() else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _combined_error(errors: Sequence[float | None], weights: Sequence[float]) -> float | None:
    total = 0.0
    for error, weight in zip(errors, weights, strict=True):
        if error is None:
            return None
        total += (weight * error) ** 2
    return math.sqrt(total)
