"""Cosine and sine, as rotary position embeddings want them: a phase in turns, and a quarter of the wave in a table."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from spikeplug.coding import decode
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.operators.elements import by_elements
from spikeplug.operators.ratio import signed
from spikeplug.operators.scaling import fixed_step
from spikeplug.primitives.arithmetic import Arithmetic
from spikeplug.primitives.interpolation import Interpolation
from spikeplug.saturation import record


def encode_phase(x: Tensor, bits: int) -> Tensor:
    """x radians as a phase of 2^bits steps a turn, in [0, 2^bits), int32; x finite.

    float64 throughout: off by at most half a step and |x|·2^-52 radians, so a float32 position loses nothing beyond its
    own rounding.
    """
    turns = x.to(torch.float64) * (0.5 / math.pi)
    phase = ((turns - turns.round()) * (1 << bits)).round_().to(torch.int32)
    return phase & ((1 << bits) - 1)


def sine_integers(phase: Tensor, numerics: Numerics, on: Arithmetic) -> Tensor:
    """sin of a phase of 2^P steps a turn, with n = numerics.bits fraction bits (1 is 2^n); int64.

    Quarters 1 and 3 of the turn run the quarter wave backwards, 2 and 3 are negative: comparisons and subtractions.
    """
    width = numerics.working_bits
    quarter = 1 << (width - 2)
    within, number = phase & (quarter - 1), phase >> (width - 2)
    angle = torch.where((number & 1) == 1, quarter - within, within)
    magnitude = on.interpolate(angle, quarter_wave(numerics.bits, width)).to(torch.int64)
    return signed(fixed_step(magnitude, width, numerics), 1 - number)


@lru_cache
def quarter_wave(bits: int, width: int) -> Interpolation:
    """sin over a quarter of a turn of 2^width phases."""
    # The chords' error, (π/2)²/(8·S²), is 0.31 LSB of n bits at S = 2^(n/2).
    segments = 1 << (bits + 1) // 2
    return Interpolation.of(
        lambda t: math.sin(math.pi / 2 * t), end=1.0, segments=segments, input_bits=width - 2, output_bits=width
    )


@torch.no_grad()
def sin(x: Tensor, *, numerics: Numerics | None = None, events: Events | None = None) -> Tensor:
    """sin(x), x in radians, elementwise, by spiking integers; same shape and dtype as x (any floating dtype).

    n fraction bits: the fixed step 2^-n, rounded to nearest; without shift_scaling (the paper numerics) |sin| is floored.
    There is no published form. 0 and ±1 are exact where the phase is. NaN and infinities give NaN.
    Error in LSB of 2^-n: 1/2 (floored: 1) + 0.31 + 2^(n-P)·(π + 3/2) + 2^n·|x|·2^-52.
    events: count into it, simulating neuron by neuron. Errors: SpikeplugError for a non-floating tensor.
    """
    return by_elements("sin", lambda block, *how: _wave(block, 0, *how), x, numerics, events)


@torch.no_grad()
def cos(x: Tensor, *, numerics: Numerics | None = None, events: Events | None = None) -> Tensor:
    """cos(x), x in radians: sin(x) a quarter of a turn on. As `sin`."""
    return by_elements("cos", lambda block, *how: _wave(block, 1, *how), x, numerics, events)


def _wave(x: Tensor, quarters: int, numerics: Numerics, on: Arithmetic) -> Tensor:
    nonfinite = ~torch.isfinite(x)
    record("input: not finite", nonfinite)
    width = numerics.working_bits
    carried = width if numerics.input_bits is None else numerics.input_bits
    phase = encode_phase(x.masked_fill(nonfinite, 0.0), carried) << (width - carried)
    phase = (phase + (quarters << (width - 2))) & ((1 << width) - 1)
    sine = sine_integers(phase, numerics, on)
    return decode(sine, torch.tensor(-numerics.bits, device=x.device), x.dtype).masked_fill(nonfinite, math.nan)
