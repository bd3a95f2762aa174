"""Run softmax on a GPU: one read and one write of memory, all integers in registers."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: N803  (what is in capitals is known when a kernel is compiled)

from __future__ import annotations

import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor

from spikeplug.codes import natural_unit
from spikeplug.kernels.gpu.integers import (
    bit_length,
    decay,
    decode,
    denominator_of,
    distance_to,
    excess_places,
    half_to_the,
    power_of_two,
    quotient,
    rounded,
    row_ceiling,
    score_integers,
    tally,
    widened,
)
from spikeplug.kernels.gpu.launch import exponential_constants, knots, run_rows
from spikeplug.kernels.protocol import NO_AFFINE, Call
from spikeplug.operators.rows import along
from spikeplug.operators.softmax.weights import shift_exponential


class Softmax:
    """Run softmax along any dimension of a tensor."""

    def supports(self, call: Call) -> str | None:
        return None if call.weight is None and call.bias is None else NO_AFFINE

    def run(self, call: Call) -> tuple[Tensor, None]:
        (x, dim), numerics = call.arguments, call.numerics
        rows = along(dim, x, "softmax")
        output = run_rows(
            _softmax,
            rows.reshape(-1, rows.shape[-1]).contiguous(),
            x.dtype,
            "softmax: row not finite",
            table=knots(shift_exponential(numerics).table, x.device),
            unit=natural_unit(numerics) * (1 << numerics.fraction_bits),
            **exponential_constants(numerics),
        )
        return output.view(rows.shape).movedim(-1, dim), None


@triton.jit
def _softmax(
    x,
    output,
    ledger,
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
    undefined = largest == float("inf")
    tally(ledger, (here & undefined).to(tl.int32))
    # A row that is all masked has a largest of -inf, and fits.
    places = excess_places(tl.where(tl.abs(largest) == float("inf"), 0.0, largest), F)
    scale = power_of_two(-places)

    top = score_integers(largest, undefined, scale, unit)
    ceiling = row_ceiling(top, places, F)
    # Weights fall with distance, so the largest weight is that of the largest score.
    lift = P - bit_length(_weight(distance_to(ceiling, top, places), table, P, F, REST))

    if WHOLE:
        weight = _weight(distance_to(ceiling, score_integers(value, undefined, scale, unit), places), table, P, F, REST)
        total = _sum(weight, P, COLUMNS)
    else:
        total = tl.zeros([ROWS, 1], tl.int64)
        for start in range(0, dimension, COLUMNS):
            value = tl.load(x + place + start, mask=here & (column + start < dimension), other=-float("inf"))
            score = score_integers(widened(value), undefined, scale, unit)
            total += _sum(_weight(distance_to(ceiling, score, places), table, P, F, REST), P, COLUMNS)
    denominator, inverse, total_places = denominator_of(total, N, P)
    exponent = total_places - lift - N
    up, down = tl.maximum(lift, 0), tl.maximum(-lift, 0)

    if WHOLE:
        q = (quotient((weight << up) >> down, denominator, inverse, N + 1) + 1) >> 1
        y = rounded(tl.where(undefined, float("nan"), decode(q, exponent)), output.dtype.element_ty)
        tl.store(output + place, y, mask=here & (column < dimension))
    else:
        for start in range(0, dimension, COLUMNS):
            seen = here & (column + start < dimension)
            value = widened(tl.load(x + place + start, mask=seen, other=-float("inf")))
            score = score_integers(value, undefined, scale, unit)
            weight = _weight(distance_to(ceiling, score, places), table, P, F, REST)
            q = (quotient((weight << up) >> down, denominator, inverse, N + 1) + 1) >> 1
            y = rounded(tl.where(undefined, float("nan"), decode(q, exponent)), output.dtype.element_ty)
            tl.store(output + place + start, y, mask=seen)


@triton.jit
def _or_infinity(x):
    """Return x with every NaN replaced by +inf, as a maximum may drop a NaN."""
    return tl.where(x == x, x, float("inf"))


@triton.jit
def _weight(distance, table, P: tl.constexpr, F: tl.constexpr, REST: tl.constexpr):
    return decay(half_to_the(distance, table, F, REST, P), distance >> F)


@triton.jit
def _sum(weight, P: tl.constexpr, COLUMNS: tl.constexpr):
    """Return the sum of each row's weights, int64 (ROWS, 1); summed in int32 where COLUMNS weights of 2^P fit."""
    if COLUMNS << P <= 1 << 30:
        return tl.sum(weight, 1, keep_dims=True).to(tl.int64)
    else:
        return tl.sum(weight.to(tl.int64), 1, keep_dims=True)
