"""Compute the quotient of single elements: a / b."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spikeplug.codes import Coded, as_real, decode, encode_elements
from spikeplug.errors import SpikeplugError
from spikeplug.operators.elements.shared import element_range, relative_bound
from spikeplug.operators.operands import Operands
from spikeplug.operators.ratio import EXPONENT_BITS, Ratio
from spikeplug.operators.record import Operator
from spikeplug.operators.rows import by_rows
from spikeplug.primitives.arithmetic import Arithmetic


def quotient_integers(numerator: Coded, denominator: Coded, on: Arithmetic) -> Coded:
    """Return the code of numerator / denominator, int64 with n significant bits; 0 for a denominator of 0.

    The mantissas are >= 0, with shapes (..., 1) that broadcast. Both are shifted to P bits.
    n is numerics.bits, P numerics.working_bits.
    Relative error: at most 2^-n from rounding, and 2^(1-P) for a denominator wider than P bits.
    """
    exponent = on.add(numerator.exponent, -denominator.exponent, EXPONENT_BITS, "exponent")
    ratio = Ratio(numerator.bits + 1, denominator.bits + 1, largest_output=2)
    return ratio.scaled(numerator.mantissa.to(torch.int64), denominator.mantissa.to(torch.int64), exponent, on)


def divide(a: Tensor, b: Tensor, *, on: Arithmetic) -> Tensor:
    """Return a / b with broadcasting; the shape and dtype of torch's a / b (any floating dtypes).

    Every element has its own power-of-two scale, with all numerics: relative error at most 2^-n + 2^(3-P);
    n = numerics.bits, P = numerics.working_bits.
    (The published recipe's fixed step has no meaning for numbers of any range.)
    If b's last dimension is 1 and a's is not, one denominator is coded per vector of a; the result is the same.
    As in torch, x/0 is an infinity, 0/0 is NaN, x/inf is 0, and NaN stays NaN.
    Errors: SpikeplugError for a non-floating tensor, or shapes that do not broadcast.
    """
    as_real(a, "divide")
    as_real(b, "divide")
    try:
        shape = torch.broadcast_shapes(a.shape, b.shape)
    except RuntimeError as error:
        raise SpikeplugError(
            f"divide got shapes {tuple(a.shape)} and {tuple(b.shape)}, which do not broadcast; reshape one of them."
        ) from error
    dtype = torch.result_type(a, b)
    a = a.to(dtype).expand(shape)
    if a.numel() == 0:
        return a.new_empty(shape)
    if not shape:
        a, b = a.reshape(1), b.reshape(1)
    rows = (*a.shape[:-1], 1 if b.dim() == 0 or b.shape[-1] == 1 else a.shape[-1])
    return by_rows(lambda top, bottom: divide_rows(top, bottom, on), a, b.to(dtype).expand(rows)).view(shape)


def divide_rows(a: Tensor, b: Tensor, on: Arithmetic) -> Tensor:
    """Return a / b, elementwise, for a (N, d) and b (N, d or 1); (N, d), in the dtype that a is computed in.

    Every element has its own power-of-two scale. Zeros, infinities and NaN give what torch's a / b gives.
    """
    a, b = (as_real(part, "divide").unsqueeze(-1) for part in (a, b))
    codes = [encode_elements(part, on.numerics) for part in (a, b)]
    top, bottom = (Coded(on.magnitude(c.mantissa, c.bits + 1), c.exponent, c.bits, "element") for c in codes)
    quotient = quotient_integers(top, bottom, on)
    mantissa = on.signed(quotient.mantissa, codes[0].mantissa, quotient.bits + 1)
    mantissa = on.signed(mantissa, codes[1].mantissa, quotient.bits + 1)
    output = decode(Coded(mantissa, quotient.exponent, quotient.bits, "element"), a.dtype)
    infinite = torch.isinf(a) | (b == 0)
    output = torch.where(infinite, torch.where(torch.signbit(a) ^ torch.signbit(b), -math.inf, math.inf), output)
    output = output.masked_fill(torch.isinf(b) & ~infinite, 0.0)
    undefined = torch.isnan(a) | torch.isnan(b) | ((a == 0) & (b == 0)) | (torch.isinf(a) & torch.isinf(b))
    return output.masked_fill(undefined, math.nan).squeeze(-1)


def integers(given: Operands, on: Arithmetic) -> Coded:
    """Return the code of the operator, from integers that are given."""
    return quotient_integers(given.each("numerator", negative=False), given.each("denominator", negative=False), on)


RECORD = Operator(
    name="divide",
    family="element",
    formula="a / b, broadcast",
    spiking=divide,
    integers=integers,
    exact=torch.div,
    inputs=("numerator", "positive"),
    scale="element",
    elementwise=True,
    bound=relative_bound(torch.div),
    input_range=element_range,
    aten=("div",),
)
