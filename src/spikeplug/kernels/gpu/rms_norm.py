"""Run RMSNorm on a GPU, the weight's product fused: one read and one write of memory."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: N803  (what is in capitals is known when a kernel is compiled)

from __future__ import annotations

import math

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor

from spikeplug.kernels.gpu.integers import (
    NONFINITE,
    bit_length,
    denominator_of,
    is_finite,
    magnitude_bits,
    nearest,
    nearest_mantissa,
    power_of_two,
    scale_exponent,
    tally,
    widened,
)
from spikeplug.kernels.gpu.launch import run_rows
from spikeplug.kernels.gpu.norms import count_broken, refusal, root, scaled_element, weighted
from spikeplug.kernels.protocol import Call
from spikeplug.operators.norms.rms_norm import SQRT_BITS


class RMSNorm:
    """Run RMSNorm over the last dimension, optionally times a weight of one element per channel."""

    def supports(self, call: Call) -> str | None:
        return "this kernel adds no bias" if call.bias is not None else refusal(call)

    def run(self, call: Call) -> tuple[Tensor, None]:
        (x, eps), weight, numerics = call.arguments, call.weight, call.numerics
        dimension = x.shape[-1]
        output = run_rows(
            _rms_norm,
            x.reshape(-1, dimension).contiguous(),
            x.dtype if weight is None else torch.promote_types(x.dtype, weight.dtype),
            "input: not finite",
            weight=x if weight is None else weight.contiguous(),
            extended=math.sqrt(eps * dimension),
            root_dimension=math.isqrt(dimension << 2 * SQRT_BITS),
            WEIGHTED=weight is not None,
            N=numerics.bits,
            P=numerics.working_bits,
            ROOT_BITS=SQRT_BITS,
        )
        return output.view(x.shape), None


@triton.jit
def _rms_norm(
    x,
    output,
    ledger,
    count,
    dimension,
    weight,
    extended,  # sqrt(eps·d): the value the vector is extended by
    root_dimension,  # sqrt(d) with ROOT_BITS fraction bits
    WEIGHTED: tl.constexpr,
    N: tl.constexpr,
    P: tl.constexpr,
    ROOT_BITS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WHOLE: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    place = row * dimension + column
    here = row < count

    if WHOLE:
        value = widened(tl.load(x + place, mask=here & (column < dimension), other=0.0))
        largest, broken = tl.max(magnitude_bits(value), 1, keep_dims=True), count_broken(value)
    else:
        largest, broken = tl.zeros([ROWS, 1], tl.int32), tl.zeros([ROWS, 1], tl.int32)
        for start in range(0, dimension, COLUMNS):
            value = widened(tl.load(x + place + start, mask=here & (column + start < dimension), other=0.0))
            largest = tl.maximum(largest, tl.max(magnitude_bits(value), 1, keep_dims=True))
            broken += count_broken(value)
    tally(ledger, broken)
    strange, undefined = largest >= NONFINITE, largest > NONFINITE  # a NaN's bits are larger than an infinity's
    largest = tl.where(strange, 0, largest)
    floor = (tl.zeros([ROWS, 1], tl.float32) + extended).to(tl.int32, bitcast=True)
    exponent = scale_exponent(tl.maximum(largest, floor), P)
    scale = power_of_two(-exponent)
    extension = nearest(extended * scale).to(tl.int64)

    if WHOLE:
        mantissa = _mantissa(value, strange, scale, P)
        square = tl.sum(mantissa.to(tl.int64) * mantissa.to(tl.int64), 1, keep_dims=True)
    else:
        square = tl.zeros([ROWS, 1], tl.int64)
        for start in range(0, dimension, COLUMNS):
            value = widened(tl.load(x + place + start, mask=here & (column + start < dimension), other=0.0))
            mantissa = _mantissa(value, strange, scale, P)
            square += tl.sum(mantissa.to(tl.int64) * mantissa.to(tl.int64), 1, keep_dims=True)
    length = root(square + extension * extension)

    # Rounding keeps order: the largest mantissa is that of the largest magnitude.
    most = nearest_mantissa(largest.to(tl.float32, bitcast=True) * scale, P).to(tl.int64) * root_dimension
    places = P - bit_length(most)
    denominator, inverse, length_places = denominator_of(length, N, P)
    exponent = length_places - places - ROOT_BITS - N

    # A row with NaN is NaN; one with an infinity is NaN there, and else 0.
    if WHOLE:
        seen = here & (column < dimension)
        y = scaled_element(mantissa, root_dimension, places, denominator, inverse, exponent, N)
        y = tl.where(strange, tl.where(undefined | ~is_finite(value), float("nan"), 0.0), y)
        y = weighted(y, weight + column, column < dimension, WEIGHTED, x.dtype.element_ty, output.dtype.element_ty)
        tl.store(output + place, y, mask=seen)
    else:
        for start in range(0, dimension, COLUMNS):
            inside = column + start < dimension
            value = widened(tl.load(x + place + start, mask=here & inside, other=0.0))
            mantissa = _mantissa(value, strange, scale, P)
            y = scaled_element(mantissa, root_dimension, places, denominator, inverse, exponent, N)
            y = tl.where(strange, tl.where(undefined | ~is_finite(value), float("nan"), 0.0), y)
            y = weighted(y, weight + column + start, inside, WEIGHTED, x.dtype.element_ty, output.dtype.element_ty)
            tl.store(output + place + start, y, mask=here & inside)


@triton.jit
def _mantissa(x, strange, scale, P: tl.constexpr):
    return nearest_mantissa(tl.where(strange, 0.0, x) * scale, P)  # what is not kept must not overflow
