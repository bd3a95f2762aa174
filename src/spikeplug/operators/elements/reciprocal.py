"""Compute the reciprocal of single elements: 1 / x."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.codes import Coded
from spikeplug.operators.elements.divide import divide_rows, quotient_integers
from spikeplug.operators.elements.shared import element_range, relative_bound
from spikeplug.operators.operands import Operands
from spikeplug.operators.record import Operator
from spikeplug.operators.record import elementwise as spelt
from spikeplug.operators.rows import by_elements
from spikeplug.primitives.arithmetic import Arithmetic


def reciprocal(x: Tensor, *, on: Arithmetic) -> Tensor:
    """Return 1 / x, elementwise; same shape and dtype as x (any floating dtype). 1/0 is inf, and 1/inf is 0.

    Each element has its own power-of-two scale: relative error at most 2^-n + 2^(3-P), n = numerics.bits and
    P = numerics.working_bits.
    Errors: SpikeplugError for a non-floating tensor.
    """
    return by_elements(lambda block: divide_rows(torch.ones_like(block), block, on), x, on)


def integers(given: Operands, on: Arithmetic) -> Coded:
    """Return the code of the operator, of a number > 0, from integers that are given."""
    x = given.each(negative=False)
    one = Coded(torch.ones_like(x.mantissa), torch.zeros_like(x.exponent), 1, "element")
    return quotient_integers(one, x, on)


RECORD = Operator(
    name="reciprocal",
    family="element",
    formula="1 / x; ±inf at ±0",
    spiking=reciprocal,
    integers=integers,
    exact=torch.reciprocal,
    inputs=("positive",),
    scale="element",
    elementwise=True,
    grid="octaves",
    bound=relative_bound(torch.reciprocal),
    input_range=element_range,
    spellings=spelt("reciprocal"),
    aten=("reciprocal",),
)
