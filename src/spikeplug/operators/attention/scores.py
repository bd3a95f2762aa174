"""Make attention's scores, tile by tile: query·keyᵀ, softcap, bias, mask and sinks. All scores are made here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from spikeplug.codes import natural_unit
from spikeplug.operators.attention.call import AttentionCall, Masking, in_unit
from spikeplug.operators.attention.products import query_key_product
from spikeplug.operators.attention.tiles import Tile, cut, tiles
from spikeplug.operators.curves.tanh import tanh
from spikeplug.primitives.arithmetic import Arithmetic, inside


def score_tiles(call: AttentionCall, masking: Masking, on: Arithmetic) -> Iterator[tuple[Tile, Tensor]]:
    """Yield (tile, scores (heads, groups·rows, keys)): softcap·tanh(query·keyᵀ·scaling / softcap) + bias.

    heads are key heads, and groups the query heads per key head.
    Scores are floating, in natural units (octaves or nats) for `encode_scores`, and -inf where hidden.
    `masking` is in natural units. There is at least one key.
    With sinks, every row is yielded, and its scores end in its head's sink: one column more than the tile has keys.
    Without sinks, rows without a visible key are left out.
    Run it under `without_autocast`.
    """
    query, key = call.query.to(call.dtype), call.key.to(call.dtype)
    unit, groups, softcap = natural_unit(on.numerics), call.groups, call.softcap
    # The natural unit is a factor of the scores (or of the cap).
    factor = call.factor * unit if softcap is None else call.factor / softcap
    product = query_key_product(query.unflatten(1, (-1, groups)), key, factor, on)
    bias = masking.bias
    if bias is not None:
        bias = bias.expand(query.shape[0], bias.shape[1], query.shape[2], key.shape[2])
    sinks = None if call.sinks is None else in_unit(call.sinks.to(query.dtype), unit).view(-1, groups, 1)
    for tile in tiles(query.shape, key.shape, masking.visible, every_row=sinks is not None):
        score = product(tile)
        if softcap is not None:
            score = _capped(score, tile, groups, softcap * unit, on)
        grouped = score.unflatten(1, (groups, -1))
        if bias is not None:
            grouped.add_(cut(bias, tile, groups))
        if tile.hidden is not None:
            grouped.masked_fill_(tile.hidden, -math.inf)
        if sinks is not None:
            column = sinks[tile.heads].expand(-1, -1, grouped.shape[2]).reshape(score.shape[0], -1, 1)
            score = torch.cat([score, column], -1)
        yield tile, score


def _capped(score: Tensor, tile: Tile, groups: int, cap: float, on: Arithmetic) -> Tensor:
    """Return cap·tanh(score) by the spiking tanh; shape and dtype of `score`. Hidden scores of the tile are set to 0.

    Every score has a scale of its own, so its code does not depend on other scores.
    """
    if tile.hidden is not None:  # hidden scores must not be counted as saturations
        score.unflatten(1, (groups, -1)).masked_fill_(tile.hidden, 0.0)
    return tanh(score.unsqueeze(-1), on=inside(on, "softcap")).squeeze(-1) * cap


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which scores stay in float32; in bfloat16, their error would exceed softmax's own."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
