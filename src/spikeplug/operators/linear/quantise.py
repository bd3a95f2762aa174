"""Encode vectors in few levels, and return the numbers: the codes of keys and values in a cache."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.codes import as_real, power_of_two
from spikeplug.numerics import Numerics
from spikeplug.operators.linear.levels import OCTAVES, check_levels, level_integers
from spikeplug.operators.linear.scaled import received
from spikeplug.operators.record import Operator
from spikeplug.operators.rows import by_rows
from spikeplug.primitives.arithmetic import Arithmetic


def quantise(x: Tensor, levels: int = 127, block: int = 0, *, on: Arithmetic) -> Tensor:
    """Return x rounded to |m| <= levels times a power of two per vector, or per block of channels; shape as x.

    Encoding the result again changes nothing. NaN and infinities stay.
    Errors: SpikeplugError for a tensor that is not floating, and settings out of their domain.
    """
    check_levels(on.operator, levels, block, 0)
    as_real(x, on.operator)
    if x.numel() == 0:
        return x.clone()

    def rows(x: Tensor) -> Tensor:
        finite = torch.isfinite(x)
        code = level_integers(received(x.masked_fill(~finite, 0.0)), levels, block, on, octave=True)
        output = code.mantissa.to(x.dtype) * code.step.to(x.dtype) * power_of_two(code.exponent, x.dtype)
        return torch.where(finite, output, x)

    return by_rows(lambda part: rows(as_real(part, on.operator)), torch.atleast_1d(x)).reshape(x.shape)


def exact(x: Tensor, levels: int, block: int) -> Tensor:
    """Return x itself: what is encoded."""
    return x.clone()


def bound(x: Tensor, levels: int = 127, block: int = 0, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - x|: half of the largest step that holds the vector, twice the smallest one."""
    return (x.abs().amax(-1, keepdim=True) / levels * (1 + 2.0**-9)).expand(x.shape)


RECORD = Operator(
    name="quantise",
    family="linear",
    formula="x in few levels of a power of two",
    spiking=quantise,
    exact=exact,
    inputs=("residual",),
    settings=(127, 0),
    scale="vector",
    bound=bound,
    input_range=lambda numerics: f"{OCTAVES} octaves between blocks",
)
