"""Compare integers by neurons: a race of phase codes, an ordered population, a single threshold."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.neurons import Scope, blocks, integrate, lif_step, population_step


def maximum(x: Tensor, bits: int, scope: Scope) -> Tensor:
    """Return max x over the last dimension, kept as 1, of |x| <= 2^bits; x's dtype.

    Each element sends the phase code of x + 2^bits, most significant bit first: bits + 2 steps.
    In each step, a neuron that is still in the race fires if its bit is 1.
    One winner neuron per row fires if any of them fired, and takes those out of the race that did not fire.
    The spike train of the winner is the phase code of the largest element.
    """
    if x.shape[-1] == 1:
        return x  # one element: nothing to compare
    code = x.to(torch.int64) + (1 << bits)
    racing = torch.ones_like(code)
    best = torch.zeros_like(code[..., :1])
    race, steps = scope / "race", bits + 2
    race.population("threshold", 2, code.numel())
    (scope / "winner").population("threshold", 2, best.numel())
    for place in range(bits + 1, -1, -1):
        # A neuron out of the race is inhibited: its membrane stays below the threshold.
        bit = (code >> place) & 1
        fired, _ = lif_step(torch.zeros_like(code), bit, 1, race, enabled=racing)
        won, _ = lif_step(
            torch.zeros_like(best), fired.amax(-1, keepdim=True), 1, scope / "winner", fan_out=x.shape[-1] + 1
        )
        racing = racing * (1 - won * (1 - bit))
        integrate(best, won, scope, leak=1, width=steps)
    scope.population("accumulator", steps, best.numel()).steps += steps
    return (best - (1 << bits)).to(x.dtype)


def leading_one(x: Tensor, bits: int, scope: Scope) -> Tensor:
    """Return the position of the leading one, plus one, of 0 <= x < 2^bits; int64.

    One neuron per power of two, one step.
    """
    position = torch.empty(x.shape, dtype=torch.int64, device=x.device)
    scope.population("threshold", bits + 1, x.numel() * bits).steps += 1
    for current, target in blocks(scope, x.to(torch.int64), position):
        target.copy_(population_step(current, [1 << place for place in range(bits)], scope))
    return position


def reaches(x: Tensor, threshold: Tensor | int, bits: int, scope: Scope) -> Tensor:
    """Return whether x >= threshold, bool, of |x| <= 2^bits. One neuron per element, one step."""
    scope.population("threshold", bits + 2, x.numel()).steps += 1
    fired, _ = lif_step(x.to(torch.int64).clone(), 0, threshold, scope)
    return fired.to(torch.bool)
