"""Integers that break arithmetic: powers of two and their neighbours, extremes, seeded randoms of every magnitude."""

from __future__ import annotations

import torch
from torch import Tensor


def edges(bits: int) -> list[int]:
    """0, 2^bits - 1 and every 2^k + {-2..2} in [0, 2^bits)."""
    near = {(1 << k) + offset for k in range(bits + 1) for offset in (-2, -1, 0, 1, 2)}
    return sorted(value for value in near if 0 <= value < 1 << bits)


def integers(count: int, bits: int, seed: int = 0) -> Tensor:
    """`count` int64 in [0, 2^bits): the edges, then randoms uniform in magnitude (log-uniform)."""
    generator = torch.Generator().manual_seed(seed)
    widths = torch.randint(1, bits + 1, (count,), generator=generator)
    values = torch.randint(0, 1 << 62, (count,), generator=generator) & ((1 << widths) - 1)
    special = torch.tensor(edges(bits))
    values[: min(count, len(special))] = special[:count]
    return values[torch.randperm(count, generator=generator)]


def all_pairs(bits: int) -> tuple[Tensor, Tensor]:
    """Every (a, b) with both in [0, 2^bits)."""
    values = torch.arange(1 << bits)
    grid = torch.cartesian_prod(values, values)
    return grid[:, 0], grid[:, 1]


def edge_pairs(count: int, a_bits: int, b_bits: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Every pair of edges, then random pairs up to `count`."""
    grid = torch.cartesian_prod(torch.tensor(edges(a_bits)), torch.tensor(edges(b_bits)))
    rest = max(0, count - len(grid))
    a = torch.cat([grid[:, 0], integers(rest, a_bits, seed)])
    b = torch.cat([grid[:, 1], integers(rest, b_bits, seed + 1)])
    return a, b
