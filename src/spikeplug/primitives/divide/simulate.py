"""Divide by neurons, step by step: the ordered-threshold group and the restoring neuron."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, repeat

import torch
from torch import Tensor

from spikeplug.codes.spikes import count_code, phases
from spikeplug.errors import SpikeplugError
from spikeplug.neurons import Scope, blocks, integrate, lif_step, reached
from spikeplug.primitives.divide.spec import DivideSpec

#: Membranes simulated at once. This only bounds memory: no result or count depends on it.
_MEMBRANES = 1 << 22


def ordered_group(numerator: Tensor, denominator: Tensor, spec: DivideSpec, scope: Scope, *, steps: int = 1) -> Tensor:
    """Return floor(2^n·A / B), int64, as the number of neurons that fire, of N = spec.largest neurons per element.

    A is `numerator`, B `denominator`, n `spec.fraction_bits`. In `steps` steps, they arrive as spike counts A(t), B(t).
    The membrane of neuron i is v_i = Σ_t 2·2^n·A(t) - 2i·B(t).
    In the last step, a go axon adds 1. Neuron i then fires iff v_i >= 1, that is iff 2^n·A >= i·B.
    The denominator's own spikes relay the go spike: without a denominator, no neuron fires.
    Errors: SpikeplugError if a membrane would need more than 64 bits.
    """
    spec.check(numerator, denominator)
    numerator, denominator = torch.broadcast_tensors(numerator.to(torch.int64), denominator.to(torch.int64))
    pairs = zip(
        *(x.reshape(-1).split(max(1, _MEMBRANES // spec.largest)) for x in (numerator, denominator)), strict=True
    )
    # i·B <= N·B, which has the bits of N - 1 plus those of B.
    width = max(spec.numerator_bits + spec.fraction_bits, (spec.largest - 1).bit_length() + spec.denominator_bits) + 2
    if width > 64:
        raise SpikeplugError(
            f"an ordered group of {spec.largest:,} neurons for denominators of {spec.denominator_bits} bits needs "
            f"membranes of {width} bits, more than the 64 that can be simulated: use division='restoring'."
        )
    group = scope.population("threshold", width, numerator.numel() * spec.largest)
    for name, bits in (("numerator", spec.numerator_bits), ("denominator", spec.denominator_bits)):
        (scope / name).population("input", -(-(1 << bits) // steps), numerator.numel())
    (scope / "go").population("input", 1, numerator.numel())
    groups = [_ordered_groups(a, b, spec, scope, steps) for a, b in pairs]
    group.steps += steps + 1  # the groups of all elements run side by side
    return torch.cat(groups).view(numerator.shape) if groups else torch.zeros_like(numerator)


def _ordered_groups(numerator: Tensor, denominator: Tensor, spec: DivideSpec, scope: Scope, steps: int) -> Tensor:
    order = torch.arange(1, spec.largest + 1, device=numerator.device)
    membrane = torch.zeros(*numerator.shape, spec.largest, dtype=torch.int64, device=numerator.device)
    present = torch.zeros_like(denominator)
    group = scope.population("threshold")
    for part_a, part_b in zip(_graded(numerator, steps), _graded(denominator, steps), strict=True):
        for name, part in (("numerator", part_a), ("denominator", part_b)):
            (scope / name).population("input").send(part, spec.largest)
        present += part_b
        membrane += (part_a.unsqueeze(-1) << (spec.fraction_bits + 1)) - 2 * order * part_b.unsqueeze(-1)
        group.updated(membrane.numel(), reached(membrane, part_a + part_b))
        scope.observe(group, membrane)
    go = (present > 0).unsqueeze(-1)
    (scope / "go").population("input").send(go, spec.largest)
    spikes, _ = lif_step(membrane, go.to(torch.int64), 1, scope, enabled=go)
    return spikes.sum(-1)


def restoring_neuron(numerator: Tensor, denominator: Tensor, spec: DivideSpec, scope: Scope) -> Tensor:
    """Return floor(2^n·A / B), int64, from the spike train of one neuron per element.

    A is `numerator`, B `denominator`, n `spec.fraction_bits`. The neuron doubles its membrane v at each step.
    It fires where v >= B, and then subtracts B. Its spike train is the binary expansion of A/B.
    The bits of A arrive one per step, the most significant first. Then n steps without input follow.
    After every reset v < B, so v stays below 2B: the state needs denominator_bits + 1 bits and a sign.
    The quotient saturates at `spec.limit`.
    """
    spec.check(numerator, denominator)
    numerator, denominator = torch.broadcast_tensors(numerator, denominator)
    answer = torch.zeros(numerator.shape, dtype=torch.int64, device=numerator.device)
    size = numerator.numel()
    neuron = scope.population("threshold", spec.denominator_bits + 2, size)
    readout, train = scope / "quotient", (scope / "numerator").population("input", 1, size)
    # One bit for the sign. A read-out that saturates needs one more, for its value before the clamp.
    readout.population("accumulator", spec.largest.bit_length() + (1 if spec.limit is None else 2), size)
    for a, b, target in blocks(scope, numerator, denominator, answer):
        highest = _highest(a, b, spec)
        # int32, twice as fast, if it holds the numerator, the membrane (below 2B) and the quotient.
        small = (
            spec.numerator_bits <= 31 and spec.denominator_bits <= 30 and min(highest, 2 * spec.largest + 1) < 1 << 31
        )
        dtype = torch.int32 if small else torch.int64
        present = b > 0
        # The membrane of a neuron without a denominator must not grow: the same go axon gates its input.
        enabled = True if bool(present.all()) else present
        threshold = b.to(dtype)
        membrane, quotient = torch.zeros_like(threshold), torch.zeros_like(threshold)
        bits: Iterator[Tensor | None] = chain(phases(a, spec.numerator_bits, dtype), repeat(None, spec.fraction_bits))
        for bit in bits:
            if bit is not None:
                train.send(bit, graded=False)
            spikes, membrane = lif_step(membrane, 0 if bit is None else bit, threshold, scope, leak=1, enabled=enabled)
            if enabled is not True:
                membrane *= enabled
            integrate(quotient, spikes, readout, leak=1)
            if highest > spec.largest:
                quotient.clamp_(max=spec.largest)
        target.copy_(quotient)
    neuron.steps += spec.numerator_bits + spec.fraction_bits
    return answer


def _highest(numerator: Tensor, denominator: Tensor, spec: DivideSpec) -> int:
    """Return an upper bound of all quotients: the largest numerator over the smallest denominator."""
    if numerator.numel() == 0:
        return 0
    return (int(numerator.max()) << spec.fraction_bits) // max(1, int(denominator.min()))


def _graded(values: Tensor, steps: int) -> Tensor:
    """Return the count code of `values` over `steps` steps; a step has room for the spikes of the largest value."""
    largest = int(values.max()) if values.numel() else 0
    return count_code(values, steps, max(1, -(-largest // steps)))
