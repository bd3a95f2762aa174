"""Division, neuron by neuron and step by step: the ordered-threshold group and the restoring neuron."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, repeat

import torch
from torch import Tensor

from spikeplug.coding import count_code, phases
from spikeplug.neurons import Events, blocks, integrate, lif_step
from spikeplug.primitives.divide.spec import DivideSpec

#: Membranes simulated at once; groups beyond wait their turn, for memory's sake only.
_MEMBRANES = 1 << 22


def ordered_group(
    numerator: Tensor, denominator: Tensor, spec: DivideSpec, events: Events, *, steps: int = 1
) -> Tensor:
    """N = spec.largest neurons in static form; the number that fires is the quotient.

    Neuron i holds v_i = Σ_t 2·2^n·A(t) - 2i·B(t) over `steps` steps of count-coded operands. In the last step a go
    axon adds +1 and neuron i fires iff v_i >= 1, that is iff 2^n·A >= i·B. The go spike is relayed by the denominator's
    own spikes: no denominator, no spike.
    """
    spec.check(numerator, denominator)
    numerator, denominator = torch.broadcast_tensors(numerator.to(torch.int64), denominator.to(torch.int64))
    pairs = zip(
        *(x.reshape(-1).split(max(1, _MEMBRANES // spec.largest)) for x in (numerator, denominator)), strict=True
    )
    groups = [_ordered_groups(a, b, spec, events, steps) for a, b in pairs]
    events.steps += steps + 1  # the groups of all elements run side by side
    return torch.cat(groups).view(numerator.shape) if groups else torch.zeros_like(numerator)


def _ordered_groups(numerator: Tensor, denominator: Tensor, spec: DivideSpec, events: Events, steps: int) -> Tensor:
    order = torch.arange(1, spec.largest + 1, device=numerator.device)
    membrane = torch.zeros(*numerator.shape, spec.largest, dtype=torch.int64, device=numerator.device)
    arrived = torch.zeros_like(denominator)
    for part_a, part_b in zip(_graded(numerator, steps), _graded(denominator, steps), strict=True):
        events.input(part_a, fan_out=spec.largest)
        events.input(part_b, fan_out=spec.largest)
        arrived += part_b
        current = (part_a.unsqueeze(-1) << (spec.fraction_bits + 1)) - 2 * order * part_b.unsqueeze(-1)
        integrate(membrane, current, events)
    go = (arrived > 0).unsqueeze(-1)
    events.input(go, fan_out=spec.largest)
    spikes, _ = lif_step(membrane, go.to(torch.int64), 1, events, enabled=go)
    return spikes.sum(-1)


def restoring_neuron(numerator: Tensor, denominator: Tensor, spec: DivideSpec, events: Events) -> Tensor:
    """One neuron with leak ×2, threshold B and soft reset; its spike train is the binary expansion of A/B.

    The numerator arrives phase-coded (most significant bit first), then n empty steps follow. v < B after every
    reset, so v stays below 2B: the state needs denominator_bits + 1 bits. The read-out saturates at `limit`.
    """
    spec.check(numerator, denominator)
    numerator, denominator = torch.broadcast_tensors(numerator, denominator)
    answer = torch.zeros(numerator.shape, dtype=torch.int64, device=numerator.device)
    for a, b, target in blocks(events, numerator, denominator, answer):
        dtype = _state_dtype(a, b, spec)
        present = b > 0
        # A silent neuron without a denominator must not grow either; its input is gated by the same go axon.
        enabled = True if bool(present.all()) else present
        threshold = b.to(dtype)
        membrane, quotient = torch.zeros_like(threshold), torch.zeros_like(threshold)
        arriving: Iterator[Tensor | None] = chain(
            phases(a, spec.numerator_bits, dtype), repeat(None, spec.fraction_bits)
        )
        for bit in arriving:
            if bit is not None:
                events.input(bit, fan_out=1, graded=False)
            spikes, membrane = lif_step(membrane, 0 if bit is None else bit, threshold, events, leak=1, enabled=enabled)
            if enabled is not True:
                membrane *= enabled
            integrate(quotient, spikes, events, leak=1)
        target.copy_(quotient).clamp_(max=spec.largest)
    events.steps += spec.numerator_bits + spec.fraction_bits
    return answer


def _state_dtype(numerator: Tensor, denominator: Tensor, spec: DivideSpec) -> torch.dtype:
    """int32, twice as fast, where it holds the numerator, the membrane (below 2B) and the quotient, not yet clamped."""
    if numerator.numel() == 0 or spec.numerator_bits > 31 or spec.denominator_bits > 30:
        return torch.int64
    # The quotient's neuron only grows, to floor(2^n·A / B), which is largest for the largest A over the smallest B.
    largest = (int(numerator.max()) << spec.fraction_bits) // max(1, int(denominator.min()))
    return torch.int32 if largest < 1 << 31 else torch.int64


def _graded(values: Tensor, steps: int) -> Tensor:
    """A count code whose L is as large as the operand needs."""
    largest = int(values.max()) if values.numel() else 0
    return count_code(values, steps, max(1, -(-largest // steps)))
