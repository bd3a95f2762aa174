"""How attention is cut into tiles: small enough for a core's second-level cache, and only over keys that are seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

#: Scores per tile. The result does not depend on it.
_TILE = 1 << 18


class Tile(NamedTuple):
    """One block: which batch, key heads, query rows and keys; and what is masked in it."""

    batch: int
    heads: slice
    rows: slice
    keys: slice
    hidden: Tensor | None  # True where a key may not be attended to, broadcastable to (heads, groups, rows, keys)


def tiles(query: torch.Size, key: torch.Size, mask: Tensor | None) -> Iterator[Tile]:
    """Blocks of about _TILE scores, cut to the range of keys that any of their rows may attend to."""
    batch, heads, rows, _ = query
    key_heads, keys = key[1], key[2]
    groups = heads // key_heads
    row_step = max(1, min(rows, _TILE // max(1, groups * keys)))
    head_step = max(1, _TILE // max(1, groups * row_step * keys))
    shared = None if mask is None else mask.expand(batch, mask.shape[1], rows, keys)
    for index in range(batch):
        for first in range(0, rows, row_step):
            row_slice = slice(first, min(first + row_step, rows))
            start, stop = 0, keys
            if shared is not None:
                seen = shared[index, :, row_slice].flatten(0, 1).any(0).nonzero()
                if seen.numel() == 0:
                    continue  # nothing to attend to: the rows stay 0
                start, stop = int(seen[0]), int(seen[-1]) + 1
            for head in range(0, key_heads, head_step):
                head_slice = slice(head, min(head + head_step, key_heads))
                hidden = None
                if shared is not None:
                    allowed = shared[index, :, row_slice, start:stop]
                    per_head = allowed.shape[0] > 1
                    hidden = ~(allowed.unflatten(0, (-1, groups))[head_slice] if per_head else allowed)
                yield Tile(index, head_slice, row_slice, slice(start, stop), hidden)
