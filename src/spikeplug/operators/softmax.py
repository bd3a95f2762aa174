"""Softmax: exp(x - max), sum, divide."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.coding import as_real, decode
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.operators.ratio import Ratio
from spikeplug.operators.rows import along, by_rows
from spikeplug.operators.scores import Scores, encode_scores, natural_unit, weights
from spikeplug.presets import as_numerics
from spikeplug.primitives.arithmetic import Arithmetic, arithmetic


def softmax_integers(scores: Scores, numerics: Numerics, on: Arithmetic) -> tuple[Tensor, Tensor]:
    """(q, exponent): softmax along the last dimension is q·2^exponent; int64.

    Default: rounded to n bits of the row's largest probability. Published: floored to the fixed step 2^-n.
    """
    weight = weights(scores, numerics, on).to(torch.int64)
    width = numerics.working_bits + 1  # a weight may be 2^working_bits itself
    total = on.accumulate(weight, width)
    ratio = Ratio("softmax", width, width + weight.shape[-1].bit_length(), largest_output=1, channels=False)
    return ratio(weight, total, 0, numerics, on)


@torch.no_grad()
def softmax(x: Tensor, dim: int = -1, *, numerics: Numerics | None = None, events: Events | None = None) -> Tensor:
    """exp(x_i) / Σ_j exp(x_j) along `dim`, by spiking integers; same shape and dtype as x (any floating dtype).

    -inf is a masked key: probability 0; a row of nothing else gives zeros. A row with NaN or +inf gives NaN, as
    torch's does. Every finite input is in range: huge scores give up low bits, see `encode_scores`.
    events: count into it, simulating neuron by neuron (same result, slower).
    Errors: SpikeplugError for a non-floating tensor or a dim that x does not have.
    """
    numerics = as_numerics(numerics)
    as_real(x, "softmax")
    rows = along(dim, x, "softmax")
    if x.numel() == 0:
        return torch.empty_like(x)
    on = arithmetic(numerics, events)
    output = by_rows(lambda block: _softmax_rows(as_real(block, "softmax"), numerics, on), rows)
    return output.reshape(()) if x.dim() == 0 else output.movedim(-1, dim)


def _softmax_rows(x: Tensor, numerics: Numerics, on: Arithmetic) -> Tensor:
    scores = encode_scores(x, natural_unit(numerics), numerics)
    probability = decode(*softmax_integers(scores, numerics, on), x.dtype)
    return probability if scores.undefined is None else probability.masked_fill(scores.undefined, torch.nan)
