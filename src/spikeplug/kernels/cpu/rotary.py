"""Run the factors of rotary position embeddings: whole positions times frequencies, quarter wave, sign."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from spikeplug.kernels.cpu.compile import kernel
from spikeplug.kernels.cpu.launch import launch, new_empty
from spikeplug.kernels.cpu.memory import HEADER, floats, leave, longs, next_rows, places_of, words
from spikeplug.kernels.cpu.rows import Settings
from spikeplug.kernels.cpu.verbs import compiled, power_of_two, rint
from spikeplug.kernels.cpu.waves import sine_of
from spikeplug.kernels.protocol import DTYPES, EVERY_ROW, NO_AFFINE, Call
from spikeplug.numerics import Numerics
from spikeplug.operators.linear.rotary import PHASE_BITS, POSITION_BITS
from spikeplug.operators.waves.wave import quarter_wave
from spikeplug.primitives.interpolation import knots_of

#: Frequencies, in radians, below which a turn has fewer than 2^62 steps.
_FASTEST = 1 << 30


class Words(NamedTuple):
    """Hold the 64-bit words of the rotary kernel.

    positions    address of float32 (rows,)
    frequencies  address of float32 (width,), in radians
    output       address of float32 (rows, width)
    quarters     quarters of a turn that are added to a phase
    """

    positions: Any
    frequencies: Any
    output: Any
    width: Any
    quarters: Any


class Wave(NamedTuple):
    """Hold the 64-bit words of the quarter wave: knots (int64) of `segments` segments, 2^rest_bits phases each."""

    knots: Any
    segments: Any
    rest_bits: Any
    bits: Any
    working_bits: Any


AT = places_of(Words, after=HEADER)
WAVE = places_of(Wave, after=AT)


@compiled
def _steps(frequency, steps):
    """Set steps (int64) to a frequency's steps per position, of 2^PHASE_BITS per turn; return whether all fit."""
    for i in range(steps.size):
        value = np.float64(frequency[i])
        if not abs(value) < _FASTEST:
            return False
        steps[i] = np.int64(rint(value / (2 * math.pi) * (1 << PHASE_BITS))) & ((1 << PHASE_BITS) - 1)
    return True


@kernel
def rotary_kernel(address):
    """Compute the factors of each position; the call is left if one is no whole number in range."""
    block = words(address)
    rows, width, quarters = block[HEADER.count], block[AT.width], block[AT.quarters]
    positions, output = floats(block[AT.positions], 1, rows)[0], floats(block[AT.output], rows, width)
    knots, rest_bits = longs(block[WAVE.knots], block[WAVE.segments] + 1), block[WAVE.rest_bits]
    bits, working = block[WAVE.bits], block[WAVE.working_bits]
    turn, unit = (np.int64(1) << working) - 1, np.float32(power_of_two(-bits))
    steps = np.empty(width, np.int64)
    plain = _steps(floats(block[AT.frequencies], 1, width)[0], steps)
    first, last = next_rows(block, 0)
    while first < last:
        for row in range(first, last):
            position = positions[row]
            if not (plain and 0 <= position < 1 << POSITION_BITS and position == rint(position)):
                leave(block, 0)
                continue
            place = np.int64(position)
            for i in range(width):
                phase = ((place * steps[i]) & ((1 << PHASE_BITS) - 1)) >> (PHASE_BITS - working)
                phase = (phase + (quarters << (working - 2))) & turn
                output[row, i] = np.float32(sine_of(phase, knots, rest_bits, bits, working)) * unit
        first, last = next_rows(block, last - first)


@lru_cache(maxsize=64)
def _settings(numerics: Numerics) -> Settings:
    spec = quarter_wave(numerics.bits, numerics.working_bits)
    return Settings.of(
        Wave(
            knots=knots_of(spec, torch.device("cpu")),
            segments=spec.segments,
            rest_bits=spec.rest_bits,
            bits=numerics.bits,
            working_bits=numerics.working_bits,
        )
    )


class Rotary:
    """Compute the sine or cosine of positions times frequencies."""

    def supports(self, call: Call) -> str | None:
        frequency, quarters = call.arguments[1], _quarters(call)
        if call.weight is not None or call.bias is not None:
            return NO_AFFINE
        if not call.numerics.shift_scaling:
            return "the numerics have shift_scaling=False; kernels take True"
        if frequency.dtype not in DTYPES or frequency.dim() != 1:
            return "kernels take a row of float32, bfloat16 or float16 frequencies"
        return None if type(quarters) is int and abs(quarters) < 1 << 20 else f"quarters is {quarters!r}"

    def run(self, call: Call) -> tuple[Tensor, Tensor | None]:
        position, frequency = call.arguments[:2]
        places, frequency = position.to(torch.float32).contiguous(), frequency.to(torch.float32).contiguous()
        width, settings = frequency.numel(), _settings(call.numerics)
        output = new_empty(places, (*position.shape, width))
        own = Words(
            positions=places.data_ptr(),
            frequencies=frequency.data_ptr(),
            output=output.data_ptr(),
            width=width,
            quarters=_quarters(call),
        )
        held = (places, frequency, output, settings)
        left = launch(rotary_kernel, places.numel(), width, own + settings.words, marks=1, held=held)
        return output.to(position.dtype), None if left is None else EVERY_ROW


def _quarters(call: Call) -> Any:
    return call.arguments[2] if len(call.arguments) > 2 else 0
