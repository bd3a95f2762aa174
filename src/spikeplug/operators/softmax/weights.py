"""Turn scores into weights, exp(score - max), for softmax, log-softmax and attention."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from spikeplug.codes.scores import MASKED, SCORE_BITS, SCORE_RANGE_BITS, Scores, score_fraction_bits
from spikeplug.numerics import Numerics
from spikeplug.operators.ratio import EXPONENT_BITS
from spikeplug.primitives.arithmetic import Arithmetic
from spikeplug.primitives.exponential import PiecewiseExponential, ShiftExponential
from spikeplug.saturation import record

#: Bits of a score, MASKED included, and of a distance between two.
_BITS = SCORE_BITS + 1
DISTANCE_BITS = 31
_OFFSET = -MASKED


def row_ceiling(scores: Scores, on: Arithmetic) -> Tensor:
    """Return M, int32 (..., 1): the row's largest score, rounded up to a whole octave in the shift form.

    M is at least the smallest possible score. So a row that is all MASKED keeps its distance and gets weight 0.
    """
    ceiling = on.clamp(on.maximum(scores.integers, _BITS), -(1 << SCORE_BITS), None, _BITS, "maximum/clamp")
    if on.numerics.exponential != "shift":
        return ceiling
    fraction_bits = on.numerics.fraction_bits
    if scores.places is None:
        # Without its low bits, a phase code is rounded down.
        return on.add(ceiling, (1 << fraction_bits) - 1, DISTANCE_BITS, "ceiling") & -(1 << fraction_bits)
    # A row in units of 2^places has F - places fraction bits left, and an octave has as many bits.
    places = on.clamp(scores.places, None, fraction_bits, EXPONENT_BITS, "octave/clamp")
    left = on.add(-places, fraction_bits, EXPONENT_BITS, "octave/bits")
    octave = on.shift(torch.ones_like(left), left, 1, fraction_bits, "octave")
    # A shift takes numbers >= 0, so a whole number of octaves (2^30) is added first.
    raised = on.add(on.add(ceiling, octave, DISTANCE_BITS, "ceiling"), _OFFSET - 1, DISTANCE_BITS, "ceiling/raised")
    whole = on.shift(raised, -left, DISTANCE_BITS, 0, "ceiling/octaves")
    return on.add(on.shift(whole, left, DISTANCE_BITS, fraction_bits, "ceiling/shift"), -_OFFSET, 31, "ceiling/lowered")


def distances(scores: Scores, on: Arithmetic) -> tuple[Tensor, Tensor]:
    """Return (distance, M): how far each score lies below M, int32 >= 0, in units of 2^-F, and M, int32 (..., 1).

    M is the row's largest score, rounded up to a whole octave in the shift form. F is numerics.fraction_bits.
    """
    ceiling = row_ceiling(scores, on)
    distance = on.add(ceiling, -scores.integers, DISTANCE_BITS, "distance")
    if scores.places is not None:
        places = on.clamp(scores.places, None, 30, EXPONENT_BITS, "distance/clamp")
        farthest = torch.full_like(places, -MASKED)
        limit = on.shift(farthest, -places, DISTANCE_BITS, 0, "distance/farthest")
        beyond = on.reaches(distance, limit, DISTANCE_BITS, "distance/limit")
        distance = on.select(beyond, limit, distance, DISTANCE_BITS, "distance/limited")
        distance = on.shift(distance, places, DISTANCE_BITS, 30, "distance/shift")
    return distance, ceiling


def in_range(distance: Tensor, on: Arithmetic) -> Tensor:
    """Return distances, with those beyond the range of an input code replaced by the distance of a masked score.

    Their weight is then 0. With numerics.input_bits=None, `distance` is returned unchanged.
    """
    if on.numerics.input_bits is None:
        return distance
    limit = 1 << (SCORE_RANGE_BITS + on.numerics.fraction_bits)
    beyond = on.reaches(distance, limit, DISTANCE_BITS, "distance/range")
    return on.select(beyond, -MASKED, distance, DISTANCE_BITS, "distance/in_range")


@lru_cache(maxsize=64)  # its table is made once
def shift_exponential(numerics: Numerics) -> ShiftExponential:
    """Return the table specification of the shift exponential 2^-x: its fraction bits, segments and width."""
    return ShiftExponential(numerics.fraction_bits, numerics.segments, numerics.working_bits)


@lru_cache(maxsize=64)
def piecewise_exponential(half_range: float, numerics: Numerics) -> PiecewiseExponential:
    """Return the specification of the piecewise-linear exponential on [-half_range, half_range], in nats."""
    return PiecewiseExponential(half_range, numerics.segments, numerics.fraction_bits, numerics.working_bits)


def weights(scores: Scores, distance: Tensor, on: Arithmetic) -> Tensor:
    """Return the weights exp(score - max), each row times a common factor: integers up to 2^working_bits.

    distance  how far each score lies below its row's largest, as `distances` returns it
    """
    numerics = on.numerics
    distance = in_range(distance, on)
    if numerics.exponential == "shift":
        return on.decay(on.mantissa(distance, shift_exponential(numerics)), distance >> numerics.fraction_bits)
    piecewise = piecewise_exponential(numerics.softmax_half_range, numerics)
    record("softmax: exponent below -H", (distance > -piecewise.knots[0]) & (scores.integers > MASKED))
    return on.piecewise(-distance, piecewise)


def score_range(numerics: Numerics) -> str:
    """Return which scores softmax and attention represent without loss, as text for reports."""
    places = numerics.fraction_bits
    if numerics.input_bits is not None:
        unit = "octaves" if numerics.exponential == "shift" else "nats"
        return f"{1 << SCORE_RANGE_BITS} {unit} below the largest, step 2^-{score_fraction_bits(numerics)}"
    reach = f"scores to 2^{28 - places}, step 2^-{places}"
    if numerics.exponential == "shift":
        return f"{reach} octaves; a weight 2^-{numerics.working_bits} of the largest is 0"
    return f"{reach}; 0 below the largest - {numerics.softmax_half_range:g}"
