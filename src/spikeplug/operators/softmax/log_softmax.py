"""Compute log-softmax: x - max - log(sum of exp(x - max))."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from spikeplug.codes import (
    MASKED,
    Coded,
    Scores,
    decode,
    encode_scores,
    excess_places,
    natural_unit,
    power_of_two,
    score_fraction_bits,
)
from spikeplug.numerics import Numerics
from spikeplug.operators.elements.log import logarithm_integers
from spikeplug.operators.errors import falling_error, silenced, weight_error, within_scores
from spikeplug.operators.operands import Operands
from spikeplug.operators.ratio import EXPONENT_BITS, fixed_step
from spikeplug.operators.record import Operator, Spelling
from spikeplug.operators.rows import by_vectors
from spikeplug.operators.softmax.softmax import softmax_call
from spikeplug.operators.softmax.weights import DISTANCE_BITS, distances, row_ceiling, score_range, weights
from spikeplug.primitives.arithmetic import Arithmetic, Closed


class Far(NamedTuple):
    """Hold scores so far below their row's largest that F fraction bits of the distance do not fit; their weight is 0.

    elements  bool: which scores
    terms     int32: a far score is terms·2^(places - F), F = numerics.fraction_bits
    places    int32: the power of two of each far score
    """

    elements: Tensor
    terms: Tensor
    places: Tensor


def log_softmax_integers(scores: Scores, far: Far | None, on: Arithmetic) -> Coded:
    """Return the code of -log softmax >= 0 in octaves (shift exponential) or nats (piecewise); int64 mantissa.

    The step is 2^-n, n = numerics.bits. Scores in `far` have a step of their own, 2^(far.places - n).
    """
    numerics = on.numerics
    width, fraction_bits, bits = numerics.working_bits, numerics.fraction_bits, numerics.bits
    inner = max(width, fraction_bits)
    wide = DISTANCE_BITS + inner - fraction_bits + 1
    distance, ceiling = distances(scores, on)
    total = on.accumulate(weights(scores, distance, on).to(torch.int64), width + 1)
    octave = 1.0 if numerics.exponential == "shift" else math.log(2)
    total = on.clamp(total, 1, None, width + 1 + scores.integers.shape[-1].bit_length(), "sum/clamp")
    logarithm = logarithm_integers(total, -width, octave, on) << (inner - width)
    below = on.add(distance.to(torch.int64) << (inner - fraction_bits), logarithm, wide, "below")
    exponent = torch.tensor(-bits, device=below.device)
    granularity = "fixed"
    if far is not None:
        # log Σ exp(score) in the row's units of 2^(places - inner), then in each far score's own.
        places = torch.zeros_like(ceiling) if scores.places is None else scores.places
        level = on.add(
            ceiling.to(torch.int64) << (inner - fraction_bits),
            on.decay(logarithm, places, "far/decay"),
            wide,
            "far/sum",
        )
        further = on.clamp(
            on.add(far.places, -places, EXPONENT_BITS, "far/places"), 0, None, EXPONENT_BITS + 1, "far/clamp"
        )
        level = on.decay(level, further, "far/decay")
        terms = far.terms.to(torch.int64) << (inner - fraction_bits)
        below = on.select(far.elements, on.add(level, -terms, wide, "far/below"), below, wide + 1, "far")
        exponent = on.select(far.elements, far.places, 0, EXPONENT_BITS, "far/exponent") - bits
        granularity = "element"
    # No probability exceeds 1: an excess is the rounding of the sum's.
    below = on.clamp(below, 0, None, wide + 1, "below/clamp")
    return Coded(fixed_step(below, inner, wide + 1, on), exponent, wide + 1, granularity)  # type: ignore[arg-type]


def log_softmax(x: Tensor, dim: int = -1, *, on: Arithmetic) -> Tensor:
    """Return x_i - log Σ_j exp(x_j) along `dim`; same shape and dtype as x (any floating dtype).

    n is numerics.bits, and F numerics.fraction_bits.
    The result has n fraction bits in octaves (the published form: nats), times ln 2 when decoded.
    It is rounded, or floored without shift_scaling.
    Scores 2^(30-F) and more below their row's largest have a power of two of their own instead.
    -inf stays -inf, as log(softmax), also in a row of only -inf (torch: NaN). A row with NaN or +inf gives NaN, as in
    torch.
    Errors: SpikeplugError for a non-floating tensor, or a dim that x does not have.
    """
    return by_vectors(lambda block: _rows(block, on), x, dim, on)


def _rows(x: Tensor, on: Arithmetic) -> Tensor:
    unit = natural_unit(on.numerics)
    scores = encode_scores(x, unit, on.numerics)
    code = log_softmax_integers(scores, _far(x, unit, scores, on.numerics), on)
    # The other factor 2 keeps octaves, which may exceed the dtype where nats do not, within it.
    half = Coded(-code.mantissa, code.exponent - 1, code.bits, code.granularity)
    output = decode(half, x.dtype) * (2 / unit)
    output = output.masked_fill(x == -math.inf, -math.inf)
    return output if scores.undefined is None else output.masked_fill(scores.undefined, math.nan)


def _far(x: Tensor, unit: float, scores: Scores, numerics: Numerics) -> Far | None:
    """Return codes of the finite scores too far below their row's largest for `scores`; None if there are none.

    x are the scores in nats, and `unit` converts them to octaves, or is 1.
    """
    integers, places = scores.integers, scores.places
    elements = integers == MASKED
    if places is not None:
        # As `distances` clips: beyond 2^30 places are lost, not the distance 0 of the largest itself.
        limit = torch.tensor(1 << 30, dtype=torch.int32, device=x.device) >> places.clamp(max=30)
        elements |= row_ceiling(scores, Closed(numerics, "log_softmax")) - integers >= limit
    elements &= torch.isfinite(x)
    if not bool(elements.any()):
        return None
    finite = x.masked_fill(~elements, 0.0)
    own = excess_places(finite, numerics).clamp(min=0)
    own = own if places is None else torch.maximum(own, places)
    terms = (finite * power_of_two(-own, x.dtype) * (unit * (1 << numerics.fraction_bits))).round_().to(torch.int32)
    return Far(elements, terms, own)


def bound(x: Tensor, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - exact|, four errors added.

    They are: rounding of the output; steps of the input; ε/(1-ε), with ε the relative error of Σ exp(x); and the chords
    of the logarithm's table.
    """
    segments, unit = 2.0 ** math.ceil(numerics.bits / 2), 2.0**-numerics.working_bits
    octave = math.log(2) if numerics.exponential == "shift" else 1.0
    step = 2.0**-numerics.bits * (0.5 if numerics.shift_scaling else 1.0)
    distance = x.amax(-1, keepdim=True) - x
    weight, silent = (-distance).exp().sum(-1, keepdim=True), silenced(distance, numerics).sum(-1, keepdim=True)
    if numerics.exponential == "shift":
        total = weight_error(numerics, scores=True) + (x.shape[-1] + 1) * 2 * unit + silent / weight
    else:
        lost = falling_error(distance, numerics, numerics.softmax_half_range, scores=True).absolute
        total = (lost.sum(-1, keepdim=True) + silent) / weight + 2.0 ** -score_fraction_bits(numerics)
    table = 1 / (8 * segments**2) + 2.0 ** (5 - numerics.working_bits)
    share = torch.where(total < 1, total / (1 - total).clamp(min=1e-300), math.inf)
    error = octave * (step + 2.0 ** -(score_fraction_bits(numerics) + 1)) + share + table
    return within_scores(x, error.expand_as(x), numerics)


def integers(given: Operands, on: Arithmetic) -> Coded:
    """Return the code of the operator, from integers that are given."""
    return log_softmax_integers(given.scores(), None, on)


RECORD = Operator(
    name="log_softmax",
    family="softmax",
    formula="x_i - ln Σ_j exp(x_j) along `dim`",
    spiking=log_softmax,
    integers=integers,
    exact=torch.log_softmax,
    inputs=("logits",),
    settings=(-1,),
    scale="octaves",
    bound=bound,
    largest=lambda numerics: float(1 << 30 - numerics.fraction_bits),
    input_range=score_range,
    spellings=(Spelling(("log_softmax",), softmax_call),),
    module="LogSoftmax",
)
