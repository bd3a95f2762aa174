"""Run sums and products of two numbers: add or multiply exactly in doubles, and round, in one pass over a row."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from spikeplug.kernels.broadcast import NO_BROADCAST, broadcast
from spikeplug.kernels.cpu.compile import kernel
from spikeplug.kernels.cpu.launch import empty_like, launch, new_empty
from spikeplug.kernels.cpu.memory import HEADER, floats, next_rows, places_of, words
from spikeplug.kernels.cpu.verbs import (
    as_bits,
    as_double,
    as_integer,
    compiled_narrow,
    half_of,
    inlined,
    magnitude_of,
    rounded,
    trunc,
)
from spikeplug.kernels.protocol import DTYPES, NO_AFFINE, Call
from spikeplug.operators.linear.pair import HUGE
from spikeplug.operators.linear.receiver import RECEIVED_BITS
from spikeplug.operators.linear.scaled import GUARD_BITS

#: Numbers from here on have no code; their bits, as those of `largest_magnitude`.
_HUGE_BITS = int(np.float32(HUGE).view(np.int32))
#: The exponent field of a double, that of 1, and that of 1 twice: what two inverse powers of two add up to.
_EXPONENT, _ONE = 0x7FF << 52, 1023 << 52
_TWICE_ONE = 2 * _ONE
#: The field of x·2^-e plus that of x, if x = 2^e·1.… is an operand whose unit lies GUARD_BITS above 1.
_GUARDED = _TWICE_ONE + (RECEIVED_BITS - 1 + GUARD_BITS << 52)
#: A number above 0 and below any other.
_LEAST = 2.0**-200
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


@inlined
def _have_codes(a, b):
    return np.int32(max(magnitude_of(as_bits(a)), magnitude_of(as_bits(b)))) < _HUGE_BITS


@compiled_narrow
def _add(a, b, output, half, mask):
    """Set the output (float32) to the codes of a + b."""
    for i in range(output.size):
        first, second = np.float64(a[i]), np.float64(b[i])
        # Both in units that lie GUARD_BITS below that of the larger one, and are cut there.
        larger = max(max(abs(first), abs(second)), _LEAST)
        scale = as_double(_GUARDED - (as_integer(larger) & _EXPONENT))
        total = trunc(first * scale) + trunc(second * scale)
        value = np.float32(rounded(total, half, mask) * as_double(_TWICE_ONE - as_integer(scale)))
        output[i] = value if _have_codes(a[i], b[i]) else np.float32(a[i] + b[i])


@compiled_narrow
def _multiply(a, b, output, half, mask):
    """Set the output (float32) to the codes of a·b, whose products are exact in doubles."""
    for i in range(output.size):
        value = np.float32(rounded(np.float64(a[i]) * np.float64(b[i]), half, mask))
        output[i] = value if _have_codes(a[i], b[i]) else np.float32(a[i] * b[i])


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
    width, product = block[AT.width], block[AT.product] != 0
    count = block[HEADER.count]
    output = floats(block[AT.output], count, width)
    spread = np.empty((2, width), np.float32)
    half, mask = half_of(block[AT.bits])
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
            a = _row_at(block[AT.a], a_offset + last_place * block[AT.a_inner], block[AT.a_step], spread[0])
            b = _row_at(block[AT.b], b_offset + last_place * block[AT.b_inner], block[AT.b_step], spread[1])
            if product:
                _multiply(a, b, output[row], half, mask)
            else:
                _add(a, b, output[row], half, mask)
        first, last = next_rows(block, last - first)


class Pair:
    """Compute the sum or the product of two tensors, which may broadcast."""

    def __init__(self, *, product: bool) -> None:
        self._product = int(product)

    def supports(self, call: Call) -> str | None:
        a, b = call.arguments
        if call.weight is not None or call.bias is not None:
            return NO_AFFINE
        dtype = a.dtype
        if dtype is not b.dtype or dtype not in DTYPES:
            return "kernels take two tensors of one dtype"
        shape: tuple[int, ...] = a.shape
        return None if shape == b.shape or broadcast(shape, b.shape) else NO_BROADCAST

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
            steps = _in_one_piece(rows, width)
        else:
            wanted, rows, found = _walk(shape, a.stride(), b.shape, b.stride())
            if found is None:
                a, b = a.expand(wanted).contiguous(), b.expand(wanted).contiguous()
            width = wanted[-1]
            steps = _in_one_piece(rows, width) if found is None else found
            output = new_empty(a, wanted)
        given = (a.data_ptr(), b.data_ptr(), output.data_ptr(), width, self._product, call.numerics.bits)
        launch(pair_kernel, rows, width, given + steps, marks=1, held=(a, b, output))
        return output if dtype is torch.float32 else output.to(dtype), None


@lru_cache(maxsize=1024)
def _walk(
    a: tuple[int, ...], a_strides: tuple[int, ...], b: tuple[int, ...], b_strides: tuple[int, ...]
) -> tuple[tuple[int, ...], int, tuple[int, ...] | None]:
    """Return how the kernel walks over two tensors of these shapes and strides: (output's shape, its rows, steps).

    steps: the kernel's words from `middle` on; None if the tensors have to be expanded and contiguous first, because
    they have too many dimensions, or rows that do not lie in one piece.
    """
    shape = broadcast(a, b)
    rows = math.prod(shape[:-1])
    strides = [_expanded(*x, shape) for x in ((a, a_strides), (b, b_strides))]
    if len(shape) <= _DIMENSIONS + 1 and all(x[-1] in (0, 1) for x in strides):
        sizes = (1, 1, *shape[:-1])[-2:]
        return shape, rows, (*sizes, *strides[0], *strides[1])
    return shape, rows, None


def _in_one_piece(rows: int, width: int) -> tuple[int, ...]:
    """Return the kernel's words from `middle` on for two contiguous tensors."""
    return 1, rows, 0, 0, width, 1, 0, 0, width, 1


def _expanded(shape: tuple[int, ...], strides: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a tensor that is expanded to a wanted shape; over three dimensions and a row at least."""
    missing = len(wanted) - len(shape)
    own = [0 if have != want else stride for have, want, stride in zip(shape, wanted[missing:], strides, strict=True)]
    return (0,) * (max(len(wanted), _DIMENSIONS + 1) - len(own)) + tuple(own)
