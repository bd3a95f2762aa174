"""Compare integers by neurons: a race of phase codes, an ordered population, a single threshold."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.neurons import Scope, blocks, integrate, lif_step, population_step, reached, row_blocks


def maximum(x: Tensor, bits: int, scope: Scope) -> Tensor:
    """Return the largest x along the last dimension, kept with size 1, for integers |x| <= 2^bits, by a race.

    Each element sends the phase code of x + 2^bits, most significant bit first: bits + 2 steps.
    In each step, a neuron that is still in the race fires if its bit is 1.
    One winner neuron per row fires if any of them fired, and takes those out of the race that did not fire.
    The spike train of the winner is the phase code of the largest element.
    """
    racers, steps = x.shape[-1], bits + 2
    if racers == 1:
        return x  # one element: nothing to compare
    largest = torch.empty_like(x[..., :1])
    dtype = torch.int32 if steps <= 31 else torch.int64
    race, winner = scope / "race", scope / "winner"
    race.population("threshold", 2, x.numel())
    winner.population("threshold", racers.bit_length() + 1, largest.numel())
    scope.population("accumulator", min(steps + 1, 64), largest.numel()).steps += steps
    for part, target in row_blocks(scope, x, largest):
        code = part.to(dtype) + (1 << bits)
        racing, best = torch.ones_like(code), torch.zeros_like(code[..., :1])
        for place in range(bits + 1, -1, -1):
            # A neuron out of the race is inhibited: it stays silent even if its bit is 1.
            # Race and winner neurons start every step at 0, with what arrives: nothing is carried over.
            bit = (code >> place).bitwise_and_(1)
            fired, _ = lif_step(bit, 0, 1, race, enabled=racing, driven=int(bit.sum(dtype=torch.int32)))
            arrived = fired.sum(-1, keepdim=True, dtype=dtype)
            won, _ = lif_step(arrived, 0, 1, winner, fan_out=racers + 1, driven=reached(arrived, arrived))
            racing = racing.bitwise_and_(1 - won).bitwise_or_(fired)
            integrate(best, won, scope, leak=1)
        target.copy_(best - (1 << bits))
    return largest


def leading_one(x: Tensor, bits: int, scope: Scope) -> Tensor:
    """Return the number of binary digits of each integer 0 <= x < 2^bits (0 for 0), int64.

    Each element has one neuron per power of two, with that power as threshold. In one step, those that x reaches fire.
    """
    position = torch.empty(x.shape, dtype=torch.int64, device=x.device)
    scope.population("threshold", bits + 1, x.numel() * bits).steps += 1
    for current, target in blocks(scope, x.to(torch.int64), position):
        target.copy_(population_step(current, [1 << place for place in range(bits)], scope))
    return position


def reaches(x: Tensor, threshold: Tensor | int, bits: int, scope: Scope) -> Tensor:
    """Return a bool tensor: whether x >= threshold, for integers of at most 2^bits in magnitude that broadcast.

    One neuron per element decides it in one time step.
    """
    wide = x.to(torch.int64)
    if isinstance(threshold, Tensor):
        wide, threshold = torch.broadcast_tensors(wide, threshold)
    scope.population("threshold", bits + 2, wide.numel()).steps += 1
    membrane = wide.clone(memory_format=torch.contiguous_format)
    fired, _ = lif_step(membrane, 0, threshold, scope, driven=reached(membrane, membrane))
    return fired.to(torch.bool)
