"""Rotate rows by a Hadamard matrix on a GPU, exactly: integers in float64, a matrix product per group of factors.

Codes have 24 bits and a sign, and a rotation of order up to 2^15 adds 15: every partial sum is whole and below 2^53,
so float64 holds it, in whatever order a product adds up.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: N803  (what is in capitals is known when a kernel is compiled)

from __future__ import annotations

from functools import lru_cache

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor

from spikeplug.hadamard import factors_of, hadamard
from spikeplug.kernels.gpu.integers import bit_length, decode, finite, is_finite, magnitude_bits, widened
from spikeplug.kernels.gpu.launch import block_shape, on_device
from spikeplug.operators.linear.levels import half_places
from spikeplug.operators.linear.receiver import LOWEST_EXPONENT, RECEIVED_BITS

#: What is added to the exponent of a row with NaN or infinities; they are encoded as 0.
BROKEN = tl.constexpr(1 << 20)
#: Factors are multiplied out to matrices of this order at most: fewer passes over memory, more products.
_MOST_ORDER = 128
_LOWEST = tl.constexpr(LOWEST_EXPONENT)
_BITS = tl.constexpr(RECEIVED_BITS)


def rotated_codes(x: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """Return the rows of x (rows, d) rotated, as `operators.linear.levels.rotated` does: (codes, exponents).

    codes      whole float64 (rows, d); a row is codes·2^exponent
    exponents  int32 (rows, 1); plus BROKEN for a row with NaN or infinities
    """
    count, dimension = x.shape
    codes = torch.empty(x.shape, dtype=torch.float64, device=x.device)
    exponents = torch.empty(count, 1, dtype=torch.int32, device=x.device)
    shape = block_shape(count, dimension)
    with on_device(x):
        _receive[(-(-count // shape.rows),)](
            x=x,
            codes=codes,
            exponents=exponents,
            count=count,
            dimension=dimension,
            half=half_places(order),
            ROWS=shape.rows,
            COLUMNS=shape.columns,
            num_warps=shape.warps,
            enable_fp_fusion=False,
        )
    right = order
    for matrix in matrices(order, x.device):
        size = matrix.shape[0]
        right //= size
        codes = codes.view(-1, size) @ matrix.T if right == 1 else matrix @ codes.view(-1, size, right)
    return codes.view(x.shape), exponents


@lru_cache(maxsize=64)
def matrices(order: int, device: torch.device) -> tuple[Tensor, ...]:
    """Return matrices, float64, whose Kronecker product is `hadamard(order)`; the last 64 are kept in a cache."""
    groups: list[Tensor] = []
    for factor in map(hadamard, factors_of(order)):
        if groups and groups[-1].shape[0] * factor.shape[0] <= _MOST_ORDER:
            groups[-1] = torch.kron(groups[-1], factor)
        else:
            groups.append(factor)
    return tuple(group.to(torch.float64).to(device) for group in groups)


@triton.jit
def largest_bits(place, seen):
    """Return (bits, broken), int32 (ROWS, 1), of the rows of a block.

    bits: the `magnitude_bits` of a row's largest finite number. broken: 1 if one of its numbers is not finite, else 0.
    place: pointers to the numbers. seen: bool, which of them may be loaded.
    """
    value = widened(tl.load(place, mask=seen, other=0.0))
    bits = tl.max(magnitude_bits(finite(value)), 1, keep_dims=True)
    return bits, tl.max((~is_finite(value)).to(tl.int32), 1, keep_dims=True)


@triton.jit
def largest_exponent(bits):
    """Return e with 2^(e-1) <= |x| < 2^e, int32, for a finite |x| given as `magnitude_bits`, denormal or not.

    For 0 it is that of a code whose exponent is LOWEST_EXPONENT.
    """
    exponent = tl.where(bits < (1 << 23), bit_length(bits) - 149, (bits >> 23) - 126)
    return tl.where(bits == 0, _LOWEST + _BITS, exponent)


@triton.jit
def _receive(x, codes, exponents, count, dimension, half, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    place = row * dimension + column
    here = row < count
    bits, broken = tl.zeros([ROWS, 1], tl.int32), tl.zeros([ROWS, 1], tl.int32)
    for start in range(0, dimension, COLUMNS):
        part, more = largest_bits(x + place + start, here & (column + start < dimension))
        bits, broken = tl.maximum(bits, part), tl.maximum(broken, more)
    exponent = largest_exponent(bits) - _BITS
    tl.store(exponents + row, exponent - half + broken * BROKEN, mask=here)
    for start in range(0, dimension, COLUMNS):
        seen = here & (column + start < dimension)
        value = finite(widened(tl.load(x + place + start, mask=seen, other=0.0)))
        # What lies below the unit is cut off.
        code = decode(value, -exponent).to(tl.int32)
        tl.store(codes + place + start, code.to(tl.float64), mask=seen)
