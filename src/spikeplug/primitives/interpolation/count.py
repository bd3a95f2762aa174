"""Predict what the neurons of an interpolation do. No time step runs."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.neurons import Needs, Scope, reached
from spikeplug.primitives.compare import count as compare
from spikeplug.primitives.interpolation import closed
from spikeplug.primitives.interpolation.simulate import read
from spikeplug.primitives.interpolation.spec import Interpolation
from spikeplug.primitives.product import count as product


def interpolate(x: Tensor, spec: Interpolation, scope: Scope) -> Tensor:
    """Return the function that `spec` tabulates, interpolated at each integer 0 <= x <= spec.domain.

    The number of the segment is the number of its neurons that fire. The rest of x gates the rise.
    """
    answer = closed.interpolate(x, spec)
    x = x.to(torch.int64)
    segment = (x >> spec.rest_bits).clamp(max=spec.segments - 1)
    compare.ordered(x, spec.segments - 1, int(segment.sum()), spec.domain.bit_length() + 1, scope / "segment")
    knots = closed.knots_of(spec, x.device)
    left, right = (read(knots, place, scope / "knots") for place in (segment, segment + 1))
    product.gated(x - (segment << spec.rest_bits), right - left, spec.rest_bits + 1, scope / "rise")
    summed(left, max(map(abs, spec.knots)).bit_length(), scope / "chord")
    return answer


def summed(start: Tensor, bits: int, scope: Scope) -> None:
    """Count the step in which a neuron per element, which holds its rise, receives `start`."""
    population = scope.population("accumulator", bits + 1, start.numel(), Needs(arriving_bits=bits))
    population.updated(start.numel(), reached(start, start))
    population.steps += 1
