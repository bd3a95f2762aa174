"""Predict what the neurons of both exponentials do. No time step runs."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.neurons import Needs, Scope
from spikeplug.primitives.compare import count as compare
from spikeplug.primitives.exponential import closed
from spikeplug.primitives.exponential.spec import PiecewiseExponential, ShiftExponential
from spikeplug.primitives.interpolation.count import interpolate, summed
from spikeplug.primitives.interpolation.simulate import read
from spikeplug.primitives.product.count import gate


def mantissa(distance: Tensor, spec: ShiftExponential, scope: Scope) -> Tensor:
    """Return 2^-f as an int32 of `spec.weight_bits` fraction bits, f being the fractional part of `distance`."""
    return interpolate(distance & ((1 << spec.fraction_bits) - 1), spec.table, scope)


def decay(weight: Tensor, octaves: Tensor, scope: Scope) -> Tensor:
    """Return floor(weight · 2^-octaves) for weight >= 0.

    All neurons run as long as the one that halves most often. Nothing arrives: every update is idle.
    """
    decayed = closed.decay(weight, octaves)
    width = torch.iinfo(weight.dtype).bits
    steps = min(int(octaves.max()) if octaves.numel() else 0, width)
    halving = Needs(leak=0.5, fan_in=0, weight_bits=0, weights=0, gated=True, arriving_bits=0)
    population = scope.population("accumulator", width, decayed.numel(), halving)
    population.updated(decayed.numel() * steps, 0)
    population.steps += steps
    return decayed


def piecewise(x: Tensor, spec: PiecewiseExponential, scope: Scope) -> Tensor:
    """Return exp(x), int64 with `spec.output_bits` fraction bits, by chords of exp between the knots of `spec`."""
    answer = closed.piecewise(x, spec)
    x = x.to(torch.int64)
    knots, intercepts, slopes, places = closed.piecewise_tables(spec, x.device)
    reached = torch.bucketize(x, knots, right=True)
    compare.ordered(x, len(spec.knots), int(reached.sum()), 32, scope / "segment")
    inside = (reached - 1).clamp(0, spec.segments - 1)
    tables = {"knot": knots, "intercept": intercepts, "slope": slopes, "places": places}
    start, intercept, slope, place = (read(table, inside, scope / name) for name, table in tables.items())
    offset = (x - start) * ((reached >= 1) & (reached <= spec.segments))
    widest = max(right - left for left, right in zip(spec.knots, spec.knots[1:], strict=False))
    rise = gate(offset, slope, widest.bit_length(), scope / "rise")
    decay(rise, place.clamp(min=0), scope / "decay")
    summed(intercept, max(spec.intercepts).bit_length() + 1, scope / "chord")
    return answer
