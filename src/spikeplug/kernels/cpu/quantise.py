"""Run the encoder alone: each row in few levels of its step, as numbers."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from torch import Tensor

from spikeplug.kernels.cpu.compile import kernel
from spikeplug.kernels.cpu.levels import UNDEFINED, Encoder, encoder, levels_of, refused, room_of
from spikeplug.kernels.cpu.memory import leave, next_rows, words
from spikeplug.kernels.cpu.rows import Settings, by_rows, own_places, rows_of
from spikeplug.kernels.cpu.verbs import compiled, decode
from spikeplug.kernels.protocol import NO_AFFINE, Call

#: The least exponent of a normal float32.
_LEAST = -126

AT = own_places(Encoder)


@compiled
def _is_normal(exponent):
    """Return whether integers of 31 bits times 2^exponent are decoded by one product of normal numbers."""
    return _LEAST <= exponent <= 96


@kernel
def quantise_kernel(address):
    """Round each row to levels; rows with NaN or infinities, and of the least numbers, are left to the closed form."""
    block = words(address)
    x, bits, output = rows_of(block)
    width = x.shape[1]
    codes, wide = room_of(width, block, AT)
    first, last = next_rows(block, 0)
    while first < last:
        for row in range(first, last):
            step, exponent = levels_of(
                x[row],
                bits[row],
                codes,
                wide,
                block[AT.levels],
                block[AT.block],
                block[AT.shares],
                block[AT.places],
                block[AT.rotation],
                block[AT.dyadic],
                block[AT.factors],
            )
            if step == UNDEFINED or not _is_normal(exponent):
                leave(block, row)
            else:
                codes *= np.int32(step)
                decode(codes[:width], output[row], exponent)
        first, last = next_rows(block, last - first)


@lru_cache(maxsize=256)
def _settings(levels: int, block: int, rotation: int) -> Settings:
    return Settings.of(encoder(levels, block, rotation))


class Quantise:
    """Encode vectors in few levels, and return the numbers."""

    def supports(self, call: Call) -> str | None:
        if call.weight is not None or call.bias is not None:
            return NO_AFFINE
        levels, block, rotation = _given(call)
        width = call.arguments[0].shape[-1]
        if rotation and width % rotation:
            return f"rotation={rotation} does not divide {width} channels"
        return refused(levels, block, rotation, short=False)

    def run(self, call: Call) -> tuple[Tensor, Tensor | None]:
        return by_rows(quantise_kernel, call.arguments[0], _settings(*_given(call)))


def _given(call: Call) -> tuple[Any, ...]:
    """Return levels, block and rotation of a call."""
    given = call.arguments[1:]
    return given if len(given) == 3 else given + (127, 0, 0)[len(given) :]
