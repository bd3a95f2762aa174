"""Divide in closed form: vectorised integers."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.primitives.divide.spec import DivideSpec


def divide(numerator: Tensor, denominator: Tensor, spec: DivideSpec) -> Tensor:
    """Return floor(2^n · numerator / denominator), int64, at most `spec.limit`; n is `spec.fraction_bits`.

    Where the denominator is 0, the result is 0.

    The operands must satisfy `spec.check`; it is not called here.
    """
    shifted = numerator.to(torch.int64) << spec.fraction_bits
    # A, B >= 0, so truncation is the floor; B = 0 divides by 1 and is silenced afterwards.
    quotient = torch.div(shifted, denominator.clamp(min=1), rounding_mode="trunc")
    if spec.limit is not None:
        quotient = quotient.clamp(max=spec.limit)
    return quotient * (denominator > 0)
