"""Compute exp(-x) of integers x >= 0, each on its own, for gates and curves."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.operators.softmax.weights import piecewise_exponential, shift_exponential
from spikeplug.primitives.arithmetic import Arithmetic
from spikeplug.primitives.exponential import ShiftExponential
from spikeplug.saturation import record


def falling(distance: Tensor, on: Arithmetic, exponential: ShiftExponential | None = None) -> Tensor:
    """Return t = exp(-distance), 0 <= t <= 1, int64 in units of 2^-P; P is numerics.working_bits.

    distance     integers >= 0 with F = numerics.fraction_bits fraction bits, as `encode_distance` returns them: in
                 octaves (shift exponential, 2^-distance) or nats (piecewise)
    exponential  replaces the numerics' table of 2^-x in the shift form, and sets the fraction bits of `distance`
    """
    if on.numerics.exponential == "shift":
        spec = exponential or shift_exponential(on.numerics)
        mantissa = on.mantissa(distance, spec)
        return on.decay(mantissa, distance >> spec.fraction_bits).to(torch.int64)
    piecewise = piecewise_exponential(on.numerics.half_range, on.numerics)
    record(f"{on.operator}: exponent beyond H", distance > piecewise.knots[-1])
    # Where 0 is inside a segment, its chord lies above 1.
    return on.clamp(on.piecewise(-distance, piecewise), None, 1 << on.numerics.working_bits, 31, "exp/clamp")
