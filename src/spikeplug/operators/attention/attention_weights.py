"""Compute attention's weights: the spiking softmax itself, each probability divided and decoded on its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spikeplug.codes import as_real, decode, encode_scores, natural_unit, unpacked
from spikeplug.numerics import Numerics
from spikeplug.operators.attention.call import AttentionCall, visible_keys
from spikeplug.operators.attention.errors import coded_scores
from spikeplug.operators.attention.scores import score_tiles, without_autocast
from spikeplug.operators.record import Operator
from spikeplug.operators.softmax.softmax import bound as softmax_bound
from spikeplug.operators.softmax.softmax import softmax_integers
from spikeplug.operators.softmax.weights import score_range
from spikeplug.primitives.arithmetic import Arithmetic


def attention_weights(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None = None,
    scaling: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    *,
    on: Arithmetic,
) -> Tensor:
    """Return the probabilities of attention, (B, H, Q, K), dtype of query.

    Arguments and errors: see `AttentionCall`.
    The sink's own probability is dropped: a row with a sink sums to less than 1.
    With divide_last, attention weighs the values before dividing; these are the same weights, divided and rounded.
    """
    call = AttentionCall(query, key, None, mask, scaling, softcap, sinks).unpacked()
    output = query.new_zeros((*query.shape[:3], key.shape[2]))
    if output.numel() == 0:
        return output
    masking, by_group = call.masking(natural_unit(on.numerics)), output.unflatten(1, (-1, call.groups))
    with without_autocast(query.device):
        for tile, raw in score_tiles(call, masking, on):
            scores = encode_scores(raw, 1.0, on.numerics)
            part = by_group[tile.batch, tile.heads, :, tile.rows]
            probability = decode(softmax_integers(scores, on), call.dtype)
            probability = probability[..., : tile.keys.stop - tile.keys.start]
            part[..., tile.keys] = probability.unflatten(1, part.shape[1:3])
            if scores.undefined is not None:
                part.masked_fill_(scores.undefined.unflatten(1, part.shape[1:3]), torch.nan)
    return output


def exact(
    query: Tensor, key: Tensor, mask: Tensor | None, scaling: float | None, softcap: float | None, sinks: Tensor | None
) -> Tensor:
    """Return softmax over keys (and the sink) of softcap·tanh(query·keyᵀ·scaling / softcap) + mask; (B, H, Q, K).

    query (B, H, Q, D), key (B, G, K, D) not repeated. A row without a visible key is 0.
    """
    key = unpacked(key, as_real(query, "attention").dtype)
    groups = query.shape[1] // max(key.shape[1], 1)
    scaling = max(query.shape[-1], 1) ** -0.5 if scaling is None else scaling
    scores = query @ key.repeat_interleave(groups, 1).transpose(-1, -2) * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        mask = visible_keys(mask, key.shape[2])
        # As in the operator, a bias of at most -1e4 hides, as False does.
        hidden = ~mask if mask.dtype == torch.bool else mask <= -1e4
        scores = (scores if mask.dtype == torch.bool else scores + mask).masked_fill(hidden, -math.inf)
    if sinks is not None:
        column = sinks.view(1, -1, 1, 1).expand(*scores.shape[:3], 1).to(scores.dtype)
        return torch.cat([scores, column], -1).softmax(-1)[..., :-1]
    hidden = (scores == -math.inf).all(-1, keepdim=True)
    return scores.masked_fill(hidden, 0.0).softmax(-1).masked_fill(hidden, 0.0)


def bound(query: Tensor, key: Tensor, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - exact| of the probabilities p; (..., Q, K).

    It adds softmax's own error to p·(e^(2η) - 1), the effect of coding queries and keys, which changes a score by at
    most η.
    """
    scores, moved = coded_scores(query, key, numerics)
    found: Tensor = softmax_bound(scores, numerics=numerics) + scores.softmax(-1) * moved
    return found


RECORD = Operator(
    name="attention_weights",
    family="attention",
    formula="the probabilities of attention, each divided on its own",
    spiking=attention_weights,
    exact=exact,
    inputs=("query", "key"),
    settings=(None, None, None, None),
    scale="vector",
    bound=bound,
    input_range=score_range,
)
