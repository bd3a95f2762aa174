"""Draw operands of integer functions: what the circuits of operators and verbs are tried on."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.operators.operands import Give


def drawn(operands: dict[str, Tensor], cases: int, seed: int = 0) -> Give:
    """Return what gives random integers (cases, *shape), of every size and the bounds, and keeps them in `operands`."""
    generator = torch.Generator().manual_seed(seed)

    def give(name: str, shape: tuple[int, ...], low: int, high: int, full: bool) -> Tensor:
        size = (cases, *shape)
        x = torch.randint(low, high + 1, size, generator=generator)
        smaller = x.sign() * (x.abs() >> torch.randint(0, high.bit_length() + 1, size, generator=generator))
        x = torch.where(torch.rand(size, generator=generator) < 0.5, x, smaller).clamp(low, high)
        if full:  # their magnitude has the most bits, or is 0
            x = torch.where(x.abs() < 1 << (high - 1).bit_length() - 1, 0, x)
        x[0], x[1] = low, high
        operands[name] = x
        return x

    return give
