"""Compute both exponentials by neurons: ordered neurons find the segment, gating adds, a leak of 1/2 shifts."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.neurons import Scope, blocks, integrate
from spikeplug.primitives.exponential.spec import PiecewiseExponential, ShiftExponential
from spikeplug.primitives.interpolation.simulate import interpolate, ordered, read, summed
from spikeplug.primitives.product.simulate import gate


def mantissa(distance: Tensor, spec: ShiftExponential, scope: Scope) -> Tensor:
    """Return 2^-f as an int32 of `spec.weight_bits` fraction bits, f being the fractional part of `distance`.

    distance: int32, at least 0, with `spec.fraction_bits` fraction bits. Neurons interpolate in a table of 2^-f.
    """
    fraction = distance & ((1 << spec.fraction_bits) - 1)
    return interpolate(fraction, spec.table, scope)


def decay(weight: Tensor, octaves: Tensor, scope: Scope) -> Tensor:
    """Return floor(weight · 2^-octaves) for weight >= 0: a neuron per element halves it `octaves` times."""
    longest = int(octaves.max()) if octaves.numel() else 0
    width = torch.iinfo(weight.dtype).bits
    steps = min(longest, width)  # after `width` halvings every non-negative weight is 0
    weight, octaves = torch.broadcast_tensors(weight, octaves)
    decayed = torch.empty_like(weight, memory_format=torch.contiguous_format)
    scope.population("accumulator", width, weight.numel()).steps += steps
    for start, places, membrane in blocks(scope, weight, octaves, decayed):
        membrane.copy_(start)
        places = places.clamp(max=steps).to(membrane.dtype)
        leaking = torch.empty_like(membrane)
        for step in range(steps):
            torch.gt(places, step, out=leaking)
            integrate(membrane, 0, scope, leak=-1, leaking=leaking)
    return decayed


def power_of_half(distance: Tensor, spec: ShiftExponential, scope: Scope) -> Tensor:
    """Return 2^-distance as integers of `spec.weight_bits` fraction bits.

    distance: int32, at least 0, with `spec.fraction_bits` fraction bits.
    """
    return decay(mantissa(distance, spec, scope), distance >> spec.fraction_bits, scope / "decay")


def piecewise(x: Tensor, spec: PiecewiseExponential, scope: Scope) -> Tensor:
    """Return exp(x), int64 with `spec.output_bits` fraction bits, by chords of exp between the knots of `spec`.

    x: integers with `spec.fraction_bits` fraction bits.
    The result is 0 below the first knot, and constant above the last.
    One neuron per knot, with the knot as threshold, finds the segment.
    Gating then computes intercept + slope · (x - knot).
    """
    x = x.to(torch.int64)
    reached = ordered(x, spec.knots, 31, scope / "segment")
    inside = (reached - 1).clamp(0, spec.segments - 1)
    device = x.device
    tables = {
        "knot": spec.knots,
        "intercept": spec.intercepts,
        "slope": tuple(m for m, _ in spec.slopes),
        "places": tuple(s for _, s in spec.slopes),
    }
    start, intercept, slope, places = (
        read(torch.tensor(table, device=device), inside, scope / name) for name, table in tables.items()
    )
    # Beyond the last knot the slope's input is gated off: the result is the last intercept.
    within = (reached >= 1) & (reached <= spec.segments)
    offset = (x - start) * within
    widest = max(right - left for left, right in zip(spec.knots, spec.knots[1:], strict=False))
    rise = gate(offset, slope, widest.bit_length(), scope / "rise")
    halved = decay(rise, places.clamp(min=0), scope / "decay")
    rise = torch.where(places >= 0, halved, rise << (-places).clamp(min=0))
    bits = max(spec.intercepts).bit_length() + 1  # a chord of rounded slope may end above the next knot
    value = torch.where(reached > spec.segments, spec.intercepts[-1], summed(rise, intercept, bits, scope / "chord"))
    return value * (reached >= 1)
