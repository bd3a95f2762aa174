"""Compute the factors of rotary position embeddings from whole positions: no angle is ever a float.

phase = position · frequency  modulo one turn;   factor = cos or sin of the phase
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spikeplug.codes import as_real, decode
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.operators.record import Operator
from spikeplug.operators.waves.wave import bound as wave_bound
from spikeplug.operators.waves.wave import sine_integers
from spikeplug.primitives.arithmetic import Arithmetic

#: A phase has 2^32 steps per turn; the membrane that adds them up wraps around, as a 32-bit register does.
PHASE_BITS = 32
#: Positions below 2^24 are exact in float32.
POSITION_BITS = 24


def rotary(position: Tensor, frequency: Tensor, quarters: int = 0, *, on: Arithmetic) -> Tensor:
    """Return sin(position·frequency + quarters·π/2); (..., d) for positions (..., ) and frequencies (d,) in radians.

    position  float tensor of whole numbers, 0 <= position < 2^24
    quarters  0: sine, 1: cosine

    The result is a multiple of 2^-numerics.bits in position's dtype.
    Errors: SpikeplugError for positions that are no whole numbers in range.
    """
    whole = as_real(position, on.operator)
    if whole.numel() and not bool(((whole == whole.round()) & (whole >= 0) & (whole < 1 << POSITION_BITS)).all()):
        raise SpikeplugError(f"{on.operator} takes whole positions from 0 to 2^24 - 1: give position_ids.")
    turns = frequency.to(torch.float64) / (2 * math.pi) * (1 << PHASE_BITS)
    steps = turns.round().to(torch.int64) & ((1 << PHASE_BITS) - 1)
    places = whole.to(torch.int64).unsqueeze(-1)
    width = on.numerics.working_bits
    phase = on.gate(places, steps.expand(*places.shape[:-1], -1), POSITION_BITS, "phase")
    phase = (phase & ((1 << PHASE_BITS) - 1)) >> (PHASE_BITS - width)
    phase = (phase + (quarters << (width - 2))) & ((1 << width) - 1)
    return decode(sine_integers(phase.to(torch.int32), on), whole.dtype).to(position.dtype)


def exact(position: Tensor, frequency: Tensor, quarters: int) -> Tensor:
    """Return sin(position·frequency + quarters·π/2) in float arithmetic."""
    return torch.sin(position.unsqueeze(-1) * frequency.to(position.dtype) + quarters * math.pi / 2)


def bound(position: Tensor, frequency: Tensor, quarters: int = 0, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - exact|: that of the wave, the floor of a phase, and 2^-33 turns a position."""
    angle = position.unsqueeze(-1) * frequency
    drift = position.unsqueeze(-1) * (math.pi * 2.0**-PHASE_BITS)
    return wave_bound(angle, numerics=numerics) + drift + math.pi * 2.0 ** (1 - numerics.working_bits)


RECORD = Operator(
    name="rotary",
    family="linear",
    formula="cos or sin of position · frequency",
    spiking=rotary,
    exact=exact,
    inputs=("position", "frequency"),
    settings=(0,),
    scale="step",
    bound=bound,
    input_range=lambda numerics: "positions to 2^24",
)
