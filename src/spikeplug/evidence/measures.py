"""Measure the errors of an approximation: `approximate - exact`, both float64 (rows, width)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Measures:
    """Hold the errors e = approximate - exact, over all elements whose exact value is finite.

    count                  elements
    max_error, mean_error  of |e|
    mse, bias              means of e² and of e
    max_relative           largest |e| of a vector / its largest |exact|; maximum over vectors that are not all 0
    mean_relative          Σ|e| / Σ|exact|
    max_lsb, mean_lsb      of |e| / LSB; None for a float baseline, which has no scale
    mean_kl, max_kl        over vectors, of Σ p·log(p / q) in nats; None unless the vectors are distributions
    lost                   mean over vectors of Σ p where the approximation is 0; None unless they are distributions

    q is made a distribution first: at least half an LSB (a zero would make KL infinite), and summing to 1.
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
    """Return the errors of `approximate`.

    lsb           one LSB, broadcastable with `exact`; None for a float baseline
    distribution  True if each row is a distribution, so that KL is measured
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
    """Return Σ p·log(p / q') >= 0 of each row, in nats.

    q' = max(q, floor) / Σ max(q, floor), over elements with p > 0.
    """
    q = torch.maximum(q, floor.to(q.dtype)) * (p > 0)
    q = q / q.sum(-1, keepdim=True).clamp(min=math.ulp(0.0))
    terms = torch.where(p > 0, p * (p.clamp(min=1e-300).log() - q.clamp(min=1e-300).log()), 0.0)
    return terms.sum(-1).clamp(min=0.0)
