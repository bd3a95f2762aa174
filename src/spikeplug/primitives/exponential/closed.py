"""Compute both exponentials in closed form: table look-ups, one product, shifts."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from spikeplug.fixedpoint import shift_right
from spikeplug.primitives.exponential.spec import PiecewiseExponential, ShiftExponential
from spikeplug.primitives.interpolation import interpolate


def mantissa(distance: Tensor, spec: ShiftExponential) -> Tensor:
    """Return 2^-f as an int32 of `spec.weight_bits` fraction bits, f being the fractional part of `distance`.

    distance: int32, at least 0, with `spec.fraction_bits` fraction bits. Its whole part is ignored; see `decay`.
    """
    return interpolate(distance & ((1 << spec.fraction_bits) - 1), spec.table)


def decay(weight: Tensor, octaves: Tensor) -> Tensor:
    """Return weight >> octaves = floor(weight · 2^-octaves): `octaves` (integers >= 0) counts the halvings."""
    return shift_right(weight, octaves)


def power_of_half(distance: Tensor, spec: ShiftExponential) -> Tensor:
    """Return 2^-distance as integers of `spec.weight_bits` fraction bits.

    distance: int32, at least 0, with `spec.fraction_bits` fraction bits.
    """
    return decay(mantissa(distance, spec), distance >> spec.fraction_bits)


def piecewise(x: Tensor, spec: PiecewiseExponential) -> Tensor:
    """Return exp(x), int64 with `spec.output_bits` fraction bits, by chords of exp between the knots of `spec`.

    x: integers with `spec.fraction_bits` fraction bits.
    The result is 0 below the first knot, and constant above the last.
    """
    knots, intercepts, slopes, places = piecewise_tables(spec, x.device)
    x = x.to(torch.int64).contiguous()
    segment = torch.bucketize(x, knots, right=True) - 1  # knots reached, minus one
    inside = segment.clamp(0, spec.segments - 1)
    rise = slopes[inside] * (x - knots[inside]).clamp(min=0)
    rise = torch.where(places[inside] >= 0, rise >> places[inside].clamp(min=0), rise << (-places[inside]).clamp(min=0))
    value = intercepts[inside] + rise
    value = torch.where(segment >= spec.segments, intercepts[-1], value)
    return value * (segment >= 0)


@lru_cache(maxsize=64)
def piecewise_tables(spec: PiecewiseExponential, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return knots, intercepts, and the slopes' m and s (see `spec.slopes`), int64 on `device`."""
    slopes, places = zip(*spec.slopes, strict=True)
    tables = (spec.knots, spec.intercepts, slopes, places)
    knots, intercepts, slope, place = (torch.tensor(t, dtype=torch.int64, device=device) for t in tables)
    return knots, intercepts, slope, place
