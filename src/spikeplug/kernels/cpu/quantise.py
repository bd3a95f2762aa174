"""Run the encoder alone: each row in few levels of its step, as numbers or bytes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from spikeplug.codes import STEP_BYTES
from spikeplug.kernels.cpu.compile import kernel
from spikeplug.kernels.cpu.levels import UNDEFINED, Encoder, encoder, levels_of, room_of
from spikeplug.kernels.cpu.memory import bytes_at, halves, leave, next_rows, words
from spikeplug.kernels.cpu.rows import ROWS, Settings, by_rows, own_places, rows_of
from spikeplug.kernels.cpu.verbs import decode, inlined, is_normal
from spikeplug.kernels.levels import quantise_refusal, quantise_settings
from spikeplug.kernels.protocol import Call

AT = own_places(Encoder)


@inlined
def _encode(block, x, bits, codes, wide):
    """Set codes to the levels of a row; return their step and exponent, and whether kernels decode them exactly."""
    step, exponent = levels_of(
        x,
        bits,
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
    return step, exponent, step != UNDEFINED and is_normal(exponent)


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
            step, exponent, plain = _encode(block, x[row], bits[row], codes, wide)
            if plain:
                codes *= np.int32(step)
                decode(codes[:width], output[row], exponent)
            else:
                leave(block, row)
        first, last = next_rows(block, last - first)


@kernel
def pack_kernel(address):
    """Encode each row in bytes, see `codes.pack`; the same rows are left as by `quantise_kernel`."""
    block = words(address)
    x, bits, _ = rows_of(block)
    width = x.shape[1]
    codes, wide = room_of(width, block, AT)
    first, last = next_rows(block, 0)
    while first < last:
        for row in range(first, last):
            step, exponent, plain = _encode(block, x[row], bits[row], codes, wide)
            place = block[ROWS.output] + row * (width + STEP_BYTES)
            if plain:
                levels, scale = bytes_at(place, 1, width)[0], halves(place + width, 1, 2)[0]
                for i in range(width):
                    levels[i] = np.int8(codes[i])
                scale[0], scale[1] = np.int16(step), np.int16(exponent)
            else:
                leave(block, row)
        first, last = next_rows(block, last - first)


@lru_cache(maxsize=256)
def _settings(levels: int, block: int, rotation: int) -> Settings:
    return Settings.of(encoder(levels, block, rotation))


class Quantise:
    """Encode vectors in few levels, and return the numbers, or bytes."""

    def supports(self, call: Call) -> str | None:
        return quantise_refusal(call)

    def run(self, call: Call) -> tuple[Tensor, Tensor | None]:
        x, (levels, block, rotation, packed) = call.arguments[0], quantise_settings(call)
        settings = _settings(levels, block, rotation)
        if not packed:
            return by_rows(quantise_kernel, x, settings)
        output = x.new_empty((*x.shape[:-1], x.shape[-1] + STEP_BYTES), dtype=torch.int8)
        return by_rows(pack_kernel, x, settings, output=output)
