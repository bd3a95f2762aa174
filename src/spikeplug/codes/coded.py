"""Carry an integer together with its format: mantissa, exponent, bits and granularity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from spikeplug.errors import SpikeplugError

MANTISSA_BITS = {torch.float32: 23, torch.float64: 52}
BIAS = {torch.float32: 127, torch.float64: 1023}
INTEGER = {torch.float32: torch.int32, torch.float64: torch.int64}

#: Which elements share an exponent: all (a fixed step), a vector along the last dimension, a block, or none.
Granularity = Literal["fixed", "vector", "block", "element"]


@dataclass(frozen=True)
class Coded:
    """Numbers as integers: x = mantissa · 2^exponent.

    mantissa     int32 or int64, of x's shape
    exponent     int32 or int64, broadcastable to the mantissa: (..., 1) per vector, () if fixed, else as the mantissa
    bits         |mantissa| <= 2^bits
    granularity  which elements share an exponent
    nonfinite    bool, the elements that have no code (their mantissa is 0), or None
    """

    mantissa: Tensor
    exponent: Tensor
    bits: int
    granularity: Granularity
    nonfinite: Tensor | None = None

    def __getitem__(self, place: object) -> Coded:
        """Return the part at `place` of a code with one exponent per vector; `nonfinite` is dropped."""
        return Coded(self.mantissa[place], self.exponent[place], self.bits, self.granularity)  # type: ignore[index]


def fixed(mantissa: Tensor, fraction_bits: int, bits: int) -> Coded:
    """Return the code of the numbers mantissa · 2^-fraction_bits, which all share this one exponent.

    bits: the caller guarantees |mantissa| <= 2^bits.
    """
    exponent = torch.tensor(-fraction_bits, dtype=torch.int32, device=mantissa.device)
    return Coded(mantissa, exponent, bits, "fixed")


def as_real(x: Tensor, operator: str) -> Tensor:
    """Return x as float32 or float64, for encoding. Errors: SpikeplugError if it is not a floating-point tensor."""
    if not isinstance(x, Tensor):
        raise SpikeplugError(f"{operator} takes a torch tensor, not a {type(x).__name__}; use torch.as_tensor first.")
    if not x.dtype.is_floating_point:
        raise SpikeplugError(f"{operator} takes a floating-point tensor, not {x.dtype}; call .float() first.")
    if x.layout != torch.strided or x.is_nested:
        raise SpikeplugError(
            f"{operator} takes a dense tensor, not a {'nested' if x.is_nested else 'sparse'} one; call .to_dense(), or "
            "torch.nested.to_padded_tensor, first."
        )
    return x if x.dtype in BIAS else x.to(torch.float32)


def power_of_two(exponent: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 2^exponent exactly, in `dtype` (float32 or float64); beyond the normal numbers, the nearest power."""
    bias = BIAS[dtype]
    biased = (exponent.to(INTEGER[dtype]) + bias).clamp(1, 2 * bias)
    return (biased << MANTISSA_BITS[dtype]).view(dtype)


def scaled(x: Tensor, exponent: Tensor, dtype: torch.dtype) -> Tensor:
    """Return x · 2^exponent in float32 or float64; exact while |x| fits the dtype's significand.

    The scale is applied in two halves, so that a result within range is not lost to a scale beyond it.
    """
    half = exponent >> 1
    return x.to(dtype) * power_of_two(half, dtype) * power_of_two(exponent - half, dtype)


def decode(code: Coded, dtype: torch.dtype) -> Tensor:
    """Return the numbers of a code, mantissa · 2^exponent, in `dtype` (float32 or float64)."""
    return scaled(code.mantissa, code.exponent, dtype)


def affine(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Return x · weight + bias for real numbers; None leaves a factor or term out. No neuron is needed for either."""
    x = x if weight is None else x * weight
    return x if bias is None else x + bias
