"""Run an activation on the finite elements of its input; the others give what torch gives."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from spikeplug.codes import as_input, as_real
from spikeplug.operators.rows import by_rows
from spikeplug.primitives.arithmetic import Arithmetic
from spikeplug.saturation import record


def elementwise(rows: Callable[[Tensor], Tensor], x: Tensor, on: Arithmetic, ends: tuple[float, float]) -> Tensor:
    """Return rows(x), computed on the finite elements only, in x's shape and dtype.

    rows  the function; it gets blocks (vectors, d) of finite float32 or float64 numbers, and keeps their shape
    ends  the results for x = -inf and x = +inf

    NaN gives NaN. Elements that are not finite do not affect the finite elements of their vector.
    Errors: SpikeplugError if x is not a floating-point tensor.
    """
    as_real(x, on.operator)
    if x.numel() == 0:
        return torch.empty_like(x)

    def block(part: Tensor) -> Tensor:
        real = as_real(part, on.operator)
        # The sum of finite numbers may overflow, but one number that is not finite always shows in it.
        if bool(torch.isfinite(real.sum())):
            return rows(as_input(real, on.numerics))
        nonfinite = ~torch.isfinite(real)
        record("input: not finite", nonfinite)
        output = rows(as_input(real.masked_fill(nonfinite, 0.0), on.numerics))
        output = output.masked_fill(real == -math.inf, ends[0]).masked_fill(real == math.inf, ends[1])
        return output.masked_fill(torch.isnan(real), math.nan)

    return by_rows(block, x.reshape(1) if x.dim() == 0 else x).reshape(x.shape)
