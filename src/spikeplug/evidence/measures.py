"""Errors of an approximation: what is said of `approximate - exact`, both float64 (rows, width)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Measures:
    """e = approximate - exact, over all elements whose exact value is finite.

    count                       elements
    max_error, mean_error       of |e|
    mse, bias                   means of e² and e
    max_relative                largest |e| of a vector / its largest |exact|, maximum over vectors with any
    mean_relative               Σ|e| / Σ|exact|
    max_lsb, mean_lsb           of |e| / LSB; None where there is no scale (a float baseline)
    mean_kl, max_kl             over vectors, of Σ p·log(p / q), nats, where the vectors are distributions; else None.
                                q is made one: not below half an LSB (a zero would make it infinite), summing to 1
    lost                        mean over vectors of Σ p where the approximation is 0; None as above
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
    """`lsb` broadcasts with `exact`; `distribution`: each row is one, and KL is of interest."""
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
    """Σ p·log(p / q') >= 0 of each row, nats; q' = max(q, floor) / Σ max(q, floor), where p > 0."""
    q = torch.maximum(q, floor.to(q.dtype)) * (p > 0)
    q = q / q.sum(-1, keepdim=True).clamp(min=math.ulp(0.0))
    terms = torch.where(p > 0, p * (p.clamp(min=1e-300).log() - q.clamp(min=1e-300).log()), 0.0)
    return terms.sum(-1).clamp(min=0.0)
