"""Gated inputs, x·σ(g(x)): one integer core for the sigmoid, SiLU and all forms of GELU."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from spikeplug.coding import Coded, encode_fixed
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.operators.blocks import encode_blocks
from spikeplug.operators.ratio import Ratio, signed
from spikeplug.operators.scores import natural_unit, piecewise_exponential, shift_exponential
from spikeplug.primitives.arithmetic import Arithmetic
from spikeplug.primitives.exponential import ShiftExponential
from spikeplug.primitives.interpolation import Interpolation
from spikeplug.saturation import record

#: Without a scale of its own, an input is a fixed-point number up to 2^10; beyond, it saturates and is counted.
FIXED_RANGE_BITS = 10
#: Beyond 31 octaves 2^-g is 0 for every width.
OCTAVES = 31
#: A curved g is tabulated up to here: both GELUs have g(6) > 29 octaves, so 2^-g is 0 for every width (24 at most).
CURVE_END = 6


@dataclass(frozen=True)
class Gate:
    """σ(g(x)) = 1 / (1 + exp(-g(x))), the share of x that the gate lets through; g odd, rising, in nats.

    name   under which saturations are counted
    slope  g(x) = slope·x: a synaptic weight, folded into the encoder
    curve  g of x >= 0 where it is no straight line, with |g''| <= 4·ln 2 on [0, CURVE_END]; slope is unused then
    """

    name: str
    slope: float = 1.0
    curve: Callable[[float], float] | None = None


def erf_exponent(x: float) -> float:
    """ln(Φ(x)/Φ(-x)): Φ(x) = σ of it. Its second derivative lies in [-1, 1], as those of ln Φ(x) and -ln Φ(-x) do."""
    return math.log(math.erfc(-x / math.sqrt(2)) / math.erfc(x / math.sqrt(2)))


def tanh_exponent(x: float) -> float:
    """2·sqrt(2/π)·(x + 0.044715·x³): (1 + tanh u)/2 = σ(2u). Its second derivative at 6 is 2.57 < 4·ln 2."""
    return 2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)


SIGMOID = Gate("sigmoid")
SILU = Gate("silu")
GELU = {
    "none": Gate("gelu", curve=erf_exponent),
    "tanh": Gate("gelu", curve=tanh_exponent),
    "quick": Gate("gelu", slope=1.702),
}


def gelu_gate(approximate: str) -> Gate:
    """The gate of a form of GELU. Errors: SpikeplugError for an `approximate` that is none."""
    if not isinstance(approximate, str) or approximate not in GELU:
        raise SpikeplugError(f"gelu got approximate={approximate!r}; choose one of {', '.join(map(repr, GELU))}.")
    return GELU[approximate]


@lru_cache
def curve_table(gate: Gate, unit: float, fraction_bits: int) -> Interpolation:
    """unit·g over [0, CURVE_END], F fraction bits in and out, in segments 2^-ceil(F/2) wide.

    In octaves (unit = log2 e) |g''| <= 4, so chords miss g by at most 2^-F·4/8 = 2^-(F+1): the step of an input.
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


def encode_exponent(x: Tensor, gate: Gate, numerics: Numerics) -> Tensor:
    """What the gate opens by: g(x) itself where g is linear (octaves for shift, else nats), else x; int32, F bits."""
    if gate.curve is not None:
        scale, limit = 1.0, CURVE_END
    else:
        scale = gate.slope * natural_unit(numerics)
        limit = OCTAVES if numerics.exponential == "shift" else 1 << FIXED_RANGE_BITS
    bound = limit << numerics.fraction_bits
    return encode_fixed(x * scale, numerics.fraction_bits, -bound, bound)


def encode_distance(x: Tensor, scale: float, fraction_bits: int, numerics: Numerics) -> Tensor:
    """scale·|x|, in octaves for shift, else nats; int32, `fraction_bits` fraction bits, for `falling`."""
    limit = OCTAVES if numerics.exponential == "shift" else 1 << FIXED_RANGE_BITS
    return encode_fixed(x.abs() * (scale * natural_unit(numerics)), fraction_bits, 0, limit << fraction_bits)


def encode_amplitude(x: Tensor, name: str, numerics: Numerics) -> Coded:
    """x, finite, as `amplitude_bits` wide integers: P bits, a scale a vector (or block), or F fraction bits."""
    if numerics.shift_scaling:
        return encode_blocks(x, numerics.working_bits, numerics.scale_block)
    bound = 1 << (FIXED_RANGE_BITS + numerics.fraction_bits)
    mantissa = encode_fixed(x, numerics.fraction_bits, -bound, bound)
    record(f"{name}: input beyond 2^{FIXED_RANGE_BITS}", mantissa.abs() == bound)
    return Coded(mantissa, torch.tensor(-numerics.fraction_bits, dtype=torch.int32, device=x.device), None)


def amplitude_bits(numerics: Numerics) -> int:
    """The magnitude of an encoded amplitude is below 2^this."""
    return numerics.working_bits if numerics.shift_scaling else FIXED_RANGE_BITS + numerics.fraction_bits + 1


def falling(
    distance: Tensor, name: str, numerics: Numerics, on: Arithmetic, exponential: ShiftExponential | None = None
) -> Tensor:
    """t = exp(-distance), distance >= 0 as `encode_distance` gives it: in Q(P), int64, 0 <= t <= 1.

    exponential: a 2^-x of its own for the shift form, with the fraction bits of `distance`.
    """
    if numerics.exponential == "shift":
        spec = exponential or shift_exponential(numerics)
        mantissa = on.mantissa(distance, spec)
        return on.decay(mantissa, distance >> spec.fraction_bits).to(torch.int64)
    piecewise = piecewise_exponential(numerics.half_range, numerics)
    record(f"{name}: exponent beyond H", distance > piecewise.knots[-1])
    # Where 0 is inside a segment, its chord lies above 1.
    return on.piecewise(-distance, piecewise).clamp(max=1 << numerics.working_bits)


def gate_integers(
    exponent_input: Tensor, gate: Gate, numerics: Numerics, on: Arithmetic
) -> tuple[Tensor | None, Tensor, int]:
    """(factor, total, b): σ(g) is factor/total, both in Q(P), int64, total < 2^b; a factor of None is 1.

    shift      t = 2^-|g|: g >= 0 gives 1/(1 + t), g < 0 gives t/(1 + t); t <= 1, so nothing overflows.
    piecewise  t = exp(-g) on [-H, H]: 1/(1 + t), as published.
    """
    exponent, width = exponent_input, numerics.working_bits
    if gate.curve is not None:
        table = curve_table(gate, natural_unit(numerics), numerics.fraction_bits)
        exponent = signed(on.interpolate(exponent_input.abs(), table), exponent_input)
    if numerics.exponential == "shift":
        t = falling(exponent.abs(), gate.name, numerics, on)
        return torch.where(exponent < 0, t, 1 << width), t + (1 << width), width + 2
    spec = piecewise_exponential(numerics.half_range, numerics)
    record(f"{gate.name}: exponent beyond H", (exponent < spec.knots[0]) | (exponent > spec.knots[-1]))
    t = on.piecewise(-exponent, spec)
    return None, t + (1 << width), width + math.ceil(numerics.half_range / math.log(2)) + 2


def gated_integers(
    code: Coded, exponent_input: Tensor, gate: Gate, numerics: Numerics, on: Arithmetic
) -> tuple[Tensor, Tensor]:
    """(q, exponent): x·σ(g(x)) is q·2^exponent, int64; x is code.mantissa·2^code.exponent (`encode_amplitude`) and
    exponent_input (`encode_exponent`) the same x again, of the same sign. All in integers, Q(P) inside."""
    bits, width = amplitude_bits(numerics), numerics.working_bits
    magnitude = code.mantissa.abs()
    factor, total, total_bits = gate_integers(exponent_input, gate, numerics, on)
    numerator = magnitude.to(torch.int64) << width if factor is None else on.gate(magnitude, factor, bits)
    ratio = Ratio(gate.name, bits + width + 1, total_bits, 1 << FIXED_RANGE_BITS, per_element=True)
    quotient, exponent = ratio(numerator, total, scale_of(code, numerics), numerics, on)
    return signed(quotient, code.mantissa), exponent


def sigmoid_integers(exponent_input: Tensor, numerics: Numerics, on: Arithmetic) -> tuple[Tensor, Tensor]:
    """(q, exponent): σ(x) is q·2^exponent, int64; exponent_input: `encode_exponent` of x for SIGMOID."""
    factor, total, total_bits = gate_integers(exponent_input, SIGMOID, numerics, on)
    numerator = torch.full_like(total, 1 << numerics.working_bits) if factor is None else factor
    ratio = Ratio(SIGMOID.name, numerics.working_bits + 1, total_bits, largest_output=1, per_element=True)
    return ratio(numerator, total, 0, numerics, on)


def scale_of(code: Coded, numerics: Numerics) -> Tensor | int:
    """The exponent of an encoded amplitude, as `Ratio` wants it: an int where the step is fixed."""
    return code.exponent if numerics.shift_scaling else -numerics.fraction_bits
