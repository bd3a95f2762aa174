"""Interpolation by neurons: an ordered population finds the segment, the rest's bits gate the chord's rise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spikeplug.neurons import Events, blocks, population_step
from spikeplug.primitives.interpolation.closed import output_dtype
from spikeplug.primitives.interpolation.spec import Interpolation
from spikeplug.primitives.product.simulate import gate


def interpolate(x: Tensor, spec: Interpolation, events: Events) -> Tensor:
    """The chords of `spec` at x, as `closed`: S - 1 ordered neurons, two table reads, one gated product."""
    x = x.to(torch.int64)
    segment = ordered(x, [j << spec.rest_bits for j in range(1, spec.segments)], events)
    knots = torch.tensor(spec.knots, dtype=torch.int64, device=x.device)
    left, right = read(knots, segment, events), read(knots, segment + 1, events)
    # The domain's end lies on the last knot, a whole segment from the last but one: hence one bit more.
    rise = gate(x - (segment << spec.rest_bits), (right - left).abs(), spec.rest_bits + 1, events)
    return (left + torch.sign(right - left) * (rise >> spec.rest_bits)).to(output_dtype(spec))


def ordered(x: Tensor, thresholds: Sequence[int], events: Events) -> Tensor:
    """How many ordered neurons x reaches: a population code of the segment; int64. One step."""
    reached = torch.empty(x.shape, dtype=torch.int64, device=x.device)
    for current, target in blocks(events, x, reached):
        target.copy_(population_step(current, thresholds, events))
    events.steps += 1
    return reached


def read(table: Tensor, index: Tensor, events: Events) -> Tensor:
    """Table entries, counted."""
    events.table_reads += index.numel()
    return torch.take(table, index)
