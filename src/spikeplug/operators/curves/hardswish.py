"""Hardswish: x·min(max(x + 3, 0), 6)/6."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from spikeplug.codes import Coded, decode, encode_amplitude, encode_fixed
from spikeplug.numerics import Numerics
from spikeplug.operators.curves.scaled import scaled
from spikeplug.operators.errors import output_rounding
from spikeplug.operators.finite import elementwise
from spikeplug.operators.gates.gate import coding_error, input_range, largest, with_sign_of
from spikeplug.operators.operands import Operands
from spikeplug.operators.record import Operator, no_settings
from spikeplug.operators.record import elementwise as spelt
from spikeplug.primitives.arithmetic import Arithmetic


def hardswish_integers(code: Coded, opening: Tensor, on: Arithmetic) -> Coded:
    """Return the code of x·min(max(x/6 + 1/2, 0), 1), with an int64 mantissa.

    code     x, as `encode_amplitude` returns it
    opening  x/6 in units of 2^-P, integers; P = numerics.working_bits
    """
    width = on.numerics.working_bits
    gate = on.clamp(on.add(opening, 1 << (width - 1), width + 1, "shifted"), 0, 1 << width, width + 1, "gate")
    product = on.gate(on.magnitude(code.mantissa, code.bits), gate, code.bits)
    fraction_bits = on.numerics.fraction_bits + width  # where the step is fixed
    output = scaled(product, code.exponent - width, code.bits + width + 1, fraction_bits, on)
    return with_sign_of(output, code.mantissa, on)


def hardswish(x: Tensor, *, on: Arithmetic) -> Tensor:
    """Return x·min(max(x + 3, 0), 6)/6, elementwise; x's shape and dtype. -inf gives NaN, as in torch."""

    def rows(x: Tensor) -> Tensor:
        width = on.numerics.working_bits
        opening = encode_fixed(x / 6, width, -1 << width, 1 << width)
        return decode(hardswish_integers(encode_amplitude(x, on.operator, on.numerics), opening, on), x.dtype)

    return elementwise(rows, x, on, ends=(math.nan, math.inf))


def bound(x: Tensor, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - exact|, in x's shape.

    It adds |x| times half a step of the gate min(max(x/6 + 1/2, 0), 1), half a step of x, and the output's rounding.
    """
    gate_error = x.abs() * 2.0 ** -(numerics.working_bits + 1)
    if numerics.shift_scaling:
        code_error = x.abs().amax(-1, keepdim=True) * 2.0 ** (1 - numerics.working_bits)
    else:
        code_error = coding_error(x, numerics)
    error = (gate_error + code_error * (1 + 2.0**-numerics.working_bits)) * (1 + 2.0 ** (1 - numerics.bits))
    return error + output_rounding(F.hardswish(x), numerics, 1.0)


def integers(given: Operands, on: Arithmetic) -> Coded:
    """Return the code of the operator, from integers that are given."""
    one = 1 << on.numerics.working_bits
    return hardswish_integers(given.amplitude(), given.vector("opening", -one, one, torch.int32), on)


RECORD = Operator(
    name="hardswish",
    family="curve",
    formula="x·min(max(x + 3, 0), 6)/6",
    spiking=hardswish,
    integers=integers,
    exact=F.hardswish,
    inputs=("gate",),  # the kind of number that measurements draw
    scale="vector",
    grid="exponent",
    bound=bound,
    largest=largest,
    input_range=input_range,
    spellings=spelt("hardswish"),  # torch functions that a converted model redirects
    modules={"torch.nn.Hardswish": no_settings},  # classes that a plug takes over
    aten=("hardswish",),  # what the audit counts in a model that is not converted
    module="Hardswish",  # the class in spikeplug.nn
)
