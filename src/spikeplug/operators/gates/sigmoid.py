"""Compute the sigmoid: σ(x) = 1/(1 + exp(-x))."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from spikeplug.codes import Coded, decode
from spikeplug.numerics import Numerics
from spikeplug.operators.errors import output_rounding, relative, weight_error
from spikeplug.operators.finite import elementwise
from spikeplug.operators.gates.gate import Gate, encode_gate, input_range, open_gate, published_share_error
from spikeplug.operators.operands import Operands
from spikeplug.operators.ratio import Ratio
from spikeplug.operators.record import Operator, Spelling
from spikeplug.operators.record import elementwise as spelt
from spikeplug.primitives.arithmetic import Arithmetic

GATE = Gate()


def sigmoid_integers(opening: Tensor, on: Arithmetic) -> Coded:
    """Return the code of σ(x), with an int64 mantissa; `opening` is x as `encode_gate` codes it, with g(x) = x."""
    factor, total, total_bits = open_gate(opening, GATE, on)
    width = on.numerics.working_bits
    numerator = torch.full_like(total, 1 << width) if factor is None else factor
    return Ratio(width + 1, total_bits, largest_output=1, per_element=True)(numerator, total, 0, on)


def sigmoid(x: Tensor, *, on: Arithmetic) -> Tensor:
    """Return σ(x) = 1/(1 + exp(-x)), elementwise; x's shape and dtype. NaN gives NaN."""

    def rows(x: Tensor) -> Tensor:
        return decode(sigmoid_integers(encode_gate(x, GATE, on.numerics), on), x.dtype)

    return elementwise(rows, x, on, ends=(0.0, 1.0))


def bound(x: Tensor, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - exact|, in x's shape.

    Shift exponential: σ'(x)·δ/(1-δ) + 2^(1-P) plus the output's rounding. δ is the relative error of the exponential,
    and P is numerics.working_bits.
    Piecewise exponential: the error of its chords and saturation, 2^-P, and the output's rounding.
    """
    y, unit = torch.sigmoid(x), 2.0**-numerics.working_bits
    if numerics.exponential == "shift":
        error = y * (1 - y) * relative(weight_error(numerics)) + 2 * unit
    else:
        error = published_share_error(x, numerics) + unit
    return error * (1 + 2.0 ** (1 - numerics.bits)) + output_rounding(y, numerics)


def _glu(operator: Callable[..., Tensor], input: Tensor, dim: int = -1) -> Tensor:
    value, gate = input.chunk(2, dim)
    return value * operator(gate)


def integers(given: Operands, on: Arithmetic) -> Coded:
    """Return the code of the operator, from integers that are given."""
    return sigmoid_integers(given.opening(), on)


RECORD = Operator(
    name="sigmoid",
    family="gate",
    formula="1 / (1 + exp(-x))",
    spiking=sigmoid,
    integers=integers,
    exact=torch.sigmoid,
    inputs=("gate",),
    scale="vector",
    grid="exponent",
    bound=bound,
    input_range=input_range,
    spellings=(*spelt("sigmoid", "expit"), Spelling(("glu",), _glu)),
    aten=("sigmoid", "glu"),
    module="Sigmoid",
)
