"""Compute the square root of single elements."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spikeplug.codes import Coded, decode, encode_elements
from spikeplug.operators.elements.shared import element_range, relative_bound, root_integers
from spikeplug.operators.operands import Operands
from spikeplug.operators.ratio import EXPONENT_BITS, normalise
from spikeplug.operators.record import Operator
from spikeplug.operators.record import elementwise as spelt
from spikeplug.operators.rows import by_elements
from spikeplug.primitives.arithmetic import Arithmetic


def square_root_integers(code: Coded, on: Arithmetic) -> Coded:
    """Return the code of the square root of |code|, of numerics.bits significant bits."""
    size = Coded(on.magnitude(code.mantissa, code.bits + 1), code.exponent, code.bits, "element")
    root = root_integers(size, on)
    quotient, places = normalise(root.mantissa, root.bits + 1, on.numerics.bits, on)
    exponent = on.add(root.exponent, places, EXPONENT_BITS, "exponent")
    return Coded(quotient, exponent, on.numerics.bits, "element")


def sqrt(x: Tensor, *, on: Arithmetic) -> Tensor:
    """Return sqrt(x), elementwise; same shape and dtype as x (any floating dtype).

    The result has n significant bits with all numerics: relative error at most 2^-n + 2^(3-P);
    n = numerics.bits, P = numerics.working_bits.
    The root neuron is used with norm = "cordic" too, as CORDIC has no root of a number.
    A negative number and NaN give NaN; +inf gives +inf.
    Errors: SpikeplugError for a non-floating tensor.
    """

    def elements(x: Tensor) -> Tensor:
        code = encode_elements(x, on.numerics)
        output = decode(square_root_integers(code, on), x.dtype)
        return output.masked_fill(x == math.inf, math.inf).masked_fill((x < 0) | torch.isnan(x), math.nan)

    return by_elements(elements, x, on)


def integers(given: Operands, on: Arithmetic) -> Coded:
    """Return the code of the operator, from integers that are given."""
    return square_root_integers(given.each(), on)


RECORD = Operator(
    name="sqrt",
    family="element",
    formula="√x; NaN below 0",
    spiking=sqrt,
    integers=integers,
    exact=torch.sqrt,
    inputs=("positive",),
    scale="element",
    elementwise=True,
    grid="octaves",
    bound=relative_bound(torch.sqrt),
    input_range=element_range,
    spellings=spelt("sqrt"),
    aten=("sqrt",),
)
