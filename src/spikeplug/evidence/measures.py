"""Measure the errors of an approximation: `approximate - exact`, both float64 (rows, width)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Measures:
    """Hold the errors e = approximate - exact, over all elements whose exact value is finite.

    count                  number of elements
    max_error, mean_error  largest and mean |e|
    mse, bias              means of e² and of e
    max_relative           largest |e| of a vector / its largest |exact|; the maximum over vectors that are not all 0
    mean_relative          Σ|e| / Σ|exact| over all elements
    max_lsb, mean_lsb      largest and mean |e| in LSB, the step of the output; None for a float baseline
    mean_kl, max_kl        mean and largest KL divergence of a vector, Σ p·log(p / q) in nats; p exact, q approximate;
                           None unless the vectors are probability distributions
    lost                   probability p where the approximation is 0: sum over a vector, mean over vectors;
                           None unless the vectors are probability distributions

    For KL, each q is raised to at least half an LSB (2^-24 without LSB), as a zero would make KL infinite. Then q is
    divided by its sum.
    """

    count: int
    max_error: float
    mean_error: float
    mse: float
    bias: float
    max_relative: float
    mean_relative: float
    max_lsb: float | None = None
    mean_lsb: float | None = None
    mean_kl: float | None = None
    max_kl: float | None = None
    lost: float | None = None


def measure(approximate: Tensor, exact: Tensor, lsb: Tensor | None = None, *, distribution: bool = False) -> Measures:
    """Return the errors of `approximate` against `exact`, both float64 (rows, width).

    lsb           the step of the output, broadcastable with `exact`; None for a float baseline
    distribution  True if each row is a probability distribution: KL divergence and lost probability are measured, too
    """
    finite = torch.isfinite(exact)
    exact, approximate = exact.masked_fill(~finite, 0.0), approximate.masked_fill(~finite, 0.0)
    error, count = approximate - exact, int(finite.sum())
    magnitude, top = error.abs(), exact.abs().amax(-1)
    relative = (magnitude.amax(-1) / top)[top > 0]
    steps = None if lsb is None else magnitude / lsb
    divergence = lost = None
    if distribution:
        floor = torch.tensor(2.0**-24) if lsb is None else lsb / 2
        divergence = kl(exact, approximate, floor)
        lost = float((exact * (approximate <= 0)).sum(-1).mean())
    total = max(count, 1)
    return Measures(
        count=count,
        max_error=float(magnitude.max()),
        mean_error=float(magnitude.sum() / total),
        mse=float(error.square().sum() / total),
        bias=float(error.sum() / total),
        max_relative=float(relative.max()) if len(relative) else 0.0,
        mean_relative=float(magnitude.sum() / exact.abs().sum()) if bool(exact.any()) else 0.0,
        max_lsb=None if steps is None else float(steps.max()),
        mean_lsb=None if steps is None else float(steps.sum() / total),
        mean_kl=None if divergence is None else float(divergence.mean()),
        max_kl=None if divergence is None else float(divergence.max()),
        lost=lost,
    )


def kl(p: Tensor, q: Tensor, floor: Tensor) -> Tensor:
    """Return the KL divergence Σ p·log(p / q') of each row, in nats, at least 0; shape (rows,).

    p, q   probabilities, (rows, width)
    floor  smallest value allowed for an element of q, broadcastable with q

    q' is max(q, floor), set to 0 where p is 0, divided by its sum over the row.
    """
    q = torch.maximum(q, floor.to(q.dtype)) * (p > 0)
    q = q / q.sum(-1, keepdim=True).clamp(min=math.ulp(0.0))
    terms = torch.where(p > 0, p * (p.clamp(min=1e-300).log() - q.clamp(min=1e-300).log()), 0.0)
    return terms.sum(-1).clamp(min=0.0)
