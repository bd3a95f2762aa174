"""Compute the exponential of single elements."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spikeplug.codes import Coded, as_input, decode, encode_fixed, natural_unit
from spikeplug.numerics import Numerics
from spikeplug.operators.elements.shared import element_range
from spikeplug.operators.errors import falling_error, weight_error
from spikeplug.operators.operands import Operands
from spikeplug.operators.ratio import EXPONENT_BITS, normalise
from spikeplug.operators.record import Operator, rescaled
from spikeplug.operators.record import elementwise as spelt
from spikeplug.operators.rows import by_elements
from spikeplug.operators.softmax.weights import piecewise_exponential, shift_exponential
from spikeplug.primitives.arithmetic import Arithmetic
from spikeplug.saturation import record

#: Exponents beyond 2^12 octaves are 0 or infinite in every dtype.
_OCTAVE_BITS = 12


def exponential_integers(exponent_input: Tensor, on: Arithmetic) -> Coded:
    """Return the code of exp(x), with an int64 mantissa of numerics.bits bits.

    exponent_input  x, int32 (..., 1), in units of 2^-numerics.fraction_bits
    shift           x in octaves: 2^x = 2^-f · 2^k with k = ceil(x) and 0 <= f < 1
    piecewise       x in nats, exp on [-H, H], H = softmax_half_range
    """
    numerics = on.numerics
    if numerics.exponential == "shift":
        below = -exponent_input  # an inhibitory synapse
        fraction = below & ((1 << numerics.fraction_bits) - 1)
        value = on.mantissa(fraction, shift_exponential(numerics)).to(torch.int64)
        octaves, width = -(below >> numerics.fraction_bits), numerics.working_bits + 1
    else:
        spec = piecewise_exponential(numerics.softmax_half_range, numerics)
        record("exp: exponent beyond H", (exponent_input < spec.knots[0]) | (exponent_input > spec.knots[-1]))
        value = on.piecewise(exponent_input, spec)
        octaves, width = torch.zeros_like(value), numerics.working_bits + 25  # exp(16) < 2^24
    quotient, exponent = normalise(value, width, numerics.bits, on)
    exponent = on.add(exponent, octaves, EXPONENT_BITS, "exponent")
    return Coded(quotient, exponent - numerics.working_bits, numerics.bits, "element")


def exp(x: Tensor, *, on: Arithmetic) -> Tensor:
    """Return exp(x), elementwise; same shape and dtype as x (any floating dtype).

    The result has n = numerics.bits significant bits with all numerics: relative error at most δ + 2^-n.
    δ is the relative error of the exponential (operators/README.md).
    The published piecewise-linear form saturates outside [-H, H], H = softmax_half_range:
    exp(H) above, 0 below, counted.
    NaN gives NaN, +inf gives +inf, and -inf gives 0. As in torch, a result beyond the dtype is inf.
    Errors: SpikeplugError for a non-floating tensor.
    """

    def elements(x: Tensor) -> Tensor:
        bound = 1 << (_OCTAVE_BITS + on.numerics.fraction_bits)
        nonfinite = ~torch.isfinite(x)
        record("input: not finite", nonfinite)
        # float64: the product with log2(e) must not lose what the input step keeps.
        finite = as_input(x.masked_fill(nonfinite, 0.0), on.numerics)
        octaves = finite.to(torch.float64) * natural_unit(on.numerics)
        fixed = encode_fixed(octaves, on.numerics.fraction_bits, -bound, bound)
        output = decode(exponential_integers(fixed, on), x.dtype)
        return torch.where(nonfinite, torch.where(x == -math.inf, 0.0, x), output)

    return by_elements(elements, x, on)


def bound(x: Tensor, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - exact|, in x's shape.

    Shift exponential: exp(x) times (δ of `weight_error`, plus 2^-numerics.bits for rounding).
    Piecewise exponential: the error of its chords inside [-H, H], and of saturation outside; H = softmax_half_range.
    """
    y, lsb = x.exp(), 2.0**-numerics.bits
    if numerics.exponential == "shift":
        delta = weight_error(numerics)
        return y * (delta + lsb * (1 + delta))
    lost = falling_error(-x, numerics, numerics.softmax_half_range)
    highest = math.exp(numerics.softmax_half_range)
    error = torch.where(lost.above, (y - highest).abs() + highest * 2.0**-15 + lost.near * lost.absolute, lost.absolute)
    return error + (y + error) * lsb


def _input_range(numerics: Numerics) -> str:
    if numerics.input_bits is not None:
        return element_range(numerics)
    return "all" if numerics.exponential == "shift" else f"±{numerics.softmax_half_range:g}"


def integers(given: Operands, on: Arithmetic) -> Coded:
    """Return the code of the operator, from integers that are given."""
    bound = 1 << (_OCTAVE_BITS + on.numerics.fraction_bits)
    return exponential_integers(given.each_integer("x", -bound, bound), on)


RECORD = Operator(
    name="exp",
    family="element",
    formula="e^x; each element has its own power-of-two scale",
    spiking=exp,
    integers=integers,
    exact=torch.exp,
    inputs=("exponent",),
    scale="element",
    elementwise=True,
    grid="exponent",
    bound=bound,
    input_range=_input_range,
    spellings=(*spelt("exp"), rescaled("exp2", before=math.log(2))),
    aten=("exp", "exp2", "expm1"),
)
