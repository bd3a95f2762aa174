"""Multiply and add integers in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.fixedpoint import matrix_product


def gate(spikes: Tensor, value: Tensor) -> Tensor:
    """Return spikes · value, elementwise; int64."""
    return spikes.to(torch.int64) * value


def accumulate(weight: Tensor) -> Tensor:
    """Return the sum of `weight` along the last dimension, int64; (..., k) gives (..., 1)."""
    return weight.sum(-1, keepdim=True, dtype=torch.int64)


def dot(weight: Tensor, value: Tensor, weight_bits: int, value_bits: int) -> Tensor:
    """Return weight (..., m, k) @ value (..., k, n), exact; int64.

    |weight| <= 2^weight_bits, |value| <= 2^value_bits.
    """
    return matrix_product(weight, value, weight_bits, value_bits)
