"""Attention: keys and values coded once into panels, then one kernel from queries to output."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.coding import as_real
from spikeplug.fixedpoint import FLOAT64_EXACT_BITS
from spikeplug.kernels.cpu.attention_codes import STEP_OF_KEYS, codes_kernel
from spikeplug.kernels.cpu.attention_kernel import attention_kernel
from spikeplug.kernels.cpu.launch import launch
from spikeplug.kernels.cpu.product import PANEL, ROWS
from spikeplug.numerics import Numerics
from spikeplug.operators.attention_inputs import check_attention, in_unit, masking
from spikeplug.operators.scores import natural_unit, shift_exponential
from spikeplug.primitives.interpolation import whole_table

#: Bits of a code, at most: one 16-bit limb.
_LIMB_BITS = 16


def takes(keys: int, softcap: float | None, numerics: Numerics) -> bool:
    """Codes that fit a limb, sums of weights times values that a double holds, and no tanh between the products."""
    if numerics.query_key_bits is None or max(numerics.query_key_bits, numerics.bits) > _LIMB_BITS:
        return False
    exact = numerics.working_bits + numerics.bits - 1 + (keys - 1).bit_length() <= FLOAT64_EXACT_BITS
    return numerics.divide_last and softcap is None and exact


def _by_channel(x: Tensor) -> Tensor:
    """float32, with channels side by side."""
    x = as_real(x, "attention")  # a mask may be bool or count, and passes the registry; these may not
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _coded(key: Tensor, value: Tensor, key_bits: int, bits: int) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Panels of keys, their scales, panels of values, their exponents; None if a key or value is not finite."""
    (batches, heads, keys, channels), width = key.shape, value.shape[-1]
    vectors, steps = batches * heads, -(-keys // STEP_OF_KEYS)
    padded, pairs, pitch = steps * STEP_OF_KEYS, -(-channels // 2), -(-width // PANEL) * PANEL
    key_panels = torch.empty(vectors * padded * 2 * pairs, dtype=torch.int16)
    value_panels = torch.empty(vectors * padded * pitch, dtype=torch.int16)
    scales = torch.empty(vectors * padded, dtype=torch.float64)
    exponents = torch.empty(vectors * padded, dtype=torch.int32)
    panels = (key_panels, scales, value_panels, exponents)
    words: tuple[Tensor | int | float, ...] = (heads, keys, channels, width, key_bits, bits)
    words += (key, *key.stride()[:3], value, *value.stride()[:3], *panels)
    left = launch(codes_kernel, vectors * steps, STEP_OF_KEYS * (channels + width), *words)
    return None if left else panels


def _rows_of(x: Tensor | None, shape: tuple[int, ...]) -> tuple[Tensor | int, int, int, int]:
    """A mask or bias, broadcastable to `shape`: its address for the kernel, and strides of batch, head and row."""
    if x is None:
        return 0, 0, 0, 0
    x = x.expand(-1, -1, -1, shape[3])
    x = x if x.stride(-1) == 1 else x.contiguous()
    by_batch, by_head, by_row, _ = x.expand(shape).stride()
    return x, by_batch, by_head, by_row


def _staircase(counts: Tensor, queries: int, keys: int) -> tuple[Tensor, int, int, int] | None:
    """Counts of visible keys, one more from row to row, as `_rows_of` gives a mask: each row begins a byte before the
    one above, in one string of ones and zeros. None for other counts, or of several batches or heads."""
    rows = counts.reshape(-1)
    if len(rows) != queries or not 0 < int(rows[0]) <= keys or not bool((rows.diff() == 1).all()):
        return None
    string = torch.zeros(queries - 1 + keys, dtype=torch.bool)
    string[: int(rows[-1])] = True
    return string[queries - 1 :], 0, 0, -1


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    sinks: Tensor | None = None,
    scaling: float | None = None,
    softcap: float | None = None,
    *,
    numerics: Numerics,
) -> Tensor | None:
    """`operators.attention`, bit for bit. None, left to it: a softcap; queries, keys or values that are not finite;
    rows whose scores are not, or are too large; one division a key; codes of more than 16 bits, or none; more keys than
    a double's integers hold."""
    check_attention(query, key, value, mask, softcap, sinks)
    batches, key_heads, keys, channels = key.shape
    if not takes(keys, softcap, numerics):
        return None
    assert numerics.query_key_bits is not None
    (_, heads, queries, _), width, dtype = query.shape, value.shape[-1], query.dtype
    query = _by_channel(query)
    panels = _coded(_by_channel(key), _by_channel(value), numerics.query_key_bits, numerics.bits)
    if panels is None:
        return None
    unit = natural_unit(numerics)
    stairs = None if mask is None or mask.dtype != torch.int64 else _staircase(mask, queries, keys)
    hides = masking(None if stairs else mask, keys, torch.float32, unit)
    sink = None if sinks is None else in_unit(sinks.to(torch.float32), unit).contiguous()
    shape = (batches, heads, queries, keys)
    visible, bias = stairs or _rows_of(hides.visible, shape), _rows_of(hides.bias, shape)
    groups, scaling = heads // key_heads, channels**-0.5 if scaling is None else scaling
    # A token's heads side by side, as the layer after wants them.
    output = torch.empty(batches, queries, heads, width, dtype=torch.float32)
    table = whole_table(shift_exponential(numerics).table, output.device)
    numbers = (numerics.fraction_bits, numerics.bits, numerics.working_bits, numerics.query_key_bits)
    words: tuple[Tensor | int | float, ...]
    words = (key_heads, groups, queries, keys, channels, width, *numbers, query, *query.stride()[:3], *panels)
    words += (table, output, float(scaling * unit), 0 if sink is None else sink, *visible, *bias)
    units = batches * key_heads * -(-groups * queries // ROWS)
    if launch(attention_kernel, units, 4 * ROWS * keys, *words):
        return None
    return output.to(dtype).transpose(1, 2)
