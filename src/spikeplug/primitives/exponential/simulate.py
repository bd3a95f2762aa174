"""Both exponentials by neurons: a population finds the segment, gated adds climb it, a leak of 1/2 shifts."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.neurons import Events, integrate, lif_step
from spikeplug.primitives.exponential.spec import PiecewiseExponential, ShiftExponential
from spikeplug.primitives.product.simulate import gate


def mantissa(distance: Tensor, spec: ShiftExponential, events: Events) -> Tensor:
    """2^-f in Q(P): S - 1 ordered neurons choose the segment, the rest's bits gate the slope. int32 as `closed`."""
    fraction = (distance & ((1 << spec.fraction_bits) - 1)).to(torch.int64)
    starts = [j << spec.rest_bits for j in range(1, spec.segments)]
    segment = _segment(fraction, starts, events)
    knots = torch.tensor(spec.knots, dtype=torch.int64, device=distance.device)
    left, right = _read(knots, segment, events), _read(knots, segment + 1, events)
    rest = fraction - (segment << spec.rest_bits)
    fall = gate(rest, left - right, spec.rest_bits, events)
    return (left - (fall >> spec.rest_bits)).to(torch.int32)


def decay(weight: Tensor, octaves: Tensor, events: Events) -> Tensor:
    """A neuron with leak 1/2 for as many steps as there are octaves: floor(floor(w/2)/2)... = w >> octaves."""
    longest = int(octaves.max()) if octaves.numel() else 0
    width = torch.iinfo(weight.dtype).bits
    membrane = weight
    for step in range(min(longest, width)):  # after `width` halvings every non-negative weight is 0
        halved = integrate(membrane, 0, events, leak=-1)
        membrane = torch.where(octaves > step, halved, membrane)
    events.steps += min(longest, width)
    return membrane


def power_of_half(distance: Tensor, spec: ShiftExponential, events: Events) -> Tensor:
    """2^-(distance / 2^F) in Q(P)."""
    return decay(mantissa(distance, spec, events), distance >> spec.fraction_bits, events)


def piecewise(x: Tensor, spec: PiecewiseExponential, events: Events) -> Tensor:
    """exp(x / 2^F) in Q(P): K + 1 ordered neurons at the knots, then intercept + slope · (x - knot) by gating."""
    x = x.to(torch.int64)
    reached = _segment(x, list(spec.knots), events)
    inside = (reached - 1).clamp(0, spec.segments - 1)
    device = x.device
    start = _read(torch.tensor(spec.knots, device=device), inside, events)
    intercept = _read(torch.tensor(spec.intercepts, device=device), inside, events)
    slope = _read(torch.tensor([m for m, _ in spec.slopes], device=device), inside, events)
    places = _read(torch.tensor([s for _, s in spec.slopes], device=device), inside, events)
    # Beyond the last knot the slope's input is gated off: the answer is the last intercept.
    within = (reached >= 1) & (reached <= spec.segments)
    offset = (x - start) * within
    widest = max(right - left for left, right in zip(spec.knots, spec.knots[1:], strict=False))
    rise = gate(offset, slope, widest.bit_length(), events)
    rise = torch.where(places >= 0, decay(rise, places.clamp(min=0), events), rise << (-places).clamp(min=0))
    value = torch.where(reached > spec.segments, spec.intercepts[-1], intercept + rise)
    return value * (reached >= 1)


def _segment(x: Tensor, thresholds: list[int], events: Events) -> Tensor:
    """How many ordered neurons x reaches: a population code of the segment. One step."""
    order = torch.tensor(thresholds, dtype=torch.int64, device=x.device)
    resting = torch.zeros(*x.shape, len(thresholds), dtype=torch.int64, device=x.device)
    spikes, _ = lif_step(resting, x.unsqueeze(-1), order, events)
    events.steps += 1
    return spikes.sum(-1)


def _read(table: Tensor, index: Tensor, events: Events) -> Tensor:
    events.table_reads += index.numel()
    return table[index]
