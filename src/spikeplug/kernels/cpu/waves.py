"""Run cosine and sine: phase, quarter wave, sign, element by element."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from spikeplug.kernels.cpu.compile import kernel
from spikeplug.kernels.cpu.memory import leave, longs, next_rows, words
from spikeplug.kernels.cpu.rows import Settings, by_rows, own_places, rows_of
from spikeplug.kernels.cpu.verbs import INFINITE, compiled, inlined, largest_magnitude, power_of_two, rint
from spikeplug.kernels.protocol import NO_AFFINE, Call
from spikeplug.numerics import Numerics
from spikeplug.operators.waves.wave import quarter_wave
from spikeplug.primitives.interpolation import knots_of

_TURNS = 0.5 / math.pi


@inlined
def sine_of(phase, knots, rest_bits, bits, width):
    """Return the sine of a phase of `width` bits per turn, int64 in units of 2^-bits.

    knots: int64, values of a rising quarter wave. rest_bits: bits of a phase within one segment.
    """
    quarter = np.int64(1) << (width - 2)
    within, number = phase & (quarter - 1), phase >> (width - 2)
    angle = quarter - within if number & 1 else within
    segment = min(angle >> rest_bits, np.int64(knots.size - 2))
    left = knots[segment]
    sine = left + (((knots[segment + 1] - left) * (angle - (segment << rest_bits))) >> rest_bits)
    sine = (sine + (np.int64(1) << (width - bits - 1))) >> (width - bits)
    return -sine if number > 1 else sine


@compiled
def wave(x, output, knots, rest_bits, quarters, bits, width):
    """Set the output (float32) to sin(x + quarters·π/2), with `bits` fraction bits.

    x is rounded to a phase of `width` bits per turn; the sine is interpolated linearly between the knots.
    knots: int64, values of a rising quarter wave. rest_bits: bits of a phase within one segment.
    """
    steps, turn = power_of_two(width), (np.int64(1) << width) - 1
    quarter, unit = np.int64(1) << (width - 2), np.float32(power_of_two(-bits))
    for i in range(x.size):
        turns = np.float64(x[i]) * _TURNS
        phase = (np.int64(rint((turns - rint(turns)) * steps)) + quarters * quarter) & turn
        output[i] = np.float32(sine_of(phase, knots, rest_bits, bits, width)) * unit


class Words(NamedTuple):
    """Hold the 64-bit words of the sine and cosine kernel.

    knots     address of the knots of a rising quarter wave, int64: of `segments` segments, 2^rest_bits phases each
    quarters  quarters of a turn that are added to the phase: 0 for the sine, 1 for the cosine
    bits, working_bits  the fields of `Numerics` of the same names
    """

    knots: Any
    segments: Any
    rest_bits: Any
    quarters: Any
    bits: Any
    working_bits: Any


AT = own_places(Words)


@kernel
def wave_kernel(address):
    """Compute the sine or cosine of each element; rows with NaN or infinities are left to the closed form.

    address: of the arguments, a block of words (`memory.py`).
    """
    block = words(address)
    x, codes, output = rows_of(block)
    knots, rest_bits, quarters = longs(block[AT.knots], block[AT.segments] + 1), block[AT.rest_bits], block[AT.quarters]
    bits, width = block[AT.bits], block[AT.working_bits]
    first, last = next_rows(block, 0)
    while first < last:
        for row in range(first, last):
            if largest_magnitude(codes[row]) >= INFINITE:
                leave(block, row)
            else:
                wave(x[row], output[row], knots, rest_bits, quarters, bits, width)
        first, last = next_rows(block, last - first)


@lru_cache(maxsize=64)
def _settings(quarters: int, numerics: Numerics) -> Settings:
    spec = quarter_wave(numerics.bits, numerics.working_bits)
    return Settings.of(
        Words(
            knots=knots_of(spec, torch.device("cpu")),
            segments=spec.segments,
            rest_bits=spec.rest_bits,
            quarters=quarters,
            bits=numerics.bits,
            working_bits=numerics.working_bits,
        )
    )


class Wave:
    """Compute sin(x + quarters·π/2): the sine for 0 quarters, the cosine for 1.

    Rows with NaN or infinities are left to the closed form.
    """

    def __init__(self, quarters: int) -> None:
        self._quarters = quarters

    def supports(self, call: Call) -> str | None:
        return None if call.weight is None and call.bias is None else NO_AFFINE

    def run(self, call: Call) -> tuple[Tensor, Tensor | None]:
        return by_rows(wave_kernel, call.arguments[0], _settings(self._quarters, call.numerics))
