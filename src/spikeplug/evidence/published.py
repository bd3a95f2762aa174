"""List published bounds and mean errors of the authors' float release (Yuan et al., ICML 2026, arXiv 2605.20289).

The bounds are evaluated as published, for any numerics: Δ = 2^-n = 1/(T·L).
ε_exp = w²/8·e^w, w the width of a segment. For chords on [-H, H] this is the published H²/(2K²)·e^(2H/K).
For the shift form, w = ln 2/S.
ε_pol = ceil(log2 d)·2^(-2i-1) for i CORDIC iterations, and 0 for an exact root.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spikeplug.evidence import baselines
from spikeplug.evidence.subjects import EPS
from spikeplug.library import OPERATORS
from spikeplug.numerics import Numerics
from spikeplug.operators.record import Bound


def exp_error(numerics: Numerics, half_range: float) -> float:
    """Return ε_exp, the published bound of the relative error of an exponential by chords: w²/8·e^w.

    w is the width of a chord. Piecewise form: 2·half_range/segments. Shift form: ln 2/segments.
    """
    width = math.log(2) / numerics.segments if numerics.exponential == "shift" else 2 * half_range / numerics.segments
    return width**2 / 8 * math.exp(width)


def polar_error(dimension: int, numerics: Numerics) -> float:
    """Return ε_pol, the published bound of the relative error of a norm (vector length) over `dimension` elements.

    With i = numerics.iterations it is ceil(log2 dimension)·2^(-2i-1); for the exact root, 0.
    """
    if numerics.norm == "root":
        return 0.0
    return math.ceil(math.log2(max(dimension, 1))) * 2.0 ** (-2 * numerics.iterations - 1)


def _promised(y: Tensor, bound: Tensor, numerics: Numerics) -> Tensor:
    """Return `bound` where |y| is one LSB or more, and infinity (no bound) where it is smaller.

    A relative bound of an output that cannot be told from 0 would not be a fair comparison.
    """
    lsb = 2.0**-numerics.bits
    return bound.masked_fill(
        y.abs() < (y.abs().amax(-1, keepdim=True) * lsb if numerics.shift_scaling else lsb), math.inf
    )


def _within(distance: Tensor, bound: Tensor, numerics: Numerics, half_range: float) -> Tensor:
    """Return `bound`, and infinity (no bound) where `distance` exceeds half_range: chords promise nothing there.

    The shift form has no such range: `bound` is returned as it is.
    """
    return bound if numerics.exponential == "shift" else bound.masked_fill(distance > half_range, math.inf)


def softmax_bound(x: Tensor, *, numerics: Numerics) -> Tensor:
    """Return the published error bound of softmax for each element of x: 2p(ε_exp + Δ)/(1 - ε_exp).

    p is the exact softmax, ε_exp the error of the exponential (`exp_error`), Δ = 2^-bits the output step.
    Infinity (no bound) for p below one LSB and, with chords, for rows wider than softmax_half_range.
    """
    error, p = exp_error(numerics, numerics.softmax_half_range), x.softmax(-1)
    bound = _promised(p, p * (2 * (error + 2.0**-numerics.bits) / (1 - error)), numerics)
    return _within(x.amax(-1, keepdim=True) - x.amin(-1, keepdim=True), bound, numerics, numerics.softmax_half_range)


def silu_bound(x: Tensor, *, numerics: Numerics) -> Tensor:
    """Return the published error bound of SiLU for each element of x: |x|·(2ε_exp/(1 - ε_exp) + Δ).

    ε_exp is the error of the exponential (`exp_error`), Δ = 2^-bits the output step.
    Infinity (no bound) for outputs below one LSB and, with chords, for vectors that leave [-half_range, half_range].
    """
    error = exp_error(numerics, numerics.half_range)
    bound = x.abs() * (2 * error / (1 - error) + 2.0**-numerics.bits)
    bound = _promised(torch.nn.functional.silu(x), bound, numerics)
    return _within(x.abs().amax(-1, keepdim=True), bound, numerics, numerics.half_range)


def rms_norm_bound(x: Tensor, *, numerics: Numerics) -> Tensor:
    """Return the published error bound of RMSNorm for each element of x: |y|·((ε_pol + Δ)/(1 - ε_pol) + sqrt(d)·Δ).

    y is the exact output, d the length of the vector, ε_pol the error of its norm (`polar_error`), Δ = 2^-bits the
    output step. Infinity (no bound) for |y| below one LSB.
    """
    dimension, step = x.shape[-1], 2.0**-numerics.bits
    error = polar_error(dimension, numerics)
    y = x / (x.square().mean(-1, keepdim=True) + EPS).sqrt()
    return _promised(y, y.abs() * ((error + step) / (1 - error) + math.sqrt(dimension) * step), numerics)


def of_the_largest(bound: Bound) -> Bound:
    """Return a looser bound: every element of a vector gets the largest finite bound that `bound` gives in the vector.

    Infinity (no bound) where `bound` gives no finite bound above 0 in the whole vector.
    """

    def largest(x: Tensor, *, numerics: Numerics) -> Tensor:
        limit = bound(x, numerics=numerics)
        limit = limit.masked_fill(torch.isinf(limit), 0.0)
        limit = limit.masked_fill((limit == 0).all(-1, keepdim=True), math.inf)  # no bound for the whole vector
        return limit.amax(-1, keepdim=True).expand_as(limit)

    return largest


PUBLISHED_BOUNDS: Mapping[str, Bound] = {"softmax": softmax_bound, "silu": silu_bound, "rms_norm": rms_norm_bound}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Compare a published mean error with ours: mean |spiking - exact|, both outputs rounded towards zero to 1/256.

    operator   name of the operator
    dimension  length of the vectors; None for an elementwise operator
    reading    the assumption about inputs and method under which ours was measured
    published  the published mean error
    mean       our mean error
    max_steps  our largest error, in steps of 1/256
    """

    operator: str
    dimension: int | None
    reading: str
    published: float
    mean: float
    max_steps: float

    @property
    def ratio(self) -> float:
        """Return our mean error divided by the published one."""
        return self.mean / self.published


#: Mean |e|; the maximum is 1/256 everywhere.
SOFTMAX = {8: 8.4e-5, 64: 1.04e-5, 256: 2.6e-6}
RMS_NORM = {8: 2.3e-5, 64: 5.1e-5, 256: 7.2e-5}
SILU = 2.78e-4
_STEPS = 256


def figures(numerics: Numerics, elements: int = 200_000, seed: int = 0) -> list[Figure]:
    """Measure the published mean errors of SiLU, softmax and RMSNorm again, each on about `elements` numbers.

    Their protocol was not published; docs/ops.md explains how this one was found.
    SiLU: an even grid on [-5, 5].
    Softmax: uniform on [-2.5, 2.5], so that no score lies more than 5 below its row's largest.
    The float recipe of softmax runs on N(0, 1) instead, without subtracting the maximum.
    RMSNorm: N(0, 1).
    Outputs are rounded towards zero to 1/256 before they are compared.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(dimension: int) -> Tensor:
        return torch.randn(elements // dimension, dimension, generator=generator, dtype=torch.float64)

    x = torch.linspace(-5, 5, elements + 1, dtype=torch.float64)[:, None]
    silu = torch.nn.functional.silu(x)
    found = [
        _figure("silu", None, "float recipe", SILU, baselines.published_silu(x), silu),
        _figure("silu", None, "these numerics", SILU, OPERATORS["silu"](x, numerics=numerics), silu),
    ]
    for dimension, value in SOFTMAX.items():
        x = normal(dimension)
        recipe = baselines.published_softmax(x, subtract=False)
        found.append(_figure("softmax", dimension, "float recipe, N(0, 1)", value, recipe, x.softmax(-1)))
        x = 5 * torch.rand(elements // dimension, dimension, generator=generator, dtype=torch.float64) - 2.5
        for reading, chosen in (
            ("these numerics", numerics),
            ("these numerics, H = 5", replace(numerics, softmax_half_range=5)),
        ):
            spiking = OPERATORS["softmax"](x, -1, numerics=chosen)
            found.append(_figure("softmax", dimension, reading, value, spiking, x.softmax(-1)))
    for dimension, value in RMS_NORM.items():
        x = normal(dimension)
        exact = x / (x.square().mean(-1, keepdim=True) + EPS).sqrt()
        bare = x / x.square().mean(-1, keepdim=True).sqrt()
        recipe = baselines.published_rms_norm(x, eps=0.0)
        found.append(_figure("rms_norm", dimension, "float recipe, no eps", value, recipe, bare))
        spiking = OPERATORS["rms_norm"](x, EPS, numerics=numerics)
        found.append(_figure("rms_norm", dimension, "these numerics", value, spiking, exact))
    return found


def _figure(operator: str, dimension: int | None, reading: str, value: float, y: Tensor, exact: Tensor) -> Figure:
    # Towards zero: spikes are counted, and the sign is in the population that sends them.
    steps = ((y * _STEPS).trunc() - (exact * _STEPS).trunc()).abs()
    return Figure(
        operator=operator,
        dimension=dimension,
        reading=reading,
        published=value,
        mean=float(steps.mean()) / _STEPS,
        max_steps=float(steps.max()),
    )
