"""Compute mish: x·tanh(ln(1 + exp(x)))."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from spikeplug.codes import FIXED_RANGE_BITS, Coded, decode, encode_amplitude, encode_distance
from spikeplug.numerics import Numerics
from spikeplug.operators.errors import falling_error, output_rounding, relative, weight_error
from spikeplug.operators.exponentials import falling
from spikeplug.operators.finite import elementwise
from spikeplug.operators.gates.gate import coding_error, input_range, largest, scale_of, with_sign_of
from spikeplug.operators.operands import Operands
from spikeplug.operators.ratio import Ratio
from spikeplug.operators.record import Operator
from spikeplug.operators.record import elementwise as spelt
from spikeplug.primitives.arithmetic import Arithmetic


def mish_integers(code: Coded, distance: Tensor, on: Arithmetic) -> Coded:
    """Return the code of x·tanh(ln(1 + exp(x))), with an int64 mantissa.

    code      x, as `encode_amplitude` returns it
    distance  |x| as integers, as `encode_distance` returns them

    With t = exp(-|x|): x·(1 + 2t)/(1 + 2t + 2t²) for x >= 0, x·(t² + 2t)/(t² + 2t + 2) for x < 0.
    """
    bits, width = code.bits, on.numerics.working_bits
    t = falling(distance, on)
    square = on.gate(t, t, width + 1, "t²") >> width
    positive = on.reaches(code.mantissa, 0, bits)
    chosen = on.select(positive, 1 << width, square, width + 1, "1 or t²")
    factor = on.add(chosen, t << 1, width + 2, "factor")
    other = on.select(positive, square, 1 << width, width + 1, "t² or 1")
    half_total = on.add(factor >> 1, other, width + 2, "total")
    numerator = on.gate(on.magnitude(code.mantissa, bits), factor, bits)
    ratio = Ratio(bits + width + 2, width + 2, 1 << FIXED_RANGE_BITS, per_element=True)
    quotient = ratio(numerator, half_total, scale_of(code, on.numerics) - 1, on)
    return with_sign_of(quotient, code.mantissa, on)


def mish(x: Tensor, *, on: Arithmetic) -> Tensor:
    """Return x·tanh(ln(1 + exp(x))), elementwise; x's shape and dtype. -inf gives NaN, as in torch."""

    def rows(x: Tensor) -> Tensor:
        distance = encode_distance(x, 1.0, on.numerics.fraction_bits, on.numerics)
        return decode(mish_integers(encode_amplitude(x, "mish", on.numerics), distance, on), x.dtype)

    return elementwise(rows, x, on, ends=(math.nan, math.inf))


def bound(x: Tensor, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - exact|, in x's shape.

    The factor tanh(ln(1 + exp(x))) is a function of t = exp(-|x|). It changes by at most 0.323 times the relative error
    of t, and by at most the absolute error of t.
    """
    y, unit = F.mish(x), 2.0**-numerics.working_bits
    if numerics.exponential == "shift":
        factor = torch.full_like(x, relative(weight_error(numerics)) / 3) + 4 * unit
    else:
        factor = falling_error(x.abs(), numerics, numerics.half_range).absolute + 4 * unit
    if not numerics.shift_scaling:
        return x.abs() * factor + coding_error(x, numerics) * (1 + factor) + output_rounding(y, numerics)
    error = x.abs() * factor + x.abs().amax(-1, keepdim=True) * 8 * unit
    return error * (1 + 2.0 ** (1 - numerics.bits)) + output_rounding(y, numerics, 2.5)


def integers(given: Operands, on: Arithmetic) -> Coded:
    """Return the code of the operator, from integers that are given."""
    return mish_integers(given.amplitude(), given.distance(), on)


RECORD = Operator(
    name="mish",
    family="curve",
    formula="x·tanh(ln(1 + exp(x)))",
    spiking=mish,
    integers=integers,
    exact=F.mish,
    inputs=("gate",),
    scale="vector",
    grid="exponent",
    bound=bound,
    largest=largest,
    input_range=input_range,
    spellings=spelt("mish"),
    aten=("mish",),
    module="Mish",
)
