"""Build interpolations: ordered neurons find the segment, and the remaining bits gate the chord's rise."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from spikeplug.circuit import Gate, Place, StageBuilder, held
from spikeplug.primitives.interpolation.closed import output_dtype
from spikeplug.primitives.interpolation.spec import Interpolation
from spikeplug.primitives.product.circuit import multiplied


def interpolate(x: Tensor, spec: Interpolation, scope: Place) -> Tensor:
    """Return the function that `spec` tabulates, interpolated at each integer 0 <= x <= spec.domain.

    One neuron per inner knot finds the segment. Two table reads and one gated product follow.
    """
    thresholds = [j << spec.rest_bits for j in range(1, spec.segments)]
    knots = spec.knots
    rises = [right - left for left, right in pairwise(knots)]
    builder = scope.builder

    def build(_: StageBuilder, x: int) -> int:
        segment = ordered(x, thresholds, spec.domain.bit_length(), scope / "segment")
        start, rise, sign = (
            builder.read(f"{scope.name}/{part}", table, segment)
            for part, table in (
                ("knots", knots[:-1]),
                ("rises", [abs(rise) for rise in rises]),
                ("signs", [-1 if rise < 0 else 0 for rise in rises]),
            )
        )
        rest = offset(x, segment, spec.rest_bits, scope / "rest")
        product = multiplied((scope / "rise").stage(), rest, rise, spec.rest_bits + 1)
        stage = (scope / "chord").stage()
        negative = stage.train("sign", sign, "negative")
        chord = stage.neuron("", "accumulator", max(map(abs, knots)).bit_length() + 1, start=(held(start),))
        stage.synapse(chord, held(product, 1, spec.rest_bits), Gate(negative, closes=True))
        stage.synapse(chord, held(product, -1, spec.rest_bits), negative)
        return stage.settled(chord, 1, min(knots), max(knots))

    return scope.each(build, x, dtype=output_dtype(spec))


def ordered(x: int, thresholds: Sequence[int], bits: int, scope: Place) -> int:
    """Return the signal of how many of `thresholds` the signal |x| < 2^bits reaches, by one neuron each in one step."""
    stage = scope.stage()
    train = stage.train("operand", x, "graded")
    neurons = [stage.neuron("", "threshold", bits + 1, leak=None, threshold=(t,)) for t in thresholds]
    for neuron in neurons:
        stage.synapse(neuron, 1, train)
    return stage.counted(neurons)


def offset(x: int, segment: int, places: int, scope: Place) -> int:
    """Return the signal x - segment · 2^places: how far x lies beyond the knot of its segment."""
    stage = scope.stage()
    rest = stage.neuron("", "accumulator", scope.bounds(x)[1].bit_length() + 1, start=(held(x),))
    stage.synapse(rest, held(segment, -(1 << places)))
    return stage.settled(rest, 1, 0, 1 << places)
