"""Encode rows in levels of a step on a GPU, as integers or numbers: see operators/linear/levels.py.

A row is read twice: its largest magnitude decides exponent and step, then every element is divided by the step. All
steps are integers of 32 bits, and quotients are those of integer division.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: N803  (what is in capitals is known when a kernel is compiled)

from __future__ import annotations

from typing import NamedTuple

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor

from spikeplug.kernels.gpu.integers import bit_length, decode, finite, rounded, shift, widened
from spikeplug.kernels.gpu.launch import block_shape, on_device
from spikeplug.kernels.gpu.rotation import BROKEN, largest_bits, largest_exponent, rotated_codes
from spikeplug.operators.linear.levels import SHARE_BITS, STEP_BITS

#: The widest block of channels with a step of its own: one program holds it whole.
_MOST_BLOCK = 256


class Levels(NamedTuple):
    """Hold rows as levels: x ≈ mantissa · step · 2^exponent.

    digits     int8 (planes, rows, d): the mantissas, or their high and low digits, 256·high + low
    steps      int32 (rows, 1); -1 for a row with NaN or infinities, which are encoded as 0
    exponents  int32 (rows, 1)
    """

    digits: Tensor
    steps: Tensor
    exponents: Tensor


def block_refusal(block: int) -> str | None:
    """Return why the GPU kernels do not encode blocks of so many channels, or None."""
    if block and (block & (block - 1) or block > _MOST_BLOCK):
        return f"blocks of {block} channels are not a power of two up to {_MOST_BLOCK}"
    return None


def encode(x: Tensor, levels: int, block: int, rotation: int, planes: int) -> Levels:
    """Return the levels of the rows of x (rows, d), as digits in 1 or 2 planes."""
    digits = torch.empty(planes, *x.shape, dtype=torch.int8, device=x.device)
    return Levels(digits, *_run(x, digits, levels, block, rotation, planes))


def rounded_to_levels(x: Tensor, levels: int, block: int, rotation: int) -> Tensor:
    """Return the rows of x (rows, d), rotated and rounded to levels, in x's dtype; rows that are not finite are NaN."""
    output = torch.empty_like(x)
    _run(x, output, levels, block, rotation, 0)
    return output


def _run(x: Tensor, output: Tensor, levels: int, block: int, rotation: int, planes: int) -> tuple[Tensor, Tensor]:
    """Fill the output with digits in `planes` planes, or with numbers if there are none; return steps and exponents."""
    count, dimension = x.shape
    steps, exponents = torch.empty(2, count, 1, dtype=torch.int32, device=x.device)
    values, bases = rotated_codes(x, rotation) if rotation else (x, exponents)  # unread unless it is rotated
    shape, shares = block_shape(count, dimension), SHARE_BITS if block else 0
    with on_device(x):
        _encode[(-(-count // shape.rows),)](
            x=values,
            bases=bases,
            output=output,
            steps=steps,
            exponents=exponents,
            count=count,
            dimension=dimension,
            last=max(planes - 1, 0) * count * dimension,
            LEVELS=levels,
            SHARES=shares,
            BLOCK=min(block, shape.columns),
            WIDTH=STEP_BITS + levels.bit_length() + shares,
            WIDE=rotation > 0,
            PLANES=planes,
            ROWS=shape.rows,
            COLUMNS=shape.columns,
            num_warps=shape.warps,
            enable_fp_fusion=False,
        )
    return steps, exponents


@triton.jit
def _encode(
    x,  # floats; or whole float64, in units of 2^bases, if WIDE
    bases,
    output,
    steps,
    exponents,
    count,
    dimension,
    last,  # elements before the last plane of digits
    LEVELS: tl.constexpr,
    SHARES: tl.constexpr,  # bits of the number of shares that a block's step may have
    BLOCK: tl.constexpr,  # channels that share a step; 0: all
    WIDTH: tl.constexpr,  # bits of a row's largest magnitude, the guard bit included
    WIDE: tl.constexpr,
    PLANES: tl.constexpr,  # of int8 digits; 0: numbers
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    place = row * dimension + column
    here = row < count

    if WIDE:
        most = tl.zeros([ROWS, 1], tl.float64)
        for start in range(0, dimension, COLUMNS):
            value = tl.load(x + place + start, mask=here & (column + start < dimension), other=0.0)
            most = tl.maximum(most, tl.max(tl.abs(value), 1, keep_dims=True))
        base = tl.load(bases + row, mask=here, other=0)
        strange = base >= BROKEN // 2
        base = tl.where(strange, base - BROKEN, base)
        places = WIDTH - bit_length(most.to(tl.int64))
    else:
        bits, broken = tl.zeros([ROWS, 1], tl.int32), tl.zeros([ROWS, 1], tl.int32)
        for start in range(0, dimension, COLUMNS):
            part, more = largest_bits(x + place + start, here & (column + start < dimension))
            bits, broken = tl.maximum(bits, part), tl.maximum(broken, more)
        base, strange = tl.zeros([ROWS, 1], tl.int32), broken > 0
        most = bits.to(tl.float32, bitcast=True)
        places = WIDTH - largest_exponent(bits)
    # What is rounded keeps its order: the largest number has the largest magnitude.
    unit: tl.constexpr = LEVELS << SHARES
    step = (_magnitude(most, places, WIDE) + (unit - 1)) // unit
    exponent = base + 1 - places
    tl.store(steps + row, tl.where(strange, -1, step), mask=here)
    tl.store(exponents + row, exponent, mask=here)

    for start in range(0, dimension, COLUMNS):
        seen = here & (column + start < dimension)
        value = tl.load(x + place + start, mask=seen, other=0.0)
        if not WIDE:
            value = finite(widened(value))
        size = _magnitude(value, places, WIDE)
        mantissa = _in_blocks(size, step, LEVELS, BLOCK) if BLOCK > 0 else _divided(size, step)
        mantissa = tl.where(value < 0, -mantissa, mantissa)
        if PLANES == 0:
            y = tl.where(strange, float("nan"), decode(mantissa * step, exponent))
            tl.store(output + place + start, rounded(y, output.dtype.element_ty), mask=seen)
        else:
            # The low digit is balanced, in -128..127.
            low = ((mantissa + 128) & 255) - 128 if PLANES == 2 else mantissa
            if PLANES == 2:
                tl.store(output + place + start, ((mantissa + 128) >> 8).to(tl.int8), mask=seen)
            tl.store(output + last + place + start, low.to(tl.int8), mask=seen)


@triton.jit
def _magnitude(x, places, WIDE: tl.constexpr):
    """Return |x|·2^places / 2, int32: cut to an integer before it is halved, and rounded then, halves up.

    x: float32; or whole float64 below 2^53 if WIDE. |x|·2^places is below 2^28.
    """
    size = shift(tl.abs(x).to(tl.int64), places) if WIDE else decode(tl.abs(x), places)
    return (size.to(tl.int32) + 1) >> 1


@triton.jit
def _divided(size, step):
    """Return size / step, rounded to nearest, halves up, int32; 0 where both are 0. size and step are below 2^28."""
    step = tl.maximum(step, 1)
    return (2 * size + step) // (2 * step)


@triton.jit
def _in_blocks(size, step, LEVELS: tl.constexpr, BLOCK: tl.constexpr):
    """Return the mantissas of sizes (ROWS, COLUMNS): each block's step is the least number of shares that holds it.

    step: int32 (ROWS, 1), of one share.
    """
    cut = tl.reshape(size, [size.shape[0], size.shape[1] // BLOCK, BLOCK])
    share = step[:, :, None]
    reach = tl.maximum(share * LEVELS, 1)
    number = tl.maximum((tl.max(cut, 2, keep_dims=True) + (reach - 1)) // reach, 1)
    return tl.reshape(number * _divided(cut, share * number), size.shape)
