"""Compute exponentials of one number, for gates, curves and exp."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.operators.softmax.weights import piecewise_exponential, shift_exponential
from spikeplug.primitives.arithmetic import Arithmetic
from spikeplug.primitives.exponential import ShiftExponential
from spikeplug.saturation import record


def falling(distance: Tensor, on: Arithmetic, exponential: ShiftExponential | None = None) -> Tensor:
    """Return t = exp(-distance) in Q(P), int64, 0 <= t <= 1.

    distance     >= 0, as `encode_distance` returns it
    exponential  another 2^-x for the shift form, with the fraction bits of `distance`; None: that of the numerics
    """
    if on.numerics.exponential == "shift":
        spec = exponential or shift_exponential(on.numerics)
        mantissa = on.mantissa(distance, spec)
        return on.decay(mantissa, distance >> spec.fraction_bits).to(torch.int64)
    piecewise = piecewise_exponential(on.numerics.half_range, on.numerics)
    record(f"{on.operator}: exponent beyond H", distance > piecewise.knots[-1])
    # Where 0 is inside a segment, its chord lies above 1.
    return on.clamp(on.piecewise(-distance, piecewise), None, 1 << on.numerics.working_bits, 31, "exp/clamp")
