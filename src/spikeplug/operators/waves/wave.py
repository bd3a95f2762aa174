"""Compute cosine and sine for rotary position embeddings: a phase in turns, and a quarter wave in a table."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from spikeplug.codes import Coded, decode, encode_phase, fixed
from spikeplug.numerics import Numerics
from spikeplug.operators.ratio import fixed_step
from spikeplug.operators.rows import by_elements
from spikeplug.primitives.arithmetic import Arithmetic
from spikeplug.primitives.interpolation import Interpolation
from spikeplug.saturation import record


def sine_integers(phase: Tensor, on: Arithmetic) -> Coded:
    """Return the code of sin(phase), int64 in units of 2^-n: a sine of 1 is 2^n.

    phase  integers, 2^P steps per turn, 0 <= phase < 2^P; P = numerics.working_bits, n = numerics.bits

    Quarters 1 and 3 of the turn read the quarter wave backwards. Quarters 2 and 3 are negative.
    """
    numerics, width = on.numerics, on.numerics.working_bits
    quarter = 1 << (width - 2)
    within, number = phase & (quarter - 1), phase >> (width - 2)
    backwards = (number & 1).to(torch.bool)
    angle = on.select(backwards, on.add(-within, quarter, width, "backwards"), within, width, "angle")
    magnitude = on.interpolate(angle, quarter_wave(numerics.bits, width), "quarter_wave").to(torch.int64)
    sine = on.signed(fixed_step(magnitude, width, width + 1, on), -(number >> 1), numerics.bits + 2)
    return fixed(sine, numerics.bits, numerics.bits)


@lru_cache
def quarter_wave(bits: int, width: int) -> Interpolation:
    """Return a table of sin over the first quarter turn, of 2^width steps per turn; output in units of 2^-width."""
    # The chords' error, (π/2)²/(8·S²), is 0.31 LSB of n bits at S = 2^(n/2).
    segments = 1 << (bits + 1) // 2
    return Interpolation.of(
        lambda t: math.sin(math.pi / 2 * t), end=1.0, segments=segments, input_bits=width - 2, output_bits=width
    )


def wave(x: Tensor, quarters: int, on: Arithmetic) -> Tensor:
    """Return sin of x radians plus `quarters` quarter turns, elementwise; x's shape and dtype.

    n is numerics.bits, P numerics.working_bits.
    The result has the fixed step 2^-n, rounded to nearest. Without shift_scaling (the preset "paper"), |sin| is
    floored.
    There is no published form. 0 and ±1 are exact where the phase is. NaN and infinities give NaN.
    Error in LSB of 2^-n: 1/2 (floored: 1) + 0.31 + 2^(n-P)·(π + 3/2) + 2^n·|x|·2^-52.
    Errors: SpikeplugError for a non-floating tensor.
    """

    def elements(x: Tensor) -> Tensor:
        nonfinite = ~torch.isfinite(x)
        record("input: not finite", nonfinite)
        width, input_bits = on.numerics.working_bits, on.numerics.input_bits
        phase_bits = width if input_bits is None else input_bits
        phase = encode_phase(x.masked_fill(nonfinite, 0.0), phase_bits) << (width - phase_bits)
        phase = (phase + (quarters << (width - 2))) & ((1 << width) - 1)  # an offset of the phase's code
        return decode(sine_integers(phase, on), x.dtype).masked_fill(nonfinite, math.nan)

    return by_elements(elements, x, on)


def bound(x: Tensor, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - exact|, in x's shape.

    It adds the errors of the output's rounding, of the table (chords and knots), of the phase's step, and of the
    encoder's float64 product.
    """
    step, fine = 2.0**-numerics.bits, 2.0**-numerics.working_bits
    table = (math.pi / 2) ** 2 / 8 / 4.0 ** math.ceil(numerics.bits / 2) + 1.5 * fine
    phase = fine if numerics.input_bits is None else 2.0**-numerics.input_bits
    return step * (0.5 if numerics.shift_scaling else 1) + table + math.pi * (phase + fine) + x.abs() * 2.0**-52


def input_range(numerics: Numerics) -> str:
    """Return how many steps a turn has, and the largest angle, as text for reports."""
    bits = numerics.working_bits if numerics.input_bits is None else numerics.input_bits
    return f"phase of 2^{bits} steps; to 2^52 radians"
