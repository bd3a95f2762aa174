"""Run sums and products of two vectors: receive both, add or multiply exactly, round, in passes over a row."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from spikeplug.kernels.cpu.compile import kernel
from spikeplug.kernels.cpu.launch import empty_like, launch, new_empty
from spikeplug.kernels.cpu.memory import HEADER, floats, next_rows, places_of, words
from spikeplug.kernels.cpu.verbs import (
    LIFTED,
    ROUNDING,
    SHORT,
    as_double,
    as_integer,
    bit_length,
    compiled,
    decoded,
    inlined,
    largest_magnitude,
    power_of_two,
    rint,
    scale_exponent,
    steps_of,
    trunc,
)
from spikeplug.kernels.protocol import DTYPES, NO_AFFINE, Call
from spikeplug.operators.linear.levels import RECEIVED_BITS
from spikeplug.operators.linear.pair import HUGE
from spikeplug.operators.linear.scaled import GUARD_BITS

#: Numbers from here on have no code; their bits, as those of `largest_magnitude`.
_HUGE = np.float32(HUGE)
_HUGE_BITS = int(_HUGE.view(np.int32))
#: Octaves between two operands beyond which the smaller one is 0.
_APART = 100
#: Leading dimensions that the kernel walks over by itself; tensors with more of them are copied unless contiguous.
_DIMENSIONS = 3


class Words(NamedTuple):
    """Hold the 64-bit words of the kernel of sums and products, over rows of `width` elements.

    a, b, output      addresses of float32; the output is contiguous
    product           1: a·b, 0: a + b
    bits              `Numerics.bits`
    middle, inner     sizes of the last two of three leading dimensions
    a_outer, ...      elements from one row of a to the next, by leading dimension; a_step: within a row, 0 or 1
    """

    a: Any
    b: Any
    output: Any
    width: Any
    product: Any
    bits: Any
    middle: Any
    inner: Any
    a_outer: Any
    a_middle: Any
    a_inner: Any
    a_step: Any
    b_outer: Any
    b_middle: Any
    b_inner: Any
    b_step: Any


AT = places_of(Words, after=HEADER)


@compiled
def _add(a, b, totals, a_scale, b_scale, a_lift, b_lift, cut):
    """Set totals to round(a·a_scale)·a_lift + round(b·b_scale)·b_lift, |totals| < 2^50; return the largest |total|.

    a, b: float32. totals: float64. cut: whether each term is cut to an integer; without, the lifts are whole.
    """
    largest = np.int64(0)
    if cut:
        for i in range(totals.size):
            first = trunc(np.float64(rint(np.float32(a[i] * a_scale))) * a_lift)
            total = first + trunc(np.float64(rint(np.float32(b[i] * b_scale))) * b_lift)
            totals[i] = total
            largest = max(largest, as_integer(abs(total)))
    else:
        for i in range(totals.size):
            total = np.float64(rint(np.float32(a[i] * a_scale))) * a_lift
            total += np.float64(rint(np.float32(b[i] * b_scale))) * b_lift
            totals[i] = total
            largest = max(largest, as_integer(abs(total)))
    return np.int64(as_double(largest))


@compiled
def _multiply(a, b, totals, a_scale, b_scale):
    """Set totals to round(a·a_scale)·round(b·b_scale), |totals| <= 2^48; return the largest |total|, int64."""
    largest = np.int64(0)
    for i in range(totals.size):
        total = np.float64(rint(np.float32(a[i] * a_scale))) * np.float64(rint(np.float32(b[i] * b_scale)))
        totals[i] = total
        largest = max(largest, as_integer(abs(total)))
    return np.int64(as_double(largest))


@compiled
def _round(totals, output, places, exponent, short):
    """Set the output (float32) to round(totals·2^-places)·2^exponent, halves away from 0.

    short: whether all totals are below 2^SHORT, which are rounded as `linear_kernel` rounds products.
    """
    factor = power_of_two(-places)
    plain, unit, wide = steps_of(exponent)
    if short:
        factor *= LIFTED
        for i in range(totals.size):
            value = (totals[i] * factor + ROUNDING) - ROUNDING
            output[i] = np.float32(value) * unit if plain else np.float32(value * wide)
        return
    for i in range(totals.size):
        value = totals[i] * factor
        output[i] = decoded(np.int32(value + np.copysign(0.5, value)), plain, unit, wide)


@compiled
def _combine(a, b, output, totals, a_magnitude, b_magnitude, product, bits):
    """Set the output (float32) to the code of a + b or a·b; the magnitudes are those of the largest elements."""
    a_exponent = np.int64(scale_exponent(a_magnitude, RECEIVED_BITS + 1))
    b_exponent = np.int64(scale_exponent(b_magnitude, RECEIVED_BITS + 1))
    a_scale, b_scale = np.float32(power_of_two(-a_exponent)), np.float32(power_of_two(-b_exponent))
    if product:
        exponent = a_exponent + b_exponent
        most = _multiply(a, b, totals, a_scale, b_scale)
    else:
        exponent = max(a_exponent, b_exponent)
        apart = exponent - min(a_exponent, b_exponent)
        # Where the operands lie near each other, fewer guard bits lose nothing.
        guard = min(apart, np.int64(GUARD_BITS))
        a_lift = power_of_two(guard - min(exponent - a_exponent, np.int64(_APART)))
        b_lift = power_of_two(guard - min(exponent - b_exponent, np.int64(_APART)))
        exponent -= guard
        most = _add(a, b, totals, a_scale, b_scale, a_lift, b_lift, apart > guard)
    width = bit_length(most)
    _round(totals, output, width - bits, exponent + width - bits, width <= SHORT)


@inlined
def _has_code(x):
    return abs(x) < _HUGE


@compiled
def _combine_coded(a, b, a_clean, b_clean, output, totals, product, bits):
    """Set the output as `_combine` does with what has no code set to 0; where a or b has none, to a + b or a·b."""
    a_magnitude, b_magnitude = np.float32(0), np.float32(0)
    for i in range(a.size):
        a_clean[i] = a[i] if _has_code(a[i]) else np.float32(0)
        b_clean[i] = b[i] if _has_code(b[i]) else np.float32(0)
    a_magnitude, b_magnitude = largest_magnitude(a_clean.view(np.int32)), largest_magnitude(b_clean.view(np.int32))
    _combine(a_clean, b_clean, output, totals, a_magnitude, b_magnitude, product, bits)
    for i in range(a.size):
        if not (_has_code(a[i]) and _has_code(b[i])):
            output[i] = np.float32(a[i] * b[i]) if product else np.float32(a[i] + b[i])


@inlined
def _row_at(address, offset, step, spread):
    """Return a row of memory, float32; one element for all (step 0) is written into `spread` for it."""
    start = address + 4 * offset
    if step == 0:
        spread[:] = floats(start, 1, 1)[0, 0]
        return spread
    return floats(start, 1, spread.size)[0]


@kernel
def pair_kernel(address):
    """Compute the sum or product of each row of a and b."""
    block = words(address)
    width, product, bits = block[AT.width], block[AT.product] != 0, block[AT.bits]
    count = block[HEADER.count]
    output = floats(block[AT.output], count, width)
    totals, spare = np.empty(width, np.float64), np.empty((4, width), np.float32)
    a_spread, b_spread, a_clean, b_clean = spare[0], spare[1], spare[2], spare[3]
    middle, inner = block[AT.middle], block[AT.inner]
    first, last = next_rows(block, 0)
    while first < last:
        for row in range(first, last):
            outer_place, middle_place, last_place = np.int64(0), np.int64(0), np.int64(row)
            if inner < count:
                rest, last_place = row // inner, row % inner
                outer_place, middle_place = rest // middle, rest % middle
            a_offset = outer_place * block[AT.a_outer] + middle_place * block[AT.a_middle]
            b_offset = outer_place * block[AT.b_outer] + middle_place * block[AT.b_middle]
            a = _row_at(block[AT.a], a_offset + last_place * block[AT.a_inner], block[AT.a_step], a_spread)
            b = _row_at(block[AT.b], b_offset + last_place * block[AT.b_inner], block[AT.b_step], b_spread)
            a_magnitude, b_magnitude = largest_magnitude(a.view(np.int32)), largest_magnitude(b.view(np.int32))
            if max(a_magnitude, b_magnitude) >= _HUGE_BITS:
                _combine_coded(a, b, a_clean, b_clean, output[row], totals, product, bits)
            else:
                _combine(a, b, output[row], totals, a_magnitude, b_magnitude, product, bits)
        first, last = next_rows(block, last - first)


class Pair:
    """Compute the sum or the product of two tensors, which may broadcast."""

    def __init__(self, *, product: bool) -> None:
        self._product = int(product)

    def supports(self, call: Call) -> str | None:
        a, b = call.arguments
        if call.weight is not None or call.bias is not None:
            return NO_AFFINE
        if a.dtype is not b.dtype or a.dtype not in DTYPES:
            return "kernels take two tensors of one dtype"
        shape: tuple[int, ...] = a.shape
        return None if shape == b.shape or _broadcast(shape, b.shape) else "the shapes do not broadcast"

    def run(self, call: Call) -> tuple[Tensor, Tensor | None]:
        a, b = call.arguments
        dtype = a.dtype
        if dtype is not torch.float32:
            a, b = a.to(torch.float32), b.to(torch.float32)
        shape: tuple[int, ...] = a.shape
        if shape == b.shape and a.is_contiguous() and b.is_contiguous():
            width = shape[-1]
            rows = a.numel() // width
            output = empty_like(a)
            sizes: tuple[int, ...] = (1, rows)
            strides: tuple[int, ...] = (0, 0, width, 1, 0, 0, width, 1)
        else:
            shape = _broadcast(shape, b.shape)
            width = shape[-1]
            rows = math.prod(shape) // width
            (a, a_strides), (b, b_strides) = _walked(a, shape), _walked(b, shape)
            sizes, strides = _sizes(shape), a_strides + b_strides
            output = new_empty(a, shape)
        given = (a.data_ptr(), b.data_ptr(), output.data_ptr(), width, self._product, call.numerics.bits)
        launch(pair_kernel, rows, width, (*given, *sizes, *strides), marks=1, held=(a, b, output))
        return output if dtype is torch.float32 else output.to(dtype), None


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of both broadcast; () if they do not. torch's own function takes longer than the kernel."""
    if len(a) < len(b):
        a, b = b, a
    missing = len(a) - len(b)
    shape = tuple([max(x, y) for x, y in zip(a[missing:], b, strict=True)])
    if any(x != y and 1 not in (x, y) for x, y in zip(a[missing:], b, strict=True)):
        return ()
    return a[:missing] + shape


def _sizes(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the sizes of the last two of the leading dimensions; 1 for a dimension that is not there."""
    if len(shape) > _DIMENSIONS + 1:
        return 1, math.prod(shape[:-1])
    leading = (1, 1, *shape[:-1])
    return leading[-2], leading[-1]


def _walked(x: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
    """Return x as a tensor that the kernel reads as one of this shape, and its strides over three dimensions and a row.

    It is x itself, unless x has too many dimensions or a row that does not lie in one piece: then it is a copy.
    """
    x = x.expand(shape)
    if len(shape) > _DIMENSIONS + 1:
        return x.contiguous(), (0, 0, shape[-1], 1)
    if x.stride(-1) not in (0, 1):
        x = x.contiguous()
    return x, (0,) * (_DIMENSIONS + 1 - len(shape)) + x.stride()
