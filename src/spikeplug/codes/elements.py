"""Encode single elements: a power of two per element, or one fixed step for all."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spikeplug.codes.coded import Coded, fixed
from spikeplug.codes.vectors import as_input, encode_blocks
from spikeplug.numerics import Numerics
from spikeplug.saturation import record

#: Without a scale of its own, an input is a fixed-point number up to 2^10; beyond, it saturates and is counted.
FIXED_RANGE_BITS = 10
#: Beyond 31 octaves, 2^-x is 0 at every width.
OCTAVES = 31


def encode_fixed(x: Tensor, fraction_bits: int, low: int, high: int) -> Tensor:
    """Return round(x · 2^fraction_bits) clamped to [low, high], int32; x finite or infinite, float32 or float64."""
    return (x * (1 << fraction_bits)).clamp_(low, high).round_().to(torch.int32)


def encode_elements(x: Tensor, numerics: Numerics) -> Coded:
    """Encode each element with its own power of two: 2^(P-2) <= |mantissa| <= 2^(P-1) for finite x other than 0.

    P is `numerics.working_bits`.
    x: float32 or float64; mantissa and exponent: int32 of its shape. |x - mantissa·2^exponent| <= |x|·2^(1-P), denormal
    numbers included. With input_bits, x is first rounded by `as_input`.
    """
    bits, x = numerics.working_bits, as_input(x, numerics)
    finite = torch.isfinite(x)
    nonfinite = None
    if not bool(finite.all()):
        nonfinite = ~finite
        record("input: not finite", nonfinite)
        x = x.masked_fill(nonfinite, 0.0)
    code = encode_each(x, bits - 1)
    return Coded(code.mantissa, code.exponent, code.bits, "element", nonfinite)


def encode_each(x: Tensor, bits: int) -> Coded:
    """Encode each element with its own power of two: 2^(bits-1) <= |mantissa| <= 2^bits for x other than 0.

    x: float32 or float64, finite; mantissa and exponent: int32 of its shape. Rounded to nearest, ties to even, denormal
    numbers included: 24 bits hold every float32.
    """
    fraction, exponent = torch.frexp(x)
    mantissa = (fraction * (1 << bits)).round_().to(torch.int32)
    return Coded(mantissa, exponent.to(torch.int32) - bits, bits, "element")


def encode_amplitude(x: Tensor, operator: str, numerics: Numerics) -> Coded:
    """Encode an activation's input x, of finite floats, as integers with their exponents.

    With `shift_scaling`: `working_bits` bits with the sign, and a power-of-two scale per vector, or per `scale_block`.
    Else: fixed point with `fraction_bits` fraction bits, clamped to ±2^10.

    operator: the name under which saturations of the fixed-point form are counted.
    """
    if numerics.shift_scaling:
        code = encode_blocks(x, numerics.working_bits, numerics.scale_block)
        return Coded(code.mantissa, code.exponent, numerics.working_bits, code.granularity)
    bound = 1 << (FIXED_RANGE_BITS + numerics.fraction_bits)
    mantissa = encode_fixed(x, numerics.fraction_bits, -bound, bound)
    record(f"{operator}: input beyond 2^{FIXED_RANGE_BITS}", mantissa.abs() == bound)
    return fixed(mantissa, numerics.fraction_bits, FIXED_RANGE_BITS + numerics.fraction_bits + 1)


def encode_exponent(x: Tensor, slope: float, numerics: Numerics, reach: int | None = None) -> Tensor:
    """Return the exponent slope · x of e as int32 with `numerics.fraction_bits` fraction bits.

    Its unit is the octave (an exponent of 2, for exponential="shift") or the nat (of e, for "piecewise").
    reach: return x itself instead, clamped to ±reach, without slope or unit (for a table of x).
    None: clamp the exponent to ±31 octaves, or ±1024 nats.
    """
    if reach is not None:
        scale, limit = 1.0, reach
    else:
        scale = slope * natural_unit(numerics)
        limit = OCTAVES if numerics.exponential == "shift" else 1 << FIXED_RANGE_BITS
    bound = limit << numerics.fraction_bits
    return encode_fixed(x * scale, numerics.fraction_bits, -bound, bound)


def encode_distance(x: Tensor, scale: float, fraction_bits: int, numerics: Numerics) -> Tensor:
    """Return scale · |x|, an exponent of e, as int32 with `fraction_bits` fraction bits.

    Its unit is the octave (an exponent of 2, for exponential="shift") or the nat (of e, for "piecewise").
    It is clamped to 31 octaves, or 1024 nats.
    """
    limit = OCTAVES if numerics.exponential == "shift" else 1 << FIXED_RANGE_BITS
    return encode_fixed(x.abs() * (scale * natural_unit(numerics)), fraction_bits, 0, limit << fraction_bits)


def encode_phase(x: Tensor, bits: int) -> Tensor:
    """Return x radians as a phase of 2^bits steps per turn, in [0, 2^bits), int32; x finite.

    Computed in float64: off by at most half a step and |x|·2^-52 radians, so a float32 position loses nothing beyond
    its own rounding.
    """
    turns = x.to(torch.float64) * (0.5 / math.pi)
    phase = ((turns - turns.round()) * (1 << bits)).round_().to(torch.int32)
    return phase & ((1 << bits) - 1)


def natural_unit(numerics: Numerics) -> float:
    """Return the factor from an exponent of e to the unit of the numerics: log2(e) for powers of 2, else 1."""
    return math.log2(math.e) if numerics.exponential == "shift" else 1.0
