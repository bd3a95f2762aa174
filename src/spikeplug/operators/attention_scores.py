"""Attention's scores, tile by tile: query·keyᵀ, softcap, bias, mask and sinks. Made here and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.operators.activations import tanh
from spikeplug.operators.attention_inputs import Masking, in_unit
from spikeplug.operators.attention_products import query_key_product
from spikeplug.operators.scores import natural_unit
from spikeplug.operators.tiles import Tile, cut, tiles
from spikeplug.primitives.arithmetic import arithmetic


def score_tiles(
    query: Tensor,
    key: Tensor,
    masking: Masking,
    *,
    scaling: float | None,
    softcap: float | None,
    sinks: Tensor | None,
    numerics: Numerics,
    events: Events | None,
) -> Iterator[tuple[Tile, Tensor]]:
    """(tile, scores (heads, groups·rows, keys)): softcap·tanh(query·keyᵀ·scaling / softcap) + bias, -inf where hidden.

    In natural units (octaves or nats), floating, for `encode_scores`. query (B, H, Q, D) and key (B, G, K, D), K > 0,
    of the dtype the scores are computed in; masking in natural units. With sinks (H,), every row's scores end in its
    head's sink, one column more than the tile has keys, and no row is left out; without, rows that may attend to
    nothing are. To be run under `without_autocast`.
    """
    unit = natural_unit(numerics)
    scaling = max(query.shape[-1], 1) ** -0.5 if scaling is None else scaling
    groups = query.shape[1] // key.shape[1]
    by_group = query.unflatten(1, (-1, groups))
    # The natural unit is a factor of the scores (or of the cap).
    factor = scaling * unit if softcap is None else scaling / softcap
    product = query_key_product(by_group, key, factor, numerics, arithmetic(numerics, events))
    bias = masking.bias
    if bias is not None:
        bias = bias.expand(query.shape[0], bias.shape[1], query.shape[2], key.shape[2])
    if sinks is not None:
        sinks = in_unit(sinks.to(query.dtype), unit).view(-1, groups, 1)
    for tile in tiles(query.shape, key.shape, masking.visible, every_row=sinks is not None):
        score = product(tile)
        if softcap is not None:
            score = _capped(score, tile, groups, softcap * unit, numerics, events)
        grouped = score.unflatten(1, (groups, -1))
        if bias is not None:
            grouped.add_(cut(bias, tile, groups))
        if tile.hidden is not None:
            grouped.masked_fill_(tile.hidden, -math.inf)
        if sinks is not None:
            column = sinks[tile.heads].expand(-1, -1, grouped.shape[2]).reshape(score.shape[0], -1, 1)
            score = torch.cat([score, column], -1)
        yield tile, score


def _capped(score: Tensor, tile: Tile, groups: int, cap: float, numerics: Numerics, events: Events | None) -> Tensor:
    """cap·tanh(score). Every score is a vector of its own, with its own scale: no key's code depends on another's."""
    if tile.hidden is not None:  # what nobody sees must not reach the ledger
        score.unflatten(1, (groups, -1)).masked_fill_(tile.hidden, 0.0)
    return tanh(score.unsqueeze(-1), numerics=numerics, events=events).squeeze(-1) * cap


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Scores stay in float32 under autocast: in bfloat16 they would be off by more than the softmax is fine."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
