"""Run LayerNorm on a GPU, weight and bias fused: RMSNorm of the centred integers."""

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
    magnitude_bits,
    nearest_mantissa,
    power_of_two,
    power_of_two_wide,
    scale_exponent,
    shift,
    tally,
    widened,
)
from spikeplug.kernels.gpu.launch import run_rows
from spikeplug.kernels.gpu.norms import biased, count_broken, refusal, root, scaled_element, weighted
from spikeplug.kernels.protocol import Call
from spikeplug.operators.norms.rms_norm import SQRT_BITS


class LayerNorm:
    """Run LayerNorm over the last dimension, optionally times a weight and plus a bias of one element per channel."""

    def supports(self, call: Call) -> str | None:
        return refusal(call)

    def run(self, call: Call) -> tuple[Tensor, None]:
        (x, eps), weight, bias, numerics = call.arguments, call.weight, call.bias, call.numerics
        dimension = x.shape[-1]
        extended = math.sqrt(eps * dimension)
        middle = x.dtype if weight is None else torch.promote_types(x.dtype, weight.dtype)
        output = run_rows(
            _layer_norm,
            x.reshape(-1, dimension).contiguous(),
            middle if bias is None else torch.promote_types(middle, bias.dtype),
            "input: not finite",
            weight=x if weight is None else weight.contiguous(),
            bias=x if bias is None else bias.contiguous(),
            extended=extended,
            root_dimension=math.isqrt(dimension << 2 * SQRT_BITS),
            WIDE_EXTENDED=extended * dimension,  # a constant: as an argument it would lose half its bits
            MIDDLE=_NAMES[middle],
            WEIGHTED=weight is not None,
            BIASED=bias is not None,
            N=numerics.bits,
            P=numerics.working_bits,
            ROOT_BITS=SQRT_BITS,
        )
        return output.view(x.shape), None


_NAMES = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}


@triton.jit
def _layer_norm(
    x,
    output,
    ledger,
    count,
    dimension,
    weight,
    bias,
    extended,  # sqrt(eps·d): the value the vector is extended by
    root_dimension,  # sqrt(d) with ROOT_BITS fraction bits
    WIDE_EXTENDED: tl.constexpr,  # extended·d
    MIDDLE: tl.constexpr,  # dtype after the weight
    WEIGHTED: tl.constexpr,
    BIASED: tl.constexpr,
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
    inner: tl.constexpr = x.dtype.element_ty
    outer: tl.constexpr = output.dtype.element_ty

    if WHOLE:
        inside = column < dimension
        value = widened(tl.load(x + place, mask=here & inside, other=0.0))
        largest, broken = tl.max(magnitude_bits(value), 1, keep_dims=True), count_broken(value)
    else:
        largest, broken = tl.zeros([ROWS, 1], tl.int32), tl.zeros([ROWS, 1], tl.int32)
        for start in range(0, dimension, COLUMNS):
            value = widened(tl.load(x + place + start, mask=here & (column + start < dimension), other=0.0))
            largest = tl.maximum(largest, tl.max(magnitude_bits(value), 1, keep_dims=True))
            broken += count_broken(value)
    tally(ledger, broken)
    strange = largest >= NONFINITE
    floor = (tl.zeros([ROWS, 1], tl.float32) + extended).to(tl.int32, bitcast=True)
    exponent = scale_exponent(tl.maximum(tl.where(strange, 0, largest), floor), P)
    scale = power_of_two(-exponent)
    # round(extended·d / 2^exponent), half to even; from 2^52 on a float64 is an integer.
    extension = power_of_two_wide(-exponent) * tl.full([ROWS, 1], WIDE_EXTENDED, tl.float64)
    whole = tl.full([ROWS, 1], 4503599627370496.0, tl.float64)
    extension = tl.where(extension < whole, (extension + whole) - whole, extension).to(tl.int64)

    # Centred: c = d·m - Σ m; only its largest magnitude is wanted, from the largest and smallest m.
    high, low = tl.full([ROWS, 1], -(1 << 24), tl.int32), tl.full([ROWS, 1], 1 << 24, tl.int32)
    if WHOLE:
        mantissa = _mantissa(value, strange, scale, P)
        total = tl.sum(mantissa.to(tl.int64), 1, keep_dims=True)
        high = tl.max(tl.where(inside, mantissa, high), 1, keep_dims=True)
        low = tl.min(tl.where(inside, mantissa, low), 1, keep_dims=True)
    else:
        total = tl.zeros([ROWS, 1], tl.int64)
        for start in range(0, dimension, COLUMNS):
            inside = column + start < dimension
            mantissa = _mantissa(widened(tl.load(x + place + start, mask=here & inside, other=0.0)), strange, scale, P)
            total += tl.sum(mantissa.to(tl.int64), 1, keep_dims=True)
            high = tl.maximum(high, tl.max(tl.where(inside, mantissa, high), 1, keep_dims=True))
            low = tl.minimum(low, tl.min(tl.where(inside, mantissa, low), 1, keep_dims=True))
    farthest = tl.maximum(high.to(tl.int64) * dimension - total, total - low.to(tl.int64) * dimension)
    # One shift brings [c, extension] to P - 1 bits, rounded half up.
    places = P - bit_length(tl.maximum(farthest, extension))
    extension = _shifted(extension, places)

    if WHOLE:
        centred = _centred(mantissa, total, dimension, places, inside)
        size = centred.to(tl.int64)
        square = tl.sum(size * size, 1, keep_dims=True)
    else:
        square = tl.zeros([ROWS, 1], tl.int64)
        for start in range(0, dimension, COLUMNS):
            inside = column + start < dimension
            mantissa = _mantissa(widened(tl.load(x + place + start, mask=here & inside, other=0.0)), strange, scale, P)
            size = _centred(mantissa, total, dimension, places, inside).to(tl.int64)
            square += tl.sum(size * size, 1, keep_dims=True)
    length = root(square + extension * extension)

    most = _shifted(farthest, places) * root_dimension
    ratio_places = P - bit_length(most)
    denominator, inverse, length_places = denominator_of(length, N, P)
    exponent = length_places - ratio_places - ROOT_BITS - N

    if WHOLE:
        y = scaled_element(centred, root_dimension, ratio_places, denominator, inverse, exponent, N)
        y = weighted(tl.where(strange, float("nan"), y), weight + column, inside, WEIGHTED, inner, MIDDLE)
        tl.store(output + place, biased(y, bias + column, inside, BIASED, outer), mask=here & inside)
    else:
        for start in range(0, dimension, COLUMNS):
            inside = column + start < dimension
            mantissa = _mantissa(widened(tl.load(x + place + start, mask=here & inside, other=0.0)), strange, scale, P)
            centred = _centred(mantissa, total, dimension, places, inside)
            y = scaled_element(centred, root_dimension, ratio_places, denominator, inverse, exponent, N)
            y = weighted(tl.where(strange, float("nan"), y), weight + column + start, inside, WEIGHTED, inner, MIDDLE)
            y = biased(y, bias + column + start, inside, BIASED, outer)
            tl.store(output + place + start, y, mask=here & inside)


@triton.jit
def _mantissa(x, strange, scale, P: tl.constexpr):
    return nearest_mantissa(tl.where(strange, 0.0, x) * scale, P)  # what is not kept must not overflow


@triton.jit
def _shifted(size, places):
    return (shift(size, places) + 1) >> 1


@triton.jit
def _centred(mantissa, total, dimension, places, inside):
    """Return the centred elements c = dimension·mantissa - total, scaled to |c| <= 2^(P - 1), int32.

    total: the row's sum of mantissas. The magnitude |c|·2^(places - 1) is rounded half up; c is 0 unless inside (bool).
    """
    c = tl.where(inside, mantissa.to(tl.int64) * dimension - total, 0)
    size = _shifted(tl.abs(c), places).to(tl.int32)
    return tl.where(c < 0, -size, size)
