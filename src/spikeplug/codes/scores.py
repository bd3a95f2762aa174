"""Encode scores: fixed-point exponents along a row, for softmax and attention."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from spikeplug.codes.coded import power_of_two
from spikeplug.numerics import Numerics
from spikeplug.saturation import record

#: Scores lie in [-2^29, 2^29]; MASKED stands so far below that its weight is 0 beside any score, and differences
#: (at most 2^29 + 2^30 + one octave) stay within int32.
SCORE_BITS = 29
MASKED = -(1 << 30)
#: With input_bits, a score's code is its distance below the row's maximum, up to 2^4 octaves (or nats); what lies
#: further below sends no spike.
SCORE_RANGE_BITS = 4


class Scores(NamedTuple):
    """Hold the integer scores of attention or softmax, in rows along the last dimension.

    integers   int32 with F = `Numerics.fraction_bits` fraction bits: exponents of 2 (for `shift`) or e (`piecewise`);
               MASKED where the score is -inf
    places     int32 (..., 1): a row whose scores are too large for F fraction bits holds 2^-places times them; or None
    undefined  bool (..., 1): rows with a NaN or +inf, which have no softmax; or None
    """

    integers: Tensor
    places: Tensor | None
    undefined: Tensor | None


def encode_scores(x: Tensor, unit: float, numerics: Numerics) -> Scores:
    """Return x · unit as fixed-point scores, in rows along the last dimension; |error| <= 2^-(F+1).

    F is `score_fraction_bits(numerics)`, the number of fraction bits.

    Softmax needs absolute precision in the exponent, hence a fixed step. Only a row whose largest magnitude does not
    fit gives up low bits (where they no longer matter: its weights are 0 or 1 but for ties).
    """
    lost = numerics.fraction_bits - score_fraction_bits(numerics)
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
    low, high = float(MASKED >> lost), float((1 << SCORE_BITS) >> lost)
    return Scores((x * integers_per_one).clamp_(low, high).round_().to(torch.int32) << lost, places, undefined)


def score_fraction_bits(numerics: Numerics) -> int:
    """Return the number of fraction bits of a score: `fraction_bits`, or fewer if `input_bits` leaves no more.

    With input_bits, 4 of them are whole bits, and at most input_bits - 4 are fraction bits.
    """
    if numerics.input_bits is None:
        return numerics.fraction_bits
    return min(numerics.fraction_bits, numerics.input_bits - SCORE_RANGE_BITS)


def excess_places(x: Tensor, numerics: Numerics) -> Tensor:
    """Return by how many bits each finite x is too large for a score with `fraction_bits` fraction bits.

    A score may have 29 bits and a sign. int32, of x's shape; 0 or negative where x fits.
    """
    # exponent + 1 bit for log2(e) + F <= 29
    return torch.frexp(x).exponent.to(torch.int32) + (1 + numerics.fraction_bits - SCORE_BITS)
