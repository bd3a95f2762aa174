"""Operators on single elements: every element is a vector of one, with a power of two of its own.

So precision is relative, whatever the dynamic range, and the output has n significant bits. A scale shared by a vector,
which `shift_scaling` chooses or not, has no meaning here: these operators are the same with and without.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from spikeplug.coding import Coded, as_real
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.operators.blocks import arriving
from spikeplug.operators.rows import by_rows
from spikeplug.presets import as_numerics
from spikeplug.primitives.arithmetic import Arithmetic, arithmetic
from spikeplug.saturation import record


def encode_elements(x: Tensor, numerics: Numerics) -> Coded:
    """x = mantissa · 2^exponent, with 2^(P-2) <= |mantissa| <= 2^(P-1) for every finite x other than 0.

    |x - mantissa·2^exponent| <= |x|·2^(1-P), denormal numbers included; with input_bits, x is first `received`.
    x: float32 or float64, mantissa and exponent: int32 of its shape.
    """
    bits, x = numerics.working_bits, arriving(x, numerics)
    finite = torch.isfinite(x)
    nonfinite = None
    if not bool(finite.all()):
        nonfinite = ~finite
        record("input: not finite", nonfinite)
        x = x.masked_fill(nonfinite, 0.0)
    fraction, exponent = torch.frexp(x)
    mantissa = (fraction * (1 << (bits - 1))).round_().to(torch.int32)
    return Coded(mantissa, exponent.to(torch.int32) - (bits - 1), nonfinite)


def by_elements(
    name: str,
    operator: Callable[[Tensor, Numerics, Arithmetic], Tensor],
    x: Tensor,
    numerics: Numerics | None,
    events: Events | None,
) -> Tensor:
    """operator(block, numerics, arithmetic) over x's elements, in blocks (N, 1) of float32 or float64; x's shape, dtype.

    Errors: SpikeplugError for a non-floating tensor.
    """
    numerics = as_numerics(numerics)
    as_real(x, name)
    if x.numel() == 0:
        return torch.empty_like(x)
    on = arithmetic(numerics, events)
    return by_rows(lambda block: operator(as_real(block, name), numerics, on), x.reshape(-1, 1)).view(x.shape)
