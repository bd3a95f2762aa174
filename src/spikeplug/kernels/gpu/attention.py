"""Attention on a GPU: keys and values coded once, then a program for a key head and a block of rows."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor

from spikeplug.kernels.gpu.attention_codes import KEY_STEP, encode, filled, key_ranges, limbs
from spikeplug.kernels.gpu.attention_tiles import attention_kernel
from spikeplug.kernels.gpu.launch import exponential_constants, knots, on_device
from spikeplug.kernels.gpu.support import takes
from spikeplug.numerics import Numerics
from spikeplug.operators.attention import attention as closed_attention
from spikeplug.operators.attention_inputs import check_mask, check_shapes, visible_keys
from spikeplug.operators.scores import natural_unit, shift_exponential
from spikeplug.presets import as_numerics

#: Channels of a head, at most: what a program's registers hold.
_CHANNELS = 256


class Blocks(NamedTuple):
    """Rows and keys of a program's tiles, and its warps."""

    rows: int
    keys: int
    warps: int


def choose_blocks(rows: int, channels: int) -> Blocks:
    """The tiles for so many rows a key head and so many channels, of a key or value. No result depends on it.

    The largest whose registers suffice (sm_90), four int32 sums a row and channel beside the queries' bytes and the
    scores: of codes of two bytes, a thread's stack is 208 bytes at most.
    """
    height = max(16, min(32 if channels <= 128 else 16, triton.next_power_of_2(rows)))
    return Blocks(height, KEY_STEP, 4 if height == 16 and channels <= 64 else 8)


@torch.no_grad()
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    sinks: Tensor | None = None,
    scaling: float | None = None,
    softcap: float | None = None,
    *,
    numerics: Numerics | None = None,
) -> Tensor:
    """`operators.attention`, bit for bit; same errors.

    Left to the closed form: the model's float product (query_key_bits None), additive masks, softcap, sinks, more than
    256 channels, about 2^16 keys or more; a call with values that are not finite; rows that see a query or key that is
    not finite, or whose scores lie beyond 2^(28 - F) octaves.
    """
    numerics = as_numerics(numerics)
    if softcap is not None or sinks is not None or not _fits(query, key, value, mask, numerics):
        return closed_attention(
            query, key, value, mask, scaling=scaling, softcap=softcap, sinks=sinks, numerics=numerics
        )
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    visible = None if mask is None else visible_keys(mask, key.shape[2])[(None,) * (4 - mask.dim())]
    # A byte a row, one for any of them, one for the values.
    rare = torch.zeros(query.shape[0] * query.shape[1] * query.shape[2] + 2, dtype=torch.int8, device=query.device)
    output = query.new_empty(*query.shape[:3], value.shape[-1])
    _run(query, key, value, visible, output, rare, scaling * natural_unit(numerics), numerics)
    rows_broken, values_broken = (bool(mark) for mark in rare[-2:].tolist())
    if values_broken:
        return closed_attention(query, key, value, mask, scaling=scaling, numerics=numerics)
    if rows_broken:
        _run_again(query, key, value, visible, output, rare[:-2].view(output.shape[:3]) > 0, scaling, numerics)
    return output


def _fits(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, numerics: Numerics) -> bool:
    """Whether the kernel takes this; whatever is wrong with it is for the closed form to say."""
    if not all(isinstance(x, Tensor) for x in (query, key, value)):
        return False
    if not takes(numerics, query, key, value) or not numerics.divide_last or numerics.query_key_bits is None:
        return False
    check_shapes(query, key, value)
    check_mask(mask, (*query.shape[:3], key.shape[2]))
    if mask is not None and (mask.dtype not in (torch.bool, torch.int64) or mask.device != query.device):
        return False
    if 0 in (*query.shape, *key.shape, *value.shape) or max(query.shape[-1], value.shape[-1]) > _CHANNELS:
        return False
    # A sum of int8 products is of `limbs` products a key at most, see attention_tiles.py; the exact sum fits 62 bits.
    keys = key.shape[2]
    return keys * limbs(numerics.bits) < 1 << 17 and numerics.working_bits + numerics.bits + keys.bit_length() <= 62


def _run(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor | None,
    output: Tensor,
    rare: Tensor,
    factor: float,
    numerics: Numerics,
) -> None:
    batches, heads, rows, channels = query.shape
    key_heads, keys = key.shape[1:3]
    groups = heads // key_heads
    key_bits = numerics.query_key_bits
    assert key_bits is not None, "left to the closed form by _fits"
    coded_keys = encode(key, key_bits, rare, values=False)
    coded_values = encode(value, numerics.bits, rare, values=True)
    ranges, mask = coded_keys.exponents, coded_keys.exponents
    mask_strides: tuple[int, ...] = (0, 0, 0, 0)
    range_strides = mask_strides
    if visible is not None:
        mask = visible.view(torch.int8)  # a bool would pass through shared memory, which has none
        ranges = key_ranges(mask, keys)
        mask = mask.expand(batches, heads, rows, keys)
        mask_strides = mask.stride()
        range_strides = ranges.expand(2, batches, heads, rows).stride()
    widths = filled(channels), filled(value.shape[-1])
    blocks = choose_blocks(rows * groups, max(widths))
    with on_device(query):
        attention_kernel[(-(-rows * groups // blocks.rows), batches * key_heads)](
            query,
            *coded_keys,
            *coded_values[:2],
            mask,
            ranges,
            knots(shift_exponential(numerics).table, query.device),
            output,
            rare,
            factor,
            batches,
            key_heads,
            groups,
            rows,
            keys,
            coded_keys.exponents.shape[-1],
            *query.stride(),
            *mask_strides,
            *range_strides,
            D=channels,
            DV=value.shape[-1],
            MASK=visible is not None,
            KEY_BITS=key_bits,
            KEY_LIMBS=limbs(key_bits),
            LIMBS=limbs(numerics.bits),
            DIGITS=3 if numerics.working_bits <= 22 else 4,
            **exponential_constants(numerics),
            BLOCK_ROWS=blocks.rows,
            BLOCK_KEYS=blocks.keys,
            BLOCK_D=widths[0],
            BLOCK_DV=widths[1],
            num_warps=blocks.warps,
            num_stages=2,
            enable_fp_fusion=False,
        )


def _run_again(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor | None,
    output: Tensor,
    rare: Tensor,
    scaling: float,
    numerics: Numerics,
) -> None:
    """The closed form of the rows marked in `rare` (B, H, Q); it records what these do in the ledger."""
    for batch in range(query.shape[0]):
        rows = rare[batch].any(0).nonzero()[:, 0]
        if rows.numel() == 0:
            continue
        part = slice(batch, batch + 1)
        mask = None
        if visible is not None:
            mask = visible[part] if visible.shape[0] > 1 else visible
            mask = mask[:, :, rows] if mask.shape[2] > 1 else mask
        fixed = closed_attention(query[part, :, rows], key[part], value[part], mask, scaling=scaling, numerics=numerics)
        marked = rare[batch][:, rows, None]
        output[batch, :, rows] = torch.where(marked, fixed[0], output[batch, :, rows])
