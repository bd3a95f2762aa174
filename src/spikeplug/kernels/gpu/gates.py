"""Run sigmoid, SiLU and the GELUs on a GPU, as x·σ(g(x)), or σ(g(x)) for sigmoid, in one Triton kernel."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: N803  (what is in capitals is known when a kernel is compiled)

from __future__ import annotations

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor

from spikeplug.codes import natural_unit
from spikeplug.codes.elements import OCTAVES
from spikeplug.kernels.gpu.integers import (
    bit_length,
    chord,
    decay,
    decode,
    finite,
    half_to_the,
    is_finite,
    magnitude_bits,
    nearest_mantissa,
    nearest_small,
    power_of_two,
    quotient_each,
    scale_exponent,
    tally,
    widened,
)
from spikeplug.kernels.gpu.launch import exponential_constants, knots, run_rows
from spikeplug.kernels.gpu.norms import weighted
from spikeplug.kernels.protocol import Call
from spikeplug.operators.gates.gate import CURVE_END, Gate, curve_table
from spikeplug.operators.gates.gelu import gelu_gate
from spikeplug.operators.softmax.weights import shift_exponential


class Gated:
    """Run SiLU, sigmoid or GELU over the rows of x, optionally times a weight of the shape of x."""

    def __init__(self, gate: Gate | None, *, amplitude: bool = True) -> None:
        """Choose the function that is run.

        gate: its σ(g(x)); None for GELU, which chooses it by the call's second argument.
        amplitude: run x·σ(g(x)); if False, σ(g(x)) alone.
        """
        self._gate, self._amplitude = gate, amplitude

    def supports(self, call: Call) -> str | None:
        if call.bias is not None:
            return "this kernel adds no bias"
        if call.weight is not None and call.weight.shape != call.arguments[0].shape:
            return "this kernel multiplies only by a tensor of the input's shape"
        return None

    def run(self, call: Call) -> tuple[Tensor, None]:
        x, weight, numerics = call.arguments[0], call.weight, call.numerics
        gate = self._gate or gelu_gate(call.arguments[1])
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        exponential = knots(shift_exponential(numerics).table, x.device)
        curve, segments, curve_rest, limit = exponential, 0, 0, OCTAVES
        if gate.curve is not None:
            table = curve_table(gate, natural_unit(numerics), numerics.fraction_bits)
            curve, segments, curve_rest, limit = knots(table, x.device), table.segments, table.rest_bits, CURVE_END
        output = run_rows(
            _gate,
            rows,
            x.dtype if weight is None else torch.promote_types(x.dtype, weight.dtype),
            "input: not finite",
            weight=rows if weight is None else weight.reshape(rows.shape).contiguous(),
            table=exponential,
            curve=curve,
            slope=1.0 if gate.curve is not None else gate.slope * natural_unit(numerics),
            SEGMENTS=segments,
            CURVE_REST=curve_rest,
            LIMIT=limit,
            AMPLITUDE=self._amplitude,
            WEIGHTED=weight is not None,
            **exponential_constants(numerics),
        )
        return output.view(x.shape), None


@triton.jit
def _gate(
    x,
    output,
    ledger,
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

    # An element that is not finite is computed as 0, and replaced at the end.
    if WHOLE:
        value = widened(tl.load(x + place, mask=here & (column < dimension), other=0.0))
        largest, broken = _range(value)
    else:
        largest, broken = tl.zeros([ROWS, 1], tl.int32), tl.zeros([ROWS, 1], tl.int32)
        for start in range(0, dimension, COLUMNS):
            value = widened(tl.load(x + place + start, mask=here & (column + start < dimension), other=0.0))
            part, more = _range(value)
            largest, broken = tl.maximum(largest, part), broken + more
    tally(ledger, broken)
    exponent = scale_exponent(largest, P)
    scale = power_of_two(-exponent)

    # Numerators up to 2^(2P - 1); only the length of the largest is wanted, and a row of none but 0 has length 0.
    if WHOLE:
        seen = column < dimension
        mantissa, factor, t = _parts(value, scale, slope, table, curve, P, F, REST, SEGMENTS, CURVE_REST, LIMIT)
        most = tl.max(_numerator(mantissa, factor, seen, AMPLITUDE), 1, keep_dims=True)
    else:
        most = tl.zeros([ROWS, 1], tl.int64)
        for start in range(0, dimension, COLUMNS):
            seen = column + start < dimension
            value = widened(tl.load(x + place + start, mask=here & seen, other=0.0))
            mantissa, factor, t = _parts(value, scale, slope, table, curve, P, F, REST, SEGMENTS, CURVE_REST, LIMIT)
            most = tl.maximum(most, tl.max(_numerator(mantissa, factor, seen, AMPLITUDE), 1, keep_dims=True))
    places = P - bit_length(most)
    up, down = tl.maximum(places, 0), tl.maximum(-places, 0)
    exponent = (exponent if AMPLITUDE else 0) - places - N

    if WHOLE:
        y = _divided(value, mantissa, factor, t, up, down, exponent, AMPLITUDE, N, P)
        seen = here & (column < dimension)
        y = weighted(y, weight + place, seen, WEIGHTED, x.dtype.element_ty, output.dtype.element_ty)
        tl.store(output + place, y, mask=seen)
    else:
        for start in range(0, dimension, COLUMNS):
            seen = here & (column + start < dimension)
            value = widened(tl.load(x + place + start, mask=seen, other=0.0))
            mantissa, factor, t = _parts(value, scale, slope, table, curve, P, F, REST, SEGMENTS, CURVE_REST, LIMIT)
            y = _divided(value, mantissa, factor, t, up, down, exponent, AMPLITUDE, N, P)
            y = weighted(y, weight + place + start, seen, WEIGHTED, x.dtype.element_ty, output.dtype.element_ty)
            tl.store(output + place + start, y, mask=seen)


@triton.jit
def _range(x):
    """Return the largest |x| of each row's finite elements, as `magnitude_bits`, and how many are not finite.

    Both are int32 (ROWS, 1).
    """
    counted = is_finite(x)
    largest = tl.max(tl.where(counted, magnitude_bits(x), 0), 1, keep_dims=True)
    return largest, tl.sum((~counted).to(tl.int32), 1, keep_dims=True)


@triton.jit
def _parts(
    x,
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
    """Return (mantissa, factor, t), int32: x as an integer, and its gate as σ(g(x)) = factor / (2^P + t).

    mantissa = round(x·scale). t is 2^-|g(x)| with P fraction bits, g in octaves. factor is 2^P for g >= 0, else t.
    An x that is not finite counts as 0.
    """
    x = finite(x)
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
def _divided(x, mantissa, factor, t, up, down, exponent, AMPLITUDE: tl.constexpr, N: tl.constexpr, P: tl.constexpr):
    """Return the outputs in float32: round(2^N·floor(numerator·2^(up - down)) / (2^P + t))·2^exponent.

    numerator: |mantissa|·factor if AMPLITUDE, with the mantissa's sign put back at the end, else factor.
    up, down: the row's left and right shift, of which one is 0.
    An x of NaN gives NaN; +inf gives +inf if AMPLITUDE, else 1; -inf gives NaN if AMPLITUDE, else 0.
    """
    if AMPLITUDE:
        numerator = (((tl.abs(mantissa) << up).to(tl.int64) * factor) >> down.to(tl.int64)).to(tl.int32)
    else:
        numerator = (factor << up) >> down
    q = (quotient_each(numerator, (1 << P) + t, N + 1) + 1) >> 1
    if AMPLITUDE:
        q = tl.where(mantissa < 0, -q, q)
    y = decode(q, exponent)
    # Of x: -inf gives NaN, or 0; +inf gives itself, or 1; NaN gives NaN.
    if AMPLITUDE:
        return tl.where(is_finite(x), y, tl.where(x > 0, x, float("nan")))
    else:
        return tl.where(is_finite(x), y, tl.where(x > 0, 1.0, tl.where(x < 0, 0.0, float("nan"))))
