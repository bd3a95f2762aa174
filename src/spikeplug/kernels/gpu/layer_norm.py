"""LayerNorm on a GPU, weight and bias fused: RMSNorm of the centred integers."""

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
    mark,
    nearest_mantissa,
    power_of_two,
    power_of_two_wide,
    scale_exponent,
    shift,
    widened,
)
from spikeplug.kernels.gpu.launch import run_rows
from spikeplug.kernels.gpu.norms import biased, root, scaled_element, weighted
from spikeplug.kernels.gpu.support import takes
from spikeplug.numerics import Numerics
from spikeplug.operators.layer_norm import layer_norm as closed_layer_norm
from spikeplug.operators.rms_norm import SQRT_BITS, check_norm
from spikeplug.presets import as_numerics


@torch.no_grad()
def layer_norm(
    x: Tensor,
    eps: float = 1e-5,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    numerics: Numerics | None = None,
) -> Tensor:
    """`operators.layer_norm`, bit for bit; same errors. Rows that are not finite are the closed form's."""
    numerics = as_numerics(numerics)
    check_norm("layer_norm", x, eps, weight=weight, bias=bias)
    if x.numel() == 0 or not takes(numerics, x, weight, bias):
        return closed_layer_norm(x, weight, bias, eps, numerics=numerics)
    dimension = x.shape[-1]
    if numerics.working_bits + (dimension.bit_length() + 1) // 2 > 31:  # too long: the closed form says so
        return closed_layer_norm(x, weight, bias, eps, numerics=numerics)
    extended = math.sqrt(eps * dimension)
    middle = x.dtype if weight is None else torch.promote_types(x.dtype, weight.dtype)
    rows = x.reshape(-1, dimension).contiguous()
    output = run_rows(
        _layer_norm,
        rows,
        middle if bias is None else torch.promote_types(middle, bias.dtype),
        lambda again: closed_layer_norm(rows[again], weight, bias, eps, numerics=numerics),
        x if weight is None else weight.contiguous(),
        x if bias is None else bias.contiguous(),
        extended,
        math.isqrt(dimension << 2 * SQRT_BITS),
        WIDE_EXTENDED=extended * dimension,  # a constant: as an argument it would lose half its bits
        MIDDLE=_NAMES[middle],
        WEIGHTED=weight is not None,
        BIASED=bias is not None,
        N=numerics.bits,
        P=numerics.working_bits,
        ROOT_BITS=SQRT_BITS,
    )
    return output.view(x.shape)


_NAMES = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}


@triton.jit
def _layer_norm(
    x,
    output,
    rare,
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
        largest = tl.max(magnitude_bits(value), 1, keep_dims=True)
    else:
        largest = tl.zeros([ROWS, 1], tl.int32)
        for start in range(0, dimension, COLUMNS):
            value = widened(tl.load(x + place + start, mask=here & (column + start < dimension), other=0.0))
            largest = tl.maximum(largest, tl.max(magnitude_bits(value), 1, keep_dims=True))
    strange = largest >= NONFINITE
    mark(rare, row, count, here & strange)
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
        y = weighted(y, weight + column, inside, WEIGHTED, inner, MIDDLE)
        tl.store(output + place, biased(y, bias + column, inside, BIASED, outer), mask=here & inside)
    else:
        for start in range(0, dimension, COLUMNS):
            inside = column + start < dimension
            mantissa = _mantissa(widened(tl.load(x + place + start, mask=here & inside, other=0.0)), strange, scale, P)
            centred = _centred(mantissa, total, dimension, places, inside)
            y = scaled_element(centred, root_dimension, ratio_places, denominator, inverse, exponent, N)
            y = weighted(y, weight + column + start, inside, WEIGHTED, inner, MIDDLE)
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
    """c with its sign, at P - 1 bits, 0 beyond the row; int32."""
    c = tl.where(inside, mantissa.to(tl.int64) * dimension - total, 0)
    size = _shifted(tl.abs(c), places).to(tl.int32)
    return tl.where(c < 0, -size, size)
