"""Keep vectors of few levels in bytes: what a cache of keys and values holds.

A vector of d channels is d levels, int8, and then its step and its exponent, int16 each: d + 4 bytes, on which whatever
moves rows (concatenation, selection, repetition) has no effect.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.codes.coded import scaled

#: Most levels that are packed.
MOST_PACKED = 127
#: Bytes after a vector's levels.
STEP_BYTES = 4
#: Stands for the step of a vector that has no code, because an element was NaN or infinite.
NO_STEP = -1


def pack(mantissa: Tensor, step: Tensor, exponent: Tensor) -> Tensor:
    """Return vectors mantissa · step · 2^exponent in bytes, int8 (..., d + 4).

    mantissa  integers (..., d), |mantissa| <= MOST_PACKED
    step      integers (..., 1) below 2^15, or NO_STEP;  exponent: integers (..., 1) of 16 bits
    """
    scale = torch.cat([step, exponent], -1).to(torch.int16).view(torch.int8)
    return torch.cat([mantissa.to(torch.int8), scale], -1)


def is_packed(x: Tensor) -> bool:
    """Return whether a tensor holds vectors in bytes: no other int8 tensor is given to an operator in their place."""
    return x.dtype is torch.int8


def levels_of(x: Tensor) -> Tensor:
    """Return the levels of packed vectors (..., d), a view; any other tensor as it is."""
    return x[..., :-STEP_BYTES] if is_packed(x) else x


def unpacked(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the numbers of packed vectors in `dtype` (float32 or float64); any other tensor as it is.

    They are those that were packed, bit for bit; a vector without a code is NaN.
    """
    if not is_packed(x):
        return x
    scale = x[..., -STEP_BYTES:].contiguous().view(torch.int16).to(torch.int64)
    step, exponent = scale[..., :1], scale[..., 1:]
    return scaled(levels_of(x) * step, exponent, dtype).masked_fill(step == NO_STEP, torch.nan)
