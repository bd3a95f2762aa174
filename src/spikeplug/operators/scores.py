"""Scores in, weights out: what softmax and attention share."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from spikeplug.coding import power_of_two
from spikeplug.numerics import Numerics
from spikeplug.primitives.arithmetic import Arithmetic
from spikeplug.primitives.exponential import PiecewiseExponential, ShiftExponential
from spikeplug.saturation import record

#: Scores live in [-2^29, 2^29]; MASKED stands so far below that its weight is 0 beside any score, and differences
#: (at most 2^29 + 2^30 + one octave) stay within int32.
_SCORE_BITS = 29
MASKED = -(1 << 30)


#: With input_bits, a score's code is its distance below the row's maximum, up to 2^4 octaves (or nats); what lies
#: further below sends no spike.
SCORE_RANGE_BITS = 4


class Scores(NamedTuple):
    """integers: int32, F fraction bits, in octaves (shift) or nats (piecewise), MASKED where the score is -inf.
    places: int32 (..., 1), rows whose scores are too large for F fraction bits have 2^-places times theirs; or None.
    undefined: bool (..., 1), rows with a NaN or +inf, which have no softmax; or None."""

    integers: Tensor
    places: Tensor | None
    undefined: Tensor | None


def natural_unit(numerics: Numerics) -> float:
    """What a score is multiplied by (a synaptic weight): log2(e) for octaves, 1 for nats."""
    return math.log2(math.e) if numerics.exponential == "shift" else 1.0


def encode_scores(x: Tensor, unit: float, numerics: Numerics) -> Scores:
    """Fixed-point scores of x·unit along the last dimension; |error| <= 2^-(F+1), F the `carried_fraction_bits`.

    Softmax needs absolute precision in the exponent, hence a fixed step; only a row whose largest magnitude does not
    fit gives up low bits (where they no longer matter: its weights are 0 or 1 but for ties).
    """
    lost = numerics.fraction_bits - carried_fraction_bits(numerics)
    integers_per_one = unit * (1 << numerics.fraction_bits - lost)
    if x.shape[-1] == 0:
        return Scores(x.to(torch.int32), None, None)
    largest = x.amax(-1, keepdim=True)
    undefined = None
    finite = torch.isfinite(largest)
    if not bool(finite.all()):
        undefined = ~finite & (largest != -math.inf)
        record("softmax: row not finite", undefined)
        x = x.masked_fill(undefined, 0.0)
        largest = largest.masked_fill(~finite, 0.0)
    excess = excess_places(largest, numerics)
    places = None
    if bool((excess > 0).any()):
        places = excess.clamp(min=0)
        x = x * power_of_two(-places, x.dtype)
    low, high = float(MASKED >> lost), float((1 << _SCORE_BITS) >> lost)
    return Scores((x * integers_per_one).clamp_(low, high).round_().to(torch.int32) << lost, places, undefined)


def carried_fraction_bits(numerics: Numerics) -> int:
    """Fraction bits of a score as it arrives: F, or with input_bits what SCORE_RANGE_BITS whole bits leave of them."""
    if numerics.input_bits is None:
        return numerics.fraction_bits
    return min(numerics.fraction_bits, numerics.input_bits - SCORE_RANGE_BITS)


def excess_places(x: Tensor, numerics: Numerics) -> Tensor:
    """By how many places the score of a finite x is too large for F fraction bits; int32, negative if it fits."""
    # exponent + 1 bit for log2(e) + F <= 29
    return torch.frexp(x).exponent.to(torch.int32) + (1 + numerics.fraction_bits - _SCORE_BITS)


def row_ceiling(scores: Scores, numerics: Numerics) -> Tensor:
    """M, int32 (..., 1): the row's largest score, rounded up to a whole octave for the shift form.

    M is never below every possible score, so a row that is all MASKED keeps its distance and gets weight 0.
    """
    ceiling = scores.integers.amax(-1, keepdim=True).clamp(min=-(1 << _SCORE_BITS))
    if numerics.exponential == "shift":
        octave = torch.tensor(1 << numerics.fraction_bits, dtype=torch.int32, device=ceiling.device)
        if scores.places is not None:  # those rows count in units of 2^places
            octave = octave >> scores.places.clamp(max=numerics.fraction_bits)
        ceiling = (ceiling + (octave - 1)) & -octave
    return ceiling


def distances(scores: Scores, numerics: Numerics) -> tuple[Tensor, Tensor]:
    """(M - scores, M) with M = `row_ceiling`; int32, >= 0."""
    ceiling = row_ceiling(scores, numerics)
    distance = ceiling - scores.integers
    if scores.places is not None:
        places = scores.places.clamp(max=30)
        distance = torch.minimum(distance, (1 << 30) >> places) << places
    return distance, ceiling


def heard(distance: Tensor, numerics: Numerics) -> Tensor:
    """Distances as a code of input_bits holds them: what lies beyond its range is as far as a masked score."""
    if numerics.input_bits is None:
        return distance
    return distance.masked_fill(distance >= 1 << (SCORE_RANGE_BITS + numerics.fraction_bits), -MASKED)


@lru_cache(maxsize=64)  # its table is made once
def shift_exponential(numerics: Numerics) -> ShiftExponential:
    """The 2^-x of `numerics`."""
    return ShiftExponential(numerics.fraction_bits, numerics.segments, numerics.working_bits)


@lru_cache(maxsize=64)
def piecewise_exponential(half_range: float, numerics: Numerics) -> PiecewiseExponential:
    """The PWL exponential of `numerics` on [-half_range, half_range]."""
    return PiecewiseExponential(half_range, numerics.segments, numerics.fraction_bits, numerics.working_bits)


def weights(scores: Scores, numerics: Numerics, on: Arithmetic) -> Tensor:
    """exp(score - max), up to a common power of two: integers up to 2^working_bits."""
    distance = heard(distances(scores, numerics)[0], numerics)
    if numerics.exponential == "shift":
        spec = shift_exponential(numerics)
        return on.decay(on.mantissa(distance, spec), distance >> numerics.fraction_bits)
    piecewise = piecewise_exponential(numerics.softmax_half_range, numerics)
    record("softmax: exponent below -H", (distance > -piecewise.knots[0]) & (scores.integers > MASKED))
    return on.piecewise(-distance, piecewise)
