"""Sigmoid, SiLU and the GELUs on a GPU: x·σ(g(x)), a row's two scales found in registers."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: N803  (what is in capitals is known when a kernel is compiled)

from __future__ import annotations

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor

from spikeplug import operators
from spikeplug.coding import affine, as_real
from spikeplug.kernels.gpu.integers import (
    NONFINITE,
    bit_length,
    chord,
    decay,
    decode,
    half_to_the,
    magnitude_bits,
    mark,
    nearest_mantissa,
    nearest_small,
    power_of_two,
    quotient_each,
    scale_exponent,
    widened,
)
from spikeplug.kernels.gpu.launch import exponential_constants, knots, run_rows
from spikeplug.kernels.gpu.norms import weighted
from spikeplug.kernels.gpu.support import takes
from spikeplug.numerics import Numerics
from spikeplug.operators.gates import CURVE_END, GELU, OCTAVES, SIGMOID, SILU, Gate, curve_table
from spikeplug.operators.scores import natural_unit, shift_exponential
from spikeplug.presets import as_numerics


@torch.no_grad()
def silu(x: Tensor, *, weight: Tensor | None = None, numerics: Numerics | None = None) -> Tensor:
    """`operators.silu`, times weight, bit for bit. Rows with an element that is not finite are the closed form's."""
    numerics = as_numerics(numerics)
    as_real(x, "silu")
    if x.numel() == 0 or not takes(numerics, x, weight):
        return affine(operators.silu(x, numerics), weight)
    return _gated(SILU, x, weight, numerics)


@torch.no_grad()
def sigmoid(x: Tensor, *, weight: Tensor | None = None, numerics: Numerics | None = None) -> Tensor:
    """`operators.sigmoid`, times weight, bit for bit. Rows with an element that is not finite are the closed form's."""
    numerics = as_numerics(numerics)
    as_real(x, "sigmoid")
    if x.numel() == 0 or not takes(numerics, x, weight):
        return affine(operators.sigmoid(x, numerics=numerics), weight)
    return _gated(SIGMOID, x, weight, numerics)


@torch.no_grad()
def gelu(
    x: Tensor, approximate: str = "none", *, weight: Tensor | None = None, numerics: Numerics | None = None
) -> Tensor:
    """`operators.gelu`, times weight, bit for bit; same errors. Rows that are not finite are the closed form's."""
    numerics = as_numerics(numerics)
    as_real(x, "gelu")
    if not isinstance(approximate, str) or approximate not in GELU or x.numel() == 0 or not takes(numerics, x, weight):
        return affine(operators.gelu(x, approximate, numerics=numerics), weight)
    return _gated(GELU[approximate], x, weight, numerics, approximate)


def _gated(gate: Gate, x: Tensor, weight: Tensor | None, numerics: Numerics, approximate: str = "none") -> Tensor:
    if weight is not None and weight.shape != x.shape:  # broadcast, or a larger result: not the kernel's
        return affine(_gated(gate, x, None, numerics, approximate), weight)
    width = x.shape[-1] if x.dim() else 1
    rows = x.reshape(-1, width).contiguous()
    factors = None if weight is None else weight.reshape(-1, width).contiguous()

    def closed(again: Tensor) -> Tensor:
        x, weight = rows[again], None if factors is None else factors[again]
        if gate is SIGMOID:
            return affine(operators.sigmoid(x, numerics=numerics), weight)
        output = operators.silu(x, numerics) if gate is SILU else operators.gelu(x, approximate, numerics=numerics)
        return affine(output, weight)

    exponential = knots(shift_exponential(numerics).table, x.device)
    curve, segments, curve_rest, limit = exponential, 0, 0, OCTAVES
    if gate.curve is not None:
        table = curve_table(gate, natural_unit(numerics), numerics.fraction_bits)
        curve, segments, curve_rest, limit = knots(table, x.device), table.segments, table.rest_bits, CURVE_END
    output = run_rows(
        _gate,
        rows,
        x.dtype if weight is None else torch.promote_types(x.dtype, weight.dtype),
        closed,
        rows if factors is None else factors,
        exponential,
        curve,
        1.0 if gate.curve is not None else gate.slope * natural_unit(numerics),
        SEGMENTS=segments,
        CURVE_REST=curve_rest,
        LIMIT=limit,
        AMPLITUDE=gate is not SIGMOID,
        WEIGHTED=factors is not None,
        **exponential_constants(numerics),
    )
    return output.view(x.shape)


@triton.jit
def _gate(
    x,
    output,
    rare,
    count,
    dimension,
    weight,
    table,
    curve,
    slope,
    N: tl.constexpr,
    P: tl.constexpr,
    F: tl.constexpr,
    REST: tl.constexpr,
    SEGMENTS: tl.constexpr,  # of the curve; 0: g is slope·x
    CURVE_REST: tl.constexpr,
    LIMIT: tl.constexpr,
    AMPLITUDE: tl.constexpr,  # x·σ(g(x)), not σ(g(x))
    WEIGHTED: tl.constexpr,
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
        largest = tl.max(magnitude_bits(value), 1, keep_dims=True)
    else:
        largest = tl.zeros([ROWS, 1], tl.int32)
        for start in range(0, dimension, COLUMNS):
            value = widened(tl.load(x + place + start, mask=here & (column + start < dimension), other=0.0))
            largest = tl.maximum(largest, tl.max(magnitude_bits(value), 1, keep_dims=True))
    strange = largest >= NONFINITE
    mark(rare, row, count, here & strange)
    exponent = scale_exponent(largest, P)
    scale = power_of_two(-exponent)

    # Numerators up to 2^(2P - 1); only the length of the largest is wanted, and a row of none but 0 has length 0.
    if WHOLE:
        seen = column < dimension
        mantissa, factor, t = _parts(
            value, strange, scale, slope, table, curve, P, F, REST, SEGMENTS, CURVE_REST, LIMIT
        )
        most = tl.max(_numerator(mantissa, factor, seen, AMPLITUDE), 1, keep_dims=True)
    else:
        most = tl.zeros([ROWS, 1], tl.int64)
        for start in range(0, dimension, COLUMNS):
            seen = column + start < dimension
            value = widened(tl.load(x + place + start, mask=here & seen, other=0.0))
            mantissa, factor, t = _parts(
                value, strange, scale, slope, table, curve, P, F, REST, SEGMENTS, CURVE_REST, LIMIT
            )
            most = tl.maximum(most, tl.max(_numerator(mantissa, factor, seen, AMPLITUDE), 1, keep_dims=True))
    places = P - bit_length(most)
    up, down = tl.maximum(places, 0), tl.maximum(-places, 0)
    exponent = (exponent if AMPLITUDE else 0) - places - N

    if WHOLE:
        y = _divided(mantissa, factor, t, up, down, exponent, AMPLITUDE, N, P)
        seen = here & (column < dimension)
        y = weighted(y, weight + place, seen, WEIGHTED, x.dtype.element_ty, output.dtype.element_ty)
        tl.store(output + place, y, mask=seen)
    else:
        for start in range(0, dimension, COLUMNS):
            seen = here & (column + start < dimension)
            value = widened(tl.load(x + place + start, mask=seen, other=0.0))
            mantissa, factor, t = _parts(
                value, strange, scale, slope, table, curve, P, F, REST, SEGMENTS, CURVE_REST, LIMIT
            )
            y = _divided(mantissa, factor, t, up, down, exponent, AMPLITUDE, N, P)
            y = weighted(y, weight + place + start, seen, WEIGHTED, x.dtype.element_ty, output.dtype.element_ty)
            tl.store(output + place + start, y, mask=seen)


@triton.jit
def _parts(
    x,
    strange,
    scale,
    slope,
    table,
    curve,
    P: tl.constexpr,
    F: tl.constexpr,
    REST: tl.constexpr,
    SEGMENTS: tl.constexpr,
    CURVE_REST: tl.constexpr,
    LIMIT: tl.constexpr,
):
    """(mantissa, factor, t) of `gate_integers`: σ(g) = factor / (2^P + t), t = 2^-|g|, all int32."""
    x = tl.where(strange, 0.0, x)  # what is not kept must not overflow either
    mantissa = nearest_mantissa(x * scale, P)
    bound: tl.constexpr = float(LIMIT << F)  # at most 31·2^16 < 2^22
    opening = nearest_small(tl.minimum(tl.maximum((x * slope) * (1 << F), -bound), bound))
    distance = tl.abs(opening)
    if SEGMENTS > 0:
        distance = chord(distance, curve, SEGMENTS - 1, CURVE_REST)
    t = decay(half_to_the(distance, table, F, REST, P), distance >> F)
    return mantissa, tl.where(opening < 0, t, 1 << P), t


@triton.jit
def _numerator(mantissa, factor, seen, AMPLITUDE: tl.constexpr):
    if AMPLITUDE:
        return tl.abs(mantissa).to(tl.int64) * factor  # 0 where nothing is
    else:
        return tl.where(seen, factor, 0).to(tl.int64)


@triton.jit
def _divided(mantissa, factor, t, up, down, exponent, AMPLITUDE: tl.constexpr, N: tl.constexpr, P: tl.constexpr):
    """The numerator shifted to P bits, over 2^P + t, rounded, signed and decoded."""
    if AMPLITUDE:
        numerator = (((tl.abs(mantissa) << up).to(tl.int64) * factor) >> down.to(tl.int64)).to(tl.int32)
    else:
        numerator = (factor << up) >> down
    q = (quotient_each(numerator, (1 << P) + t, N + 1) + 1) >> 1
    if AMPLITUDE:
        q = tl.where(mantissa < 0, -q, q)
    return decode(q, exponent)
