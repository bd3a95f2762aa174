"""Elementwise quotients: a / b and 1 / b."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spikeplug.coding import as_real, decode
from spikeplug.errors import SpikeplugError
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.operators.elements import by_elements, encode_elements
from spikeplug.operators.ratio import Ratio, signed
from spikeplug.operators.rows import by_rows
from spikeplug.presets import as_numerics
from spikeplug.primitives.arithmetic import Arithmetic, arithmetic


def quotient_integers(
    numerator: Tensor, denominator: Tensor, exponent: Tensor, numerics: Numerics, on: Arithmetic
) -> tuple[Tensor, Tensor]:
    """(q, exponent): numerator / denominator · 2^exponent is q·2^exponent, n significant bits; int64.

    Integers >= 0 of shapes (..., 1) that broadcast; 0 for a denominator of 0. Both are shifted to P bits:
    relative error at most 2^-n from rounding, and 2^(1-P) for a denominator wider than that.
    """
    numerator, denominator = numerator.to(torch.int64), denominator.to(torch.int64)
    ratio = Ratio("divide", numerics.working_bits, numerics.working_bits, largest_output=2)
    return ratio.scaled(numerator, denominator, exponent, numerics, on)


@torch.no_grad()
def divide(a: Tensor, b: Tensor, *, numerics: Numerics | None = None, events: Events | None = None) -> Tensor:
    """a / b with broadcasting, by spiking integers; the shape and dtype of torch's a / b (any floating dtypes).

    Every element has its own power-of-two scale: relative error at most 2^-n + 2^(3-P), with every numerics (a fixed
    step, as the published recipe has inside its operators, has no meaning for numbers of any range).
    Where b's last dimension is 1 and a's is not, one denominator is coded for each vector of a; the result is the same.
    x/0 is an infinity, 0/0 NaN, x/inf 0, and NaN stays, as torch's does.
    events: count into it, simulating neuron by neuron.
    Errors: SpikeplugError for a non-floating tensor, shapes that do not broadcast.
    """
    numerics = as_numerics(numerics)
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
    on = arithmetic(numerics, events)
    return by_rows(lambda top, bottom: _divide(top, bottom, numerics, on), a, b.to(dtype).expand(rows)).view(shape)


def _divide(a: Tensor, b: Tensor, numerics: Numerics, on: Arithmetic) -> Tensor:
    a, b = (as_real(part, "divide").unsqueeze(-1) for part in (a, b))  # every element a vector of one
    top, bottom = encode_elements(a, numerics), encode_elements(b, numerics)
    exponent = top.exponent - bottom.exponent
    quotient, exponent = quotient_integers(top.mantissa.abs(), bottom.mantissa.abs(), exponent, numerics, on)
    output = decode(signed(quotient, torch.sign(top.mantissa) * torch.sign(bottom.mantissa)), exponent, a.dtype)
    infinite = torch.isinf(a) | (b == 0)
    output = torch.where(infinite, torch.where(torch.signbit(a) ^ torch.signbit(b), -math.inf, math.inf), output)
    output = output.masked_fill(torch.isinf(b) & ~infinite, 0.0)
    undefined = torch.isnan(a) | torch.isnan(b) | ((a == 0) & (b == 0)) | (torch.isinf(a) & torch.isinf(b))
    return output.masked_fill(undefined, math.nan).squeeze(-1)


@torch.no_grad()
def reciprocal(x: Tensor, *, numerics: Numerics | None = None, events: Events | None = None) -> Tensor:
    """1 / x, elementwise, by spiking integers; same shape and dtype as x. As `divide`; 1/0 is inf, 1/inf is 0."""

    def one_over(block: Tensor, numerics: Numerics, on: Arithmetic) -> Tensor:
        return _divide(torch.ones_like(block), block, numerics, on)

    return by_elements("reciprocal", one_over, x, numerics, events)
