"""Attention: keys and values coded once into panels, then one kernel from queries to output."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.config import SpikeConfig
from spikeplug.fixedpoint import FLOAT64_EXACT_BITS
from spikeplug.kernels.cpu.attention_codes import STEP_OF_KEYS, keys_kernel, values_kernel
from spikeplug.kernels.cpu.attention_kernel import attention_kernel
from spikeplug.kernels.cpu.launch import launch
from spikeplug.kernels.cpu.product import PANEL, ROWS
from spikeplug.operators.attention_inputs import check_attention, in_unit, masking
from spikeplug.operators.scores import natural_unit, shift_exponential
from spikeplug.primitives.interpolation import whole_table

#: Bits of a code, at most: one 16-bit limb.
_LIMB_BITS = 16


def takes(keys: int, softcap: float | None, config: SpikeConfig) -> bool:
    """Codes that fit a limb, sums of weights times values that a double holds, and no tanh between the products."""
    if config.query_key_bits is None or max(config.query_key_bits, config.bits) > _LIMB_BITS:
        return False
    exact = config.working_bits + config.bits - 1 + (keys - 1).bit_length() <= FLOAT64_EXACT_BITS
    return config.divide_last and softcap is None and exact


def _by_channel(x: Tensor) -> Tensor:
    """float32, with channels side by side."""
    x = x.to(torch.float32)
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _coded(kernel: object, x: Tensor, units: int, words: int, panels: Tensor, scales: Tensor, bits: int) -> bool:
    """Run one of attention_codes.py over x (batches, heads, keys, channels); whether all of it is finite."""
    batches, heads, keys, channels = x.shape
    units *= batches * heads
    return launch(kernel, units, words, x, panels, scales, channels, keys, heads, bits, *x.stride()[:3]) == 0


def _rows_of(x: Tensor | None, shape: tuple[int, ...]) -> tuple[Tensor | int, int, int, int]:
    """A mask or bias, broadcastable to `shape`: its address for the kernel, and strides of batch, head and row."""
    if x is None:
        return 0, 0, 0, 0
    x = x.expand(shape[0], -1, -1, shape[3])
    if x.stride(-1) != 1 and shape[3] > 1:
        x = x.contiguous()
    by_head = x.stride(1) if x.shape[1] > 1 else 0
    by_row = x.stride(2) if x.shape[2] > 1 else 0
    return x, x.stride(0) if x.shape[0] > 1 else 0, by_head, by_row


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
    """`operators.attention`, bit for bit. None, left to it: a softcap; queries, keys or values that are not finite;
    rows whose scores are not, or are too large; one division a key; codes of more than 16 bits, or none; more keys than
    a double's integers hold."""
    check_attention(query, key, value, mask, softcap, sinks)
    batches, key_heads, keys, channels = key.shape
    if not takes(keys, softcap, config):
        return None
    assert config.query_key_bits is not None
    (_, heads, queries, _), width = query.shape, value.shape[-1]
    query32, key32, value32 = _by_channel(query), _by_channel(key), _by_channel(value)
    padded, value_panels, vectors = -(-keys // STEP_OF_KEYS) * STEP_OF_KEYS, -(-width // PANEL), batches * key_heads
    keys_coded = torch.empty(vectors, padded, 2 * -(-channels // 2), dtype=torch.int16)
    values_coded = torch.empty(vectors, value_panels, padded, PANEL, dtype=torch.int16)
    scales = torch.empty(vectors, padded, dtype=torch.float64)
    exponents = torch.empty(vectors, padded, dtype=torch.int32)
    if not _coded(keys_kernel, key32, padded // PANEL, PANEL * channels, keys_coded, scales, config.query_key_bits):
        return None
    if not _coded(values_kernel, value32, padded // 2, 2 * width, values_coded, exponents, config.bits):
        return None
    unit = natural_unit(config)
    hides = masking(mask, torch.float32, unit)
    sink = None if sinks is None else in_unit(sinks.to(torch.float32), unit).contiguous()
    shape = (batches, heads, queries, keys)
    visible, bias = _rows_of(hides.visible, shape), _rows_of(hides.bias, shape)
    groups, scaling = heads // key_heads, channels**-0.5 if scaling is None else scaling
    output = torch.empty(batches, heads, queries, width, dtype=torch.float32)
    table = whole_table(shift_exponential(config).table, output.device)
    numbers = (config.fraction_bits, config.bits, config.working_bits, config.query_key_bits)
    sizes = (key_heads, groups, queries, keys, channels, width, *numbers)
    codes = (query32, *query32.stride()[:3], keys_coded, scales, values_coded, exponents)
    units = vectors * -(-groups * queries // ROWS)
    rest = (table, output, float(scaling * unit), 0 if sink is None else sink, *visible, *bias)
    if launch(attention_kernel, units, 4 * ROWS * keys, *sizes, *codes, *rest):
        return None
    return output.to(query.dtype)
