"""Build both exponentials: ordered neurons find the segment, gating adds, a leak of 1/2 shifts."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from spikeplug.circuit import Gate, Place, StageBuilder, held
from spikeplug.primitives.exponential.spec import PiecewiseExponential, ShiftExponential
from spikeplug.primitives.interpolation.circuit import interpolate, ordered
from spikeplug.primitives.product.circuit import multiplied


def mantissa(distance: Tensor, spec: ShiftExponential, scope: Place) -> Tensor:
    """Return 2^-f as an int32 of `spec.weight_bits` fraction bits, f being the fractional part of `distance`."""
    return interpolate(distance & ((1 << spec.fraction_bits) - 1), spec.table, scope)


def decay(weight: Tensor, octaves: Tensor, scope: Place) -> Tensor:
    """Return floor(weight · 2^-octaves) for weight >= 0: a neuron per element halves it `octaves` times."""
    width = torch.iinfo(weight.dtype).bits
    return scope.each(
        lambda stage, weight, octaves: halved(stage, weight, octaves, width), weight, octaves, dtype=weight.dtype
    )


def halved(stage: StageBuilder, value: int, octaves: int, width: int) -> int:
    """Return the signal of floor(value · 2^-octaves); after as many halvings as value has bits, it is 0."""
    (low, high), (least, most) = stage.builder.bounds(value), stage.builder.bounds(octaves)
    leaking = stage.train("octaves", octaves, "until")
    neuron = stage.neuron("", "accumulator", width, leak=-1, leaks_if=(Gate(leaking),), start=(held(value),))
    steps = min(most, high.bit_length())
    return stage.settled(neuron, steps, low >> min(steps, 62), high >> max(0, least))


def piecewise(x: Tensor, spec: PiecewiseExponential, scope: Place) -> Tensor:
    """Return exp(x), int64 with `spec.output_bits` fraction bits, by chords of exp between the knots of `spec`.

    One neuron per knot, with the knot as threshold, finds the segment; gating computes intercept + slope · (x - knot).
    Below the first knot the tables hold 0, and beyond the last one the slope is 0.
    """
    knots, intercepts, segments = spec.knots, spec.intercepts, spec.segments
    # Entry j belongs to j knots reached: none, a segment each, or all.
    slopes = [0, *(m for m, _ in spec.slopes), 0]
    right = [0, *(max(0, s) for _, s in spec.slopes), 0]
    left = [0, *(max(0, -s) for _, s in spec.slopes), 0]
    starts = [knots[0], *knots]
    bases = [0, *intercepts]
    widest = max(after - before for before, after in pairwise(knots))
    builder = scope.builder

    def build(_: StageBuilder, x: int) -> int:
        reached = ordered(x, knots, 31, scope / "segment")
        knot, base, slope, places, up, inside = (
            builder.read(f"{scope.name}/{part}", table, reached)
            for part, table in (
                ("knot", starts),
                ("intercept", bases),
                ("slope", slopes),
                ("places", right),
                ("left", left),
                ("inside", [0, *[1] * segments, 0]),
            )
        )
        stage = (scope / "offset").stage()
        within = stage.train("inside", inside, "positive")
        rest = stage.neuron("", "accumulator", 33)
        stage.synapse(rest, held(x), within)
        stage.synapse(rest, held(knot, -1), within)
        offset = stage.settled(rest, 1, 0, widest)
        rise = multiplied((scope / "rise").stage(), offset, slope, widest.bit_length())
        rise = halved((scope / "decay").stage(), rise, places, 64)
        if max(left):
            stage = (scope / "left").stage()
            doubling = stage.train("places", up, "until")
            wide = stage.neuron("", "accumulator", 64, leak=1, leaks_if=(Gate(doubling),), start=(held(rise),))
            rise = stage.settled(wide, max(left), 0, builder.bounds(rise)[1] << max(left))
        stage = (scope / "chord").stage()
        chord = stage.neuron("", "accumulator", max(intercepts).bit_length() + 2, start=(held(rise),))
        stage.synapse(chord, held(base))
        return stage.settled(chord, 1, 0, 2 << max(intercepts).bit_length())

    return scope.each(build, x)
