"""Encode vectors in few levels, and return the numbers: the codes of keys and values in a cache."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.codes import as_real, scaled
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.operators.linear.levels import SHARE_BITS, check_levels, exactly_rotated
from spikeplug.operators.linear.linear import input_levels
from spikeplug.operators.record import Operator
from spikeplug.operators.rows import by_rows
from spikeplug.primitives.arithmetic import Arithmetic


def quantise(x: Tensor, levels: int = 127, block: int = 0, rotation: int = 0, *, on: Arithmetic) -> Tensor:
    """Return x rounded to |m| <= levels times a step per vector, or per block of channels; shape and dtype of x.

    rotation  order of the Hadamard matrix that rotates each block of channels first, see `levels.rotated`; 0: none

    A step is a whole number of units of 2^-11 of the smallest one, so that a level times its step is exact in float32.
    NaN and infinities stay; with a rotation, a vector with one of them gives NaN.
    Errors: SpikeplugError for a tensor that is not floating, and settings out of their domain.
    """
    check_levels(on.operator, levels, block, rotation)
    as_real(x, on.operator)
    if rotation and x.shape[-1] % rotation:
        raise SpikeplugError(f"{on.operator} got rotation={rotation} for {x.shape[-1]} channels: give a divisor of it.")
    if x.numel() == 0:
        return x.clone()

    def rows(x: Tensor) -> Tensor:
        finite = torch.isfinite(x)
        levelled = input_levels(x.masked_fill(~finite, 0.0), levels, block, rotation, on)
        output = scaled(levelled.mantissa * levelled.step, levelled.exponent, x.dtype)
        if rotation:
            return output.masked_fill(~finite.all(-1, keepdim=True), torch.nan)
        return torch.where(finite, output, x)

    return by_rows(lambda part: rows(as_real(part, on.operator)), torch.atleast_1d(x)).reshape(x.shape)


def exact(x: Tensor, levels: int, block: int, rotation: int) -> Tensor:
    """Return x itself, or rotated x: what is encoded."""
    return exactly_rotated(x, rotation) if rotation else x.clone()


def bound(x: Tensor, levels: int = 127, block: int = 0, rotation: int = 0, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - x|: half of a step, and what the receiver drops."""
    largest = exactly_rotated(x, rotation).abs().amax(-1, keepdim=True)
    return (largest / levels * (0.5 + 2.0**-9) + largest * 2.0**-18).expand(x.shape)


RECORD = Operator(
    name="quantise",
    family="linear",
    formula="x in few levels",
    spiking=quantise,
    exact=exact,
    inputs=("residual",),
    settings=(127, 0, 0),
    scale="vector",
    bound=bound,
    input_range=lambda numerics: f"a block's step is at least 2^-{SHARE_BITS} of the vector's",
)
