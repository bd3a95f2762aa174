"""Log-softmax: x - max - log(sum of exp(x - max))."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from spikeplug.coding import as_real, decode, power_of_two
from spikeplug.fixedpoint import shift_right
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.operators.logarithm import logarithm_integers
from spikeplug.operators.rows import along, by_rows
from spikeplug.operators.scaling import fixed_step
from spikeplug.operators.scores import (
    MASKED,
    Scores,
    distances,
    encode_scores,
    excess_places,
    natural_unit,
    row_ceiling,
    weights,
)
from spikeplug.presets import as_numerics
from spikeplug.primitives.arithmetic import Arithmetic, arithmetic


class Far(NamedTuple):
    """Scores so far below their row's largest that F fraction bits of the distance do not fit; without a weight.

    elements: bool, which; terms, places: their scores are terms·2^places with F fraction bits; int32.
    """

    elements: Tensor
    terms: Tensor
    places: Tensor


def log_softmax_integers(scores: Scores, far: Far | None, numerics: Numerics, on: Arithmetic) -> tuple[Tensor, Tensor]:
    """(q, exponent): -log softmax is q·2^exponent >= 0, in octaves (shift) or nats (piecewise); int64.

    exponent is the fixed step's, -n; far scores have a step of their own, places - n.
    """
    width, fraction_bits = numerics.working_bits, numerics.fraction_bits
    inner = max(width, fraction_bits)
    total = on.accumulate(weights(scores, numerics, on).to(torch.int64), width + 1)
    octave = 1.0 if numerics.exponential == "shift" else math.log(2)
    logarithm = logarithm_integers(total.clamp(min=1), -width, octave, numerics, on) << (inner - width)
    distance, ceiling = distances(scores, numerics)
    below = (distance.to(torch.int64) << (inner - fraction_bits)) + logarithm
    exponent = torch.tensor(-numerics.bits, device=below.device)
    if far is not None:
        # log Σ exp(score) in the row's units of 2^(places - inner), then in each far score's own.
        places = torch.zeros_like(ceiling) if scores.places is None else scores.places
        level = (ceiling.to(torch.int64) << (inner - fraction_bits)) + shift_right(logarithm, places)
        level = shift_right(level, (far.places - places).clamp(min=0))
        below = torch.where(far.elements, level - (far.terms.to(torch.int64) << (inner - fraction_bits)), below)
        exponent = torch.where(far.elements, far.places, 0) - numerics.bits
    # No probability exceeds 1: an excess is the rounding of the sum's.
    return fixed_step(below.clamp(min=0), inner, numerics), exponent


@torch.no_grad()
def log_softmax(x: Tensor, dim: int = -1, *, numerics: Numerics | None = None, events: Events | None = None) -> Tensor:
    """x_i - log Σ_j exp(x_j) along `dim`, by spiking integers; same shape and dtype as x (any floating dtype).

    Octaves (the published form: nats) with n fraction bits, rounded, or floored without shift_scaling, times ln 2 at
    decoding. Scores 2^(30-F) and more below their row's largest have a power of two of their own instead.
    -inf stays -inf, in a row of nothing else too (torch: NaN), as log(softmax). A row with NaN or +inf gives NaN, as
    torch's does. events: count into it, simulating neuron by neuron.
    Errors: SpikeplugError for a non-floating tensor or a dim that x does not have.
    """
    numerics = as_numerics(numerics)
    as_real(x, "log_softmax")
    rows = along(dim, x, "log_softmax")
    if x.numel() == 0:
        return torch.empty_like(x)
    on = arithmetic(numerics, events)
    output = by_rows(lambda block: _log_softmax_rows(as_real(block, "log_softmax"), numerics, on), rows)
    return output.reshape(()) if x.dim() == 0 else output.movedim(-1, dim)


def _log_softmax_rows(x: Tensor, numerics: Numerics, on: Arithmetic) -> Tensor:
    unit = natural_unit(numerics)
    scores = encode_scores(x, unit, numerics)
    below, exponent = log_softmax_integers(scores, _far(x, unit, scores, numerics), numerics, on)
    # The other factor 2 keeps octaves, which may exceed the dtype where nats do not, within it.
    output = decode(-below, exponent - 1, x.dtype) * (2 / unit)
    output = output.masked_fill(x == -math.inf, -math.inf)
    return output if scores.undefined is None else output.masked_fill(scores.undefined, math.nan)


def _far(x: Tensor, unit: float, scores: Scores, numerics: Numerics) -> Far | None:
    integers, places = scores.integers, scores.places
    elements = integers == MASKED
    if places is not None:
        # As `distances` clips: beyond 2^30 places are lost, not the distance 0 of the largest itself.
        elements |= row_ceiling(scores, numerics) - integers >= (1 << 30) >> places.clamp(max=30)
    elements &= torch.isfinite(x)
    if not bool(elements.any()):
        return None
    finite = x.masked_fill(~elements, 0.0)
    own = excess_places(finite, numerics).clamp(min=0)
    own = own if places is None else torch.maximum(own, places)
    terms = (finite * power_of_two(-own, x.dtype) * (unit * (1 << numerics.fraction_bits))).round_().to(torch.int32)
    return Far(elements, terms, own)
