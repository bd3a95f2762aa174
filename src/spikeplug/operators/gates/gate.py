"""Compute gates σ(g(x)) and gated inputs x·σ(g(x)): one integer core for the sigmoid, SiLU and all forms of GELU."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from spikeplug.codes import (
    FIXED_RANGE_BITS,
    Coded,
    decode,
    encode_amplitude,
    encode_exponent,
    natural_unit,
)
from spikeplug.numerics import Numerics
from spikeplug.operators.errors import falling_error, output_rounding, relative, weight_error
from spikeplug.operators.exponentials import falling
from spikeplug.operators.finite import elementwise
from spikeplug.operators.ratio import Ratio
from spikeplug.operators.softmax.weights import piecewise_exponential
from spikeplug.primitives.arithmetic import Arithmetic
from spikeplug.primitives.interpolation import Interpolation
from spikeplug.saturation import record

#: End of the table of a curved g. Both GELUs have g(6) > 29 octaves, so 2^-g is 0 for every width (24 at most).
CURVE_END = 6


@dataclass(frozen=True)
class Gate:
    """Define a gate by its g: it multiplies its input by σ(g(x)) = 1 / (1 + exp(-g(x))); g is odd, rising, in nats.

    slope  g(x) = slope·x: a synaptic weight, folded into the encoder
    curve  g of x >= 0 where it is not a straight line, with |g''| <= 4·ln 2 for x in [0, 6]; slope is unused then
    """

    slope: float = 1.0
    curve: Callable[[float], float] | None = None


@lru_cache
def curve_table(gate: Gate, unit: float, fraction_bits: int) -> Interpolation:
    """Return a table of unit·g(x) for x in [0, 6], interpolated in segments 2^-ceil(F/2) wide.

    g is gate.curve, and F is fraction_bits: the table's inputs and outputs are integers in units of 2^-F.
    In octaves (unit = log2 e) |g''| <= 4, so chords miss g by at most 2^-F·4/8 = 2^-(F+1): half the step of an input.
    """
    assert gate.curve is not None
    curve = gate.curve
    return Interpolation.of(
        lambda x: unit * curve(x),
        end=float(CURVE_END),
        segments=CURVE_END << (fraction_bits + 1) // 2,
        input_bits=fraction_bits,
        output_bits=fraction_bits,
    )


def encode_gate(x: Tensor, gate: Gate, numerics: Numerics) -> Tensor:
    """Encode the input of a gate as int32 with numerics.fraction_bits fraction bits; x's shape.

    A gate without a curve gets g(x) = slope·x, in octaves (shift exponential) or nats (piecewise).
    A gate with a curve gets x itself.
    """
    return encode_exponent(x, gate.slope, numerics, CURVE_END if gate.curve is not None else None)


def open_gate(opening: Tensor, gate: Gate, on: Arithmetic) -> tuple[Tensor | None, Tensor, int]:
    """Return (factor, total, b) with σ(g) = factor/total: both integers in units of 2^-P, total < 2^b.

    A factor of None is 1. P is numerics.working_bits.
    opening    the gate's input, as `encode_gate` returns it
    shift      t = 2^-|g| <= 1, so nothing overflows: g >= 0 gives 1/(1 + t), g < 0 gives t/(1 + t)
    piecewise  t = exp(-g) on [-H, H]: 1/(1 + t), as published
    """
    numerics, exponent, width = on.numerics, opening, on.numerics.working_bits
    bits = numerics.fraction_bits + FIXED_RANGE_BITS + 1
    if gate.curve is not None:
        table = curve_table(gate, natural_unit(numerics), numerics.fraction_bits)
        size = on.magnitude(opening, bits, "curve/magnitude")
        exponent = on.signed(on.interpolate(size, table, "curve"), opening, bits, "curve/sign")
    if numerics.exponential == "shift":
        t = falling(on.magnitude(exponent, bits, "exp/magnitude"), on)
        open_side = on.reaches(exponent, 0, bits, "exp/sign")
        return (
            on.select(open_side, 1 << width, t, width + 1, "factor"),
            on.add(t, 1 << width, width + 1, "total"),
            width + 2,
        )
    spec = piecewise_exponential(numerics.half_range, numerics)
    record(f"{on.operator}: exponent beyond H", (exponent < spec.knots[0]) | (exponent > spec.knots[-1]))
    total_bits = width + math.ceil(numerics.half_range / math.log(2)) + 2
    return None, on.add(on.piecewise(-exponent, spec), 1 << width, total_bits, "total"), total_bits


def gated_integers(code: Coded, opening: Tensor, gate: Gate, on: Arithmetic) -> Coded:
    """Return the code of x·σ(g(x)), with an int64 mantissa.

    code     x, as `encode_amplitude` returns it
    opening  the gate's input for the same x, as `encode_gate` returns it
    """
    bits, width = code.bits, on.numerics.working_bits
    magnitude = on.magnitude(code.mantissa, bits)
    factor, total, total_bits = open_gate(opening, gate, on)
    numerator = magnitude.to(torch.int64) << width if factor is None else on.gate(magnitude, factor, bits)
    ratio = Ratio(bits + width + 1, total_bits, 1 << FIXED_RANGE_BITS, per_element=True)
    quotient = ratio(numerator, total, scale_of(code, on.numerics), on)
    return with_sign_of(quotient, code.mantissa, on)


def with_sign_of(code: Coded, sign_of: Tensor, on: Arithmetic) -> Coded:
    """Return `code`, whose mantissa is >= 0, with its sign flipped where `sign_of` is negative."""
    mantissa = on.signed(code.mantissa, sign_of, code.bits + 1)
    return Coded(mantissa, code.exponent, code.bits, code.granularity)


def scale_of(code: Coded, numerics: Numerics) -> Tensor | int:
    """Return the exponent of an input's code: a tensor with numerics.shift_scaling, else the int -fraction_bits.

    `Ratio`, the division, takes it in this form.
    """
    return code.exponent if numerics.shift_scaling else -numerics.fraction_bits


def gated(x: Tensor, gate: Gate, on: Arithmetic) -> Tensor:
    """Return x·σ(g(x)), elementwise; x's shape and dtype. -inf gives NaN, as in torch's gated activations."""

    def rows(x: Tensor) -> Tensor:
        code, opening = encode_amplitude(x, on.operator, on.numerics), encode_gate(x, gate, on.numerics)
        return decode(gated_integers(code, opening, gate, on), x.dtype)

    return elementwise(rows, x, on, ends=(math.nan, math.inf))


def input_range(numerics: Numerics) -> str:
    """Return which inputs an activation represents without loss, as text for reports."""
    if numerics.input_bits is not None:
        return narrow_range(numerics)
    inner = "31 octaves" if numerics.exponential == "shift" else f"±{numerics.half_range:g}"
    wide = f"{numerics.working_bits} bits per vector" if numerics.shift_scaling else f"to 2^{FIXED_RANGE_BITS}"
    return f"x: {wide}; exponent: {inner}, step 2^-{numerics.fraction_bits}"


def narrow_range(numerics: Numerics) -> str:
    """Return how many bits an input code of numerics.input_bits has, and how many inputs share its scale, as text."""
    channels = "per vector" if numerics.scale_block is None else f"per {numerics.scale_block} channels"
    return f"{numerics.input_bits} bits and a sign {channels}"


def largest(numerics: Numerics) -> float:
    """Return the largest output that the neurons of an activation's published form represent; any numerics."""
    return float(1 << FIXED_RANGE_BITS)


# --- The error of a gate ---


def gated_bound(
    x: Tensor, numerics: Numerics, exponent: Callable[[Tensor], Tensor], exact: Tensor, *, curved: bool = False
) -> Tensor:
    """Return the bound of |spiking - exact| of x·σ(g(x)), in x's shape.

    exponent  x -> g(x)
    exact     x·σ(g(x)) in float
    curved    whether g comes from a table

    It adds |x| times the error of σ, the error of coding x, and the output's rounding.
    """
    unit, share = 2.0**-numerics.working_bits, torch.sigmoid(exponent(x))
    slope = 2.0 ** -(numerics.fraction_bits + 2) if curved else 0.0  # the step of a curved input, slope at most 0.4
    if numerics.exponential == "shift":
        share_error = share * (1 - share) * relative(weight_error(numerics, curved=curved)) + slope + unit
    else:
        share_error = published_share_error(exponent(x), numerics, curved=curved) + slope + unit
    if not numerics.shift_scaling:
        return (
            x.abs() * share_error + coding_error(x, numerics) * (share + share_error) + output_rounding(exact, numerics)
        )
    error = x.abs() * share_error + x.abs().amax(-1, keepdim=True) * 4 * unit
    # By chords, 1 + t reaches 1 + exp(H): the step is then that of the largest |x|, however small the outputs.
    rounded = output_rounding(exact if numerics.exponential == "shift" else x, numerics)
    return error * (1 + 2.0 ** (1 - numerics.bits)) + rounded


def coding_error(x: Tensor, numerics: Numerics) -> Tensor:
    """Return the error of coding x in fixed point: half a step, or infinity where x saturates; x's shape."""
    half = torch.full_like(x, 2.0 ** -(numerics.fraction_bits + 1))
    return half.masked_fill(x.abs() >= float(1 << FIXED_RANGE_BITS), math.inf)


def published_share_error(g: Tensor, numerics: Numerics, *, curved: bool = False) -> Tensor:
    """Return the error of σ(g) = 1/(1 + t) with the piecewise exponential for t = exp(-g); g's shape.

    The exponential consists of chords on [-H, H], H = numerics.half_range, and is 0 or exp(H) outside.
    If t is off by at most D, the error is at most D/((1+t)·(1+t-D)). curved: whether g comes from a table.
    """
    share = torch.sigmoid(g)
    lost = falling_error(g, numerics, numerics.half_range, curved=curved)
    t = (-g).clamp(max=numerics.half_range + 1).exp()
    inside = lost.absolute / ((1 + t) * (1 + t - lost.absolute).clamp(min=1e-300))
    saturated = torch.sigmoid(torch.tensor(-numerics.half_range, dtype=g.dtype)) * (1 + 2.0**-15)
    return torch.where(lost.above, torch.maximum(inside * lost.near, (saturated - share).abs()), inside)
