"""Attention: torch's products of float scores and of exact integers, and between them one kernel for the weights.

A tile of rows at a time, with all the keys they may attend to: no matrix of all scores is ever in memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.coding import decode as decoded
from spikeplug.coding import encode
from spikeplug.config import SpikeConfig
from spikeplug.fixedpoint import FLOAT64_EXACT_BITS
from spikeplug.kernels.cpu.attention_rows import attention_kernel
from spikeplug.kernels.cpu.attention_values import values_kernel
from spikeplug.kernels.cpu.launch import launch
from spikeplug.kernels.cpu.product import PANEL, ROWS
from spikeplug.operators.attention_inputs import check_attention, masking
from spikeplug.operators.attention_rows import attention_ratio, attention_sums
from spikeplug.operators.attention_scores import score_tiles, without_autocast
from spikeplug.operators.scores import encode_scores, natural_unit, shift_exponential
from spikeplug.operators.tiles import Tile
from spikeplug.primitives.arithmetic import Closed
from spikeplug.primitives.interpolation import whole_table


def fits(keys: int, config: SpikeConfig) -> bool:
    """Every partial sum of weights times values is an integer that a double holds."""
    return config.working_bits + config.bits - 1 + (keys - 1).bit_length() <= FLOAT64_EXACT_BITS


class _Tiles:
    """The kernels' side of one call: values in panels, the output."""

    def __init__(self, value: Tensor, shape: tuple[int, ...], groups: int, config: SpikeConfig) -> None:
        self.value, self.config = value, config
        batch, heads, keys, channels = value.shape
        self.panels = torch.empty(batch, heads, -(-channels // PANEL), keys, PANEL, dtype=torch.float64)
        self.exponents = torch.empty(batch, heads, keys, dtype=torch.int32)
        sizes = (channels, self.panels.shape[2], keys, config.bits)
        rows = batch * heads * keys
        self.nonfinite = launch(values_kernel, rows, channels, value.contiguous(), self.panels, self.exponents, *sizes)
        self.output = torch.zeros(shape, dtype=torch.float32)
        self.by_group = self.output.unflatten(1, (-1, groups))
        self.table = whole_table(shift_exponential(config).table, self.output.device)

    def add(self, tile: Tile, scores: Tensor) -> None:
        """The rows of one tile; scores as `score_tiles` gives them, not yet hidden."""
        heads, rows, width = scores.shape
        config, keys = self.config, tile.keys.stop - tile.keys.start
        first = (tile.batch, tile.heads.start)
        target = self.by_group[tile.batch, tile.heads, :, tile.rows]
        hidden = None if tile.hidden is None else tile.hidden.contiguous()
        panels, exponents = self.panels[*first, :, tile.keys.start :], self.exponents[*first, tile.keys.start :]
        addresses = (scores.contiguous(), self.table, panels, exponents, target)
        numbers = (config.fraction_bits, config.bits, config.working_bits)
        sizes = (width, keys, self.exponents.shape[-1], rows, *numbers, target.shape[-1])
        places = (target.shape[2], target.stride(1), target.stride(2))
        mask = (0, 0) if hidden is None else (hidden, hidden.numel() // keys)
        units = heads * -(-rows // ROWS)
        if launch(attention_kernel, units, ROWS * width, *addresses, *sizes, *places, *mask):
            self._closed(tile, scores)

    def _closed(self, tile: Tile, scores: Tensor) -> None:
        """A tile with NaN, infinities or huge scores."""
        place, on = (tile.batch, tile.heads, tile.keys), Closed()
        if tile.hidden is not None:
            seen = scores[..., : tile.keys.stop - tile.keys.start].unflatten(1, (self.by_group.shape[2], -1))
            seen.masked_fill_(tile.hidden, -torch.inf)
        encoded = encode_scores(scores, 1.0, self.config)
        sums = attention_sums(encoded, encode(self.value[place], self.config.bits), self.config, on)
        output = decoded(*attention_ratio(sums, scores.shape[-1], self.config, on), torch.float32)
        if encoded.undefined is not None:
            output = output.masked_fill(encoded.undefined, torch.nan)
        target = self.by_group[tile.batch, tile.heads, :, tile.rows]
        target.copy_(output.unflatten(1, target.shape[1:3]))


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    sinks: Tensor | None = None,
    scaling: float | None = None,
    softcap: float | None = None,
    *,
    config: SpikeConfig,
) -> Tensor | None:
    """`operators.attention`, bit for bit; None, left to it, for values with NaN or infinities, for one division a key,
    and for more keys than a double's integers hold."""
    check_attention(query, key, value, mask, softcap, sinks)
    if not config.divide_last or not fits(key.shape[2], config):
        return None
    shape = (*query.shape[:3], value.shape[-1])
    tiles = _Tiles(value.to(torch.float32), shape, query.shape[1] // key.shape[1], config)
    if tiles.nonfinite:
        return None
    hides = masking(mask, torch.float32, natural_unit(config))
    with without_autocast(query.device):
        for tile, scores in score_tiles(
            query.to(torch.float32),
            key.to(torch.float32),
            hides,
            scaling=scaling,
            softcap=softcap,
            sinks=sinks,
            config=config,
            events=None,
            hide=False,
        ):
            tiles.add(tile, scores)
    return tiles.output.to(query.dtype)
