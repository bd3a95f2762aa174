"""Cosine and sine: phase, quarter wave, sign, element by element."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from spikeplug.kernels.cpu.launch import kernel
from spikeplug.kernels.cpu.memory import leave, longs, next_rows, words
from spikeplug.kernels.cpu.rows import PARAMETERS, by_rows, rows_of
from spikeplug.kernels.cpu.verbs import INFINITE, compiled, largest_magnitude, power_of_two, rint
from spikeplug.numerics import Numerics
from spikeplug.operators.rotary import quarter_wave
from spikeplug.primitives.interpolation import knots_of

_TURNS = 0.5 / math.pi


@compiled
def wave(x, output, knots, rest_bits, quarters, bits, width):
    """output <- sin of x a number of quarters on: `encode_phase` and `sine_integers`, decoded."""
    steps, turn = power_of_two(width), (np.int64(1) << width) - 1
    quarter, half = np.int64(1) << (width - 2), np.int64(1) << (width - bits - 1)
    last, unit = np.int64(knots.size - 2), np.float32(power_of_two(-bits))
    for i in range(x.size):
        turns = np.float64(x[i]) * _TURNS
        phase = (np.int64(rint((turns - rint(turns)) * steps)) + quarters * quarter) & turn
        within, number = phase & (quarter - 1), phase >> (width - 2)
        angle = quarter - within if number & 1 else within
        segment = min(angle >> rest_bits, last)
        left = knots[segment]
        sine = left + (((knots[segment + 1] - left) * (angle - (segment << rest_bits))) >> rest_bits)
        sine = (sine + half) >> (width - bits)
        output[i] = np.float32(-sine if number > 1 else sine) * unit


KNOTS, SEGMENTS, REST, QUARTERS, N, P = range(PARAMETERS, PARAMETERS + 6)


@kernel
def wave_kernel(address):
    """KNOTS of so many SEGMENTS of a rising quarter wave, 2^REST phases each; QUARTERS to go on by; N, P."""
    block = words(address)
    x, codes, output = rows_of(block)
    knots = longs(block[KNOTS], block[SEGMENTS] + 1)
    first, last = next_rows(block, 0)
    while first < last:
        for row in range(first, last):
            if largest_magnitude(codes[row]) >= INFINITE:
                leave(block)
            else:
                wave(x[row], output[row], knots, block[REST], block[QUARTERS], block[N], block[P])
        first, last = next_rows(block, last - first)


def _waved(x: Tensor, quarters: int, numerics: Numerics) -> Tensor | None:
    spec = quarter_wave(numerics.bits, numerics.working_bits)
    numbers = (spec.segments, spec.rest_bits, quarters, numerics.bits, numerics.working_bits)
    return by_rows(wave_kernel, x, knots_of(spec, x.device), *numbers)


def sin(x: Tensor, *, numerics: Numerics) -> Tensor | None:
    """`operators.sin`, bit for bit."""
    return _waved(x, 0, numerics)


def cos(x: Tensor, *, numerics: Numerics) -> Tensor | None:
    """`operators.cos`, bit for bit."""
    return _waved(x, 1, numerics)
