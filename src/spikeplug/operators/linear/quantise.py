"""Encode vectors in few levels, and return the numbers, or bytes: the codes of keys and values in a cache."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.codes import MOST_PACKED, NO_STEP, STEP_BYTES, Coded, as_real, pack, scaled
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.operators.linear.levels import SHARE_BITS, check_levels, exactly_rotated, level_integers
from spikeplug.operators.linear.linear import input_levels
from spikeplug.operators.operands import Operands
from spikeplug.operators.record import Operator
from spikeplug.operators.rows import by_rows
from spikeplug.primitives.arithmetic import Arithmetic


def quantise(
    x: Tensor, levels: int = 127, block: int = 0, rotation: int = 0, packed: bool = False, *, on: Arithmetic
) -> Tensor:
    """Return x rounded to |m| <= levels times a step per vector, or per block of channels; shape and dtype of x.

    rotation  order of the Hadamard matrix that rotates each block of channels first, see `levels.rotated`; 0: none
    packed    return the same numbers as bytes, int8 (..., d + 4), see `codes.pack`

    A step is a whole number of units of 2^-11 of the smallest one, so that a level times its step is exact in float32.
    A vector with NaN or an infinity gives NaN.
    Errors: SpikeplugError for a tensor that is not floating, and settings out of their domain.
    """
    if packed and (block or levels > MOST_PACKED):
        raise SpikeplugError(
            f"{on.operator} got packed=True with {levels} levels and block={block}: bytes hold up to {MOST_PACKED} "
            "levels of one step per vector."
        )
    check_levels(on.operator, levels, block, rotation)
    as_real(x, on.operator)
    if rotation and x.shape[-1] % rotation:
        raise SpikeplugError(f"{on.operator} got rotation={rotation} for {x.shape[-1]} channels: give a divisor of it.")
    if x.numel() == 0:
        return exact(x, levels, block, 0, packed)

    def rows(x: Tensor) -> Tensor:
        finite = torch.isfinite(x)
        levelled = input_levels(x.masked_fill(~finite, 0.0), levels, block, rotation, on)
        undefined = ~finite.all(-1, keepdim=True)
        if packed:
            exponent = levelled.exponent.expand(levelled.step.shape)
            return pack(levelled.mantissa, levelled.step.masked_fill(undefined, NO_STEP), exponent)
        output = scaled(levelled.mantissa * levelled.step, levelled.exponent, x.dtype)
        return output.masked_fill(undefined, torch.nan)

    vectors = torch.atleast_1d(x)
    if packed:
        return rows(as_real(vectors, on.operator))
    return by_rows(lambda part: rows(as_real(part, on.operator)), vectors).reshape(x.shape)


def exact(x: Tensor, levels: int, block: int, rotation: int, packed: bool = False) -> Tensor:
    """Return x itself, or rotated x: what is encoded. Packed numbers have no gradient, and are 0 here."""
    if packed:
        return x.new_zeros((*x.shape[:-1], x.shape[-1] + STEP_BYTES), dtype=torch.int8)
    return exactly_rotated(x, rotation) if rotation else x.clone()


def bound(x: Tensor, levels: int = 127, block: int = 0, rotation: int = 0, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - x|: half of a step, and what the receiver drops."""
    largest = exactly_rotated(x, rotation).abs().amax(-1, keepdim=True)
    return (largest / levels * (0.5 + 2.0**-9) + largest * 2.0**-18).expand(x.shape)


def integers(given: Operands, on: Arithmetic) -> Coded:
    """Return the levels of a vector, 127 of them, as a code; their step is left out."""
    levels = level_integers(given.received_vector(), 127, 0, on)
    return Coded(levels.mantissa, levels.exponent, levels.bits, "vector")


RECORD = Operator(
    name="quantise",
    family="linear",
    formula="x in few levels",
    spiking=quantise,
    integers=integers,
    exact=exact,
    inputs=("residual",),
    settings=(127, 0, 0, False),
    scale="vector",
    bound=bound,
    input_range=lambda numerics: f"a block's step is at least 2^-{SHARE_BITS} of the vector's",
)
