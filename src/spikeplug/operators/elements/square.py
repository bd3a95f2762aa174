"""Compute the square of single elements."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.codes import Coded, decode, encode_elements
from spikeplug.operators.elements.shared import element_range, relative_bound
from spikeplug.operators.operands import Operands
from spikeplug.operators.ratio import EXPONENT_BITS, normalise
from spikeplug.operators.record import Operator
from spikeplug.operators.record import elementwise as spelt
from spikeplug.operators.rows import by_elements
from spikeplug.primitives.arithmetic import Arithmetic


def square_integers(code: Coded, on: Arithmetic) -> Coded:
    """Return the code of the square of `code`, whose mantissa is (..., 1); int64 mantissa of numerics.bits bits."""
    width = on.numerics.working_bits
    quotient, places = normalise(on.square_sum(code.mantissa, width), 2 * width, on.numerics.bits, on)
    exponent = on.add(code.exponent << 1, places, EXPONENT_BITS, "exponent")
    return Coded(quotient, exponent, on.numerics.bits, "element")


def square(x: Tensor, *, on: Arithmetic) -> Tensor:
    """Return x², elementwise; same shape and dtype as x (any floating dtype).

    The result has n significant bits with all numerics: relative error at most 2^-n + 2^(3-P);
    n = numerics.bits, P = numerics.working_bits.
    An infinity gives +inf, and NaN gives NaN.
    Errors: SpikeplugError for a non-floating tensor.
    """

    def elements(x: Tensor) -> Tensor:
        code = encode_elements(x, on.numerics)
        output = decode(square_integers(code, on), x.dtype)
        return output if code.nonfinite is None else torch.where(code.nonfinite, x.abs(), output)

    return by_elements(elements, x, on)


def integers(given: Operands, on: Arithmetic) -> Coded:
    """Return the code of the operator, from integers that are given."""
    return square_integers(given.each(), on)


RECORD = Operator(
    name="square",
    family="element",
    formula="x²",
    spiking=square,
    integers=integers,
    exact=torch.square,
    inputs=("residual",),
    scale="element",
    elementwise=True,
    grid="octaves",
    bound=relative_bound(torch.square),
    input_range=element_range,
    spellings=spelt("square"),
)
