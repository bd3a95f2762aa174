"""Softmax on a GPU: one read and one write of memory, all integers in registers."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: N803  (what is in capitals is known when a kernel is compiled)

from __future__ import annotations

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor

from spikeplug.coding import as_real
from spikeplug.kernels.gpu.integers import (
    MASKED,
    bit_length,
    decay,
    decode,
    denominator_of,
    half_to_the,
    mark,
    nearest,
    quotient,
    rounded,
    widened,
)
from spikeplug.kernels.gpu.launch import exponential_constants, knots, run_rows
from spikeplug.kernels.gpu.support import takes
from spikeplug.numerics import Numerics
from spikeplug.operators.rows import along
from spikeplug.operators.scores import natural_unit, shift_exponential
from spikeplug.operators.softmax import softmax as closed_softmax
from spikeplug.presets import as_numerics


@torch.no_grad()
def softmax(x: Tensor, dim: int = -1, *, numerics: Numerics | None = None) -> Tensor:
    """`operators.softmax`, bit for bit; same arguments and errors.

    Rows with NaN or +inf, or whose largest score lies beyond 2^(28 - F), are the closed form's.
    """
    numerics = as_numerics(numerics)
    as_real(x, "softmax")
    rows = along(dim, x, "softmax")
    if x.numel() == 0 or not takes(numerics, x):
        return closed_softmax(x, dim, numerics=numerics)
    flat = rows.reshape(-1, rows.shape[-1]).contiguous()
    output = run_rows(
        _softmax,
        flat,
        x.dtype,
        lambda again: closed_softmax(flat[again], numerics=numerics),
        knots(shift_exponential(numerics).table, x.device),
        natural_unit(numerics) * (1 << numerics.fraction_bits),
        **exponential_constants(numerics),
    ).view(rows.shape)
    return output.reshape(()) if x.dim() == 0 else output.movedim(-1, dim)


@triton.jit
def _softmax(
    x,
    output,
    rare,
    count,
    dimension,
    table,
    unit,  # integers per one
    N: tl.constexpr,
    P: tl.constexpr,
    F: tl.constexpr,
    REST: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WHOLE: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    place = row * dimension + column
    here = row < count

    if WHOLE:
        value = widened(tl.load(x + place, mask=here & (column < dimension), other=-float("inf")))
        largest = tl.max(_or_infinity(value), 1, keep_dims=True)
    else:
        largest = tl.full([ROWS, 1], -float("inf"), tl.float32)
        for start in range(0, dimension, COLUMNS):
            value = tl.load(x + place + start, mask=here & (column + start < dimension), other=-float("inf"))
            largest = tl.maximum(largest, tl.max(_or_infinity(widened(value)), 1, keep_dims=True))
    # A largest score of 2^(28 - F) or more is too large for F fraction bits; -inf is a row that is all masked.
    strange = (tl.abs(largest) >= (1 << (28 - F))) & (largest != -float("inf"))
    mark(rare, row, count, here & strange)

    score = _score(largest, unit, F)
    octave: tl.constexpr = 1 << F
    ceiling = (tl.maximum(score, -(1 << 29)) + (octave - 1)) & -octave
    # Weights fall with distance, so the largest weight is that of the largest score.
    places = P - bit_length(_weight(ceiling - score, table, P, F, REST))

    if WHOLE:
        weight = _weight(ceiling - _score(value, unit, F), table, P, F, REST)
        total = _sum(weight, P, COLUMNS)
    else:
        total = tl.zeros([ROWS, 1], tl.int64)
        for start in range(0, dimension, COLUMNS):
            value = tl.load(x + place + start, mask=here & (column + start < dimension), other=-float("inf"))
            total += _sum(_weight(ceiling - _score(widened(value), unit, F), table, P, F, REST), P, COLUMNS)
    denominator, inverse, total_places = denominator_of(total, N, P)
    exponent = total_places - places - N
    up, down = tl.maximum(places, 0), tl.maximum(-places, 0)

    if WHOLE:
        q = (quotient((weight << up) >> down, denominator, inverse, N + 1) + 1) >> 1
        y = rounded(decode(q, exponent), output.dtype.element_ty)
        tl.store(output + place, y, mask=here & (column < dimension))
    else:
        for start in range(0, dimension, COLUMNS):
            seen = here & (column + start < dimension)
            value = widened(tl.load(x + place + start, mask=seen, other=-float("inf")))
            weight = _weight(ceiling - _score(value, unit, F), table, P, F, REST)
            q = (quotient((weight << up) >> down, denominator, inverse, N + 1) + 1) >> 1
            y = rounded(decode(q, exponent), output.dtype.element_ty)
            tl.store(output + place + start, y, mask=seen)


@triton.jit
def _or_infinity(x):
    """x, with +inf for NaN, which no maximum then loses."""
    return tl.where(x == x, x, float("inf"))


@triton.jit
def _score(x, unit, F: tl.constexpr):
    """round(x·unit) within [MASKED, 2^29]; NaN, whose row is not kept, counts as masked."""
    scaled = tl.where(x == x, x * unit, float(MASKED))
    return nearest(tl.minimum(tl.maximum(scaled, float(MASKED)), 536870912.0))


@triton.jit
def _weight(distance, table, P: tl.constexpr, F: tl.constexpr, REST: tl.constexpr):
    return decay(half_to_the(distance, table, F, REST, P), distance >> F)


@triton.jit
def _sum(weight, P: tl.constexpr, COLUMNS: tl.constexpr):
    """Sum over the row, int64; in int32 where 2^P a weight fits."""
    if COLUMNS << P <= 1 << 30:
        return tl.sum(weight, 1, keep_dims=True).to(tl.int64)
    else:
        return tl.sum(weight.to(tl.int64), 1, keep_dims=True)
