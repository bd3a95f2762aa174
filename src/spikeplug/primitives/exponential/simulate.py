"""Both exponentials by neurons: a population finds the segment, gated adds climb it, a leak of 1/2 shifts."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.neurons import Events, blocks, integrate
from spikeplug.primitives.exponential.spec import PiecewiseExponential, ShiftExponential
from spikeplug.primitives.interpolation.simulate import interpolate, ordered, read
from spikeplug.primitives.product.simulate import gate


def mantissa(distance: Tensor, spec: ShiftExponential, events: Events) -> Tensor:
    """2^-f in Q(P), int32 as `closed`."""
    fraction = distance & ((1 << spec.fraction_bits) - 1)
    return interpolate(fraction, spec.table, events)


def decay(weight: Tensor, octaves: Tensor, events: Events) -> Tensor:
    """A neuron with leak 1/2 for as many steps as there are octaves: floor(floor(w/2)/2)... = w >> octaves."""
    longest = int(octaves.max()) if octaves.numel() else 0
    steps = min(longest, torch.iinfo(weight.dtype).bits)  # after so many halvings every non-negative weight is 0
    decayed = torch.empty_like(weight, memory_format=torch.contiguous_format)
    for start, places, membrane in blocks(events, weight, octaves, decayed):
        membrane.copy_(start)
        places = places.clamp(max=steps).to(membrane.dtype)
        leaking = torch.empty_like(membrane)
        for step in range(steps):
            halved = integrate(membrane.clone(), 0, events, leak=-1)
            # In integers, several times as fast as torch.where: 1 for a neuron that still leaks.
            torch.gt(places, step, out=leaking)
            membrane += (halved - membrane) * leaking
    events.steps += steps
    return decayed


def power_of_half(distance: Tensor, spec: ShiftExponential, events: Events) -> Tensor:
    """2^-(distance / 2^F) in Q(P)."""
    return decay(mantissa(distance, spec, events), distance >> spec.fraction_bits, events)


def piecewise(x: Tensor, spec: PiecewiseExponential, events: Events) -> Tensor:
    """exp(x / 2^F) in Q(P): K + 1 ordered neurons at the knots, then intercept + slope · (x - knot) by gating."""
    x = x.to(torch.int64)
    reached = ordered(x, list(spec.knots), events)
    inside = (reached - 1).clamp(0, spec.segments - 1)
    device = x.device
    start = read(torch.tensor(spec.knots, device=device), inside, events)
    intercept = read(torch.tensor(spec.intercepts, device=device), inside, events)
    slope = read(torch.tensor([m for m, _ in spec.slopes], device=device), inside, events)
    places = read(torch.tensor([s for _, s in spec.slopes], device=device), inside, events)
    # Beyond the last knot the slope's input is gated off: the answer is the last intercept.
    within = (reached >= 1) & (reached <= spec.segments)
    offset = (x - start) * within
    widest = max(right - left for left, right in zip(spec.knots, spec.knots[1:], strict=False))
    rise = gate(offset, slope, widest.bit_length(), events)
    rise = torch.where(places >= 0, decay(rise, places.clamp(min=0), events), rise << (-places).clamp(min=0))
    value = torch.where(reached > spec.segments, spec.intercepts[-1], intercept + rise)
    return value * (reached >= 1)
