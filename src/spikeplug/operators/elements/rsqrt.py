"""Compute the reciprocal square root of single elements."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spikeplug.codes import Coded, decode, encode_elements
from spikeplug.operators.elements.divide import quotient_integers
from spikeplug.operators.elements.shared import element_range, relative_bound, root_integers
from spikeplug.operators.operands import Operands
from spikeplug.operators.record import Operator
from spikeplug.operators.record import elementwise as spelt
from spikeplug.operators.rows import by_elements
from spikeplug.primitives.arithmetic import Arithmetic


def inverse_root_integers(code: Coded, on: Arithmetic) -> Coded:
    """Return the code of 1 / sqrt(|code|); 0 for 0."""
    size = Coded(on.magnitude(code.mantissa, code.bits + 1), code.exponent, code.bits, "element")
    root = root_integers(size, on)
    one = Coded(torch.ones_like(root.mantissa), torch.zeros_like(root.exponent), 1, "element")
    return quotient_integers(one, root, on)


def rsqrt(x: Tensor, *, on: Arithmetic) -> Tensor:
    """Return 1 / sqrt(x), elementwise; same shape and dtype as x (any floating dtype).

    Relative error: at most 2^-n + 2^(3-P), n = numerics.bits and P = numerics.working_bits.
    0 gives inf, -0 gives -inf, inf gives 0, and a negative number or NaN gives NaN.
    Errors: SpikeplugError for a non-floating tensor.
    """

    def elements(x: Tensor) -> Tensor:
        code = encode_elements(x, on.numerics)
        output = decode(inverse_root_integers(code, on), x.dtype)
        output = torch.where(x == 0, torch.copysign(torch.full_like(x, math.inf), x), output)
        return output.masked_fill(x == math.inf, 0.0).masked_fill((x < 0) | torch.isnan(x), math.nan)

    return by_elements(elements, x, on)


def integers(given: Operands, on: Arithmetic) -> Coded:
    """Return the code of the operator, from integers that are given."""
    return inverse_root_integers(given.each(), on)


RECORD = Operator(
    name="rsqrt",
    family="element",
    formula="1 / √x; inf at 0",
    spiking=rsqrt,
    integers=integers,
    exact=torch.rsqrt,
    inputs=("positive",),
    scale="element",
    elementwise=True,
    grid="octaves",
    bound=relative_bound(torch.rsqrt),
    input_range=element_range,
    spellings=spelt("rsqrt"),
    aten=("rsqrt",),
)
