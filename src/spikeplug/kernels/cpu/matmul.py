"""Run products of two matrices: torch's own in doubles, rounded where its error cannot matter; the rest exactly.

A double sum of k products of float32 is off by at most k·2^-53 of the sum of their magnitudes, in any order. So both of
its ends round to one code, but for about one element in a million, which is then summed limb by limb.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from spikeplug.codes import decode
from spikeplug.kernels.cpu.compile import kernel
from spikeplug.kernels.cpu.launch import launch
from spikeplug.kernels.cpu.memory import (
    HEADER,
    as_words,
    doubles,
    integers,
    leave,
    next_rows,
    places_of,
    reals,
    words,
)
from spikeplug.kernels.cpu.verbs import as_bits, compiled, half_of, rounded
from spikeplug.kernels.protocol import DTYPES, EVERY_ROW, NO_AFFINE, Call
from spikeplug.numerics import Numerics
from spikeplug.operators.linear.matmul import matmul_integers
from spikeplug.operators.linear.receiver import received
from spikeplug.primitives.arithmetic import Closed

#: The bits of an element that is left open: a NaN that no result has.
_OPEN = np.int32(0x7FFFFFFF)
_NAN = np.float32(np.nan)
#: Elements left open, of all, from which on the closed form computes the whole product.
_MANY = 1 / 64


class Words(NamedTuple):
    """Hold the 64-bit words of the kernel, over rows of `width` elements.

    sums    float64: the products' sums;  sizes: the sums of their magnitudes
    output  float32
    bits    `Numerics.bits`
    error   double: how far a sum may be off, of its size
    """

    sums: Any
    sizes: Any
    output: Any
    width: Any
    bits: Any
    error: Any


AT = places_of(Words, after=HEADER)


@compiled
def _round(sums, sizes, output, error, half, mask):
    """Set the output, the bits of float32, to the codes of sums; return whether some are left open."""
    left = False
    for i in range(sums.size):
        size, off = abs(sums[i]), sizes[i] * error
        value = rounded(size + off, half, mask)
        if sums[i] - sums[i] != 0.0:
            output[i] = as_bits(_NAN)
        elif sizes[i] == 0.0 or (size > off and rounded(size - off, half, mask) == value):
            output[i] = as_bits(np.float32(np.copysign(value, sums[i] + 0.0)))
        else:
            output[i] = _OPEN
            left = True
    return left


@kernel
def matmul_kernel(address):
    """Round each row of sums to codes, and mark the elements whose code the error leaves open."""
    block = words(address)
    count, width = block[HEADER.count], block[AT.width]
    sums, sizes = doubles(block[AT.sums], count, width), doubles(block[AT.sizes], count, width)
    output = integers(block[AT.output], count, width)
    half, mask = half_of(block[AT.bits])
    error = reals(block)[AT.error]
    first, last = next_rows(block, 0)
    while first < last:
        for row in range(first, last):
            if _round(sums[row], sizes[row], output[row], error, half, mask):
                leave(block, 0)
        first, last = next_rows(block, last - first)


class Matmul:
    """Compute the product of two matrices, or of batches of them that broadcast."""

    def supports(self, call: Call) -> str | None:
        a, b = call.arguments
        if call.weight is not None or call.bias is not None:
            return NO_AFFINE
        if a.dtype is not b.dtype or a.dtype not in DTYPES:
            return "kernels take two tensors of one dtype"
        if a.dim() < 2 or b.dim() < 2 or a.shape[-1] != b.shape[-2]:
            return "the shapes are not those of two matrices"
        return None

    def run(self, call: Call) -> tuple[Tensor, Tensor | None]:
        a, b = call.arguments
        wide_a, wide_b = a.to(torch.float64), b.to(torch.float64)
        sums = torch.matmul(wide_a, wide_b).contiguous()
        sizes = torch.matmul(wide_a.abs_(), wide_b.abs_()).contiguous()
        output = torch.empty_like(sums, dtype=torch.float32)
        width, terms = sums.shape[-1], a.shape[-1]
        given = Words(sums, sizes, output, width, call.numerics.bits, (terms + 2) * 2.0**-52)
        held = (sums, sizes, output)
        left = launch(matmul_kernel, sums.numel() // width, width, as_words(given), marks=1, held=held)
        if left is not None:
            places = (output.view(torch.int32) == int(_OPEN)).nonzero().unbind(-1)
            if places[0].numel() > _MANY * output.numel():
                return output.to(a.dtype), EVERY_ROW
            output[places] = _exact(a, b, places, call.numerics)
        return output.to(a.dtype), None


def _exact(a: Tensor, b: Tensor, places: tuple[Tensor, ...], numerics: Numerics) -> Tensor:
    """Return the elements of a @ b at some places, (count,) float32, in closed form."""
    *batch, row, column = places
    shape = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    rows = a.to(torch.float32).expand(*shape, -1, -1)[*batch, row].unsqueeze(-2)
    columns = b.to(torch.float32).expand(*shape, -1, -1).mT[*batch, column].unsqueeze(-1)
    code = matmul_integers(received(rows), received(columns), numerics.bits, Closed(numerics, "matmul"))
    return decode(code, torch.float32).flatten()
