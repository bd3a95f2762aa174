"""Cut attention into tiles: small enough for a core's second-level cache, and only over keys that are visible."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

#: Scores per tile. The result does not depend on it.
_TILE = 1 << 18


class Tile(NamedTuple):
    """Hold the place of one block (batch entry, key heads, query rows, keys) and its hidden keys."""

    batch: int
    heads: slice
    rows: slice
    keys: slice
    hidden: Tensor | None  # True where a key may not be attended to, broadcastable to (heads, groups, rows, keys)


def tiles(query: torch.Size, key: torch.Size, visible: Tensor | None, *, every_row: bool = False) -> Iterator[Tile]:
    """Yield blocks of about _TILE scores, cut to the range of keys that any of their rows may attend to.

    query    (B, H, Q, D)
    key      (B, G, K, D), K > 0
    visible  bool, 4 dimensions, broadcastable to (B, H, Q, K), or None

    Rows without a visible key are left out; with every_row, they are yielded with one hidden key.
    """
    batch, heads, rows, _ = query
    key_heads, keys = key[1], key[2]
    groups = heads // key_heads
    row_step = max(1, min(rows, _TILE // max(1, groups * keys)))
    head_step = max(1, _TILE // max(1, groups * row_step * keys))
    shared = None if visible is None else visible.expand(batch, visible.shape[1], rows, keys)
    for index in range(batch):
        for first in range(0, rows, row_step):
            row_slice = slice(first, min(first + row_step, rows))
            start, stop = 0, keys
            if shared is not None:
                seen = shared[index, :, row_slice].flatten(0, 1).any(0).nonzero()
                if seen.numel() == 0 and not every_row:
                    continue  # nothing to attend to: the rows stay 0
                start, stop = (int(seen[0]), int(seen[-1]) + 1) if seen.numel() else (0, 1)
            tile = Tile(index, slice(0, key_heads), row_slice, slice(start, stop), None)
            hidden = None if shared is None else ~cut(shared, tile, groups)
            for head in range(0, key_heads, head_step):
                some = slice(head, min(head + head_step, key_heads))
                part = hidden if hidden is None or hidden.shape[0] == 1 else hidden[some]
                yield tile._replace(heads=some, hidden=part)


def cut(x: Tensor, tile: Tile, groups: int) -> Tensor:
    """Cut the batch entry, heads, query rows and keys of `tile` from x (B, H or 1, Q, K), a mask or bias.

    groups  query heads per key head
    The result is (heads, groups, rows, keys), or (1, rows, keys) if all heads share x.
    """
    part = x[tile.batch, :, tile.rows, tile.keys]
    return part.unflatten(0, (-1, groups))[tile.heads] if part.shape[0] > 1 else part
