"""Run attention on a CPU: keys and values coded once into panels, then one kernel from queries to output."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from spikeplug.fixedpoint import FLOAT64_EXACT_BITS
from spikeplug.kernels.cpu import attention_block, attention_codes
from spikeplug.kernels.cpu.attention_codes import STEP_OF_KEYS, codes_kernel
from spikeplug.kernels.cpu.attention_kernel import attention_kernel
from spikeplug.kernels.cpu.launch import launch
from spikeplug.kernels.cpu.memory import as_words
from spikeplug.kernels.cpu.product import PANEL, ROWS
from spikeplug.kernels.registry import DTYPES, EVERY_ROW, NO_AFFINE, Call
from spikeplug.numerics import Numerics
from spikeplug.operators.attention_inputs import check_attention, in_unit, masking
from spikeplug.operators.scores import natural_unit, shift_exponential
from spikeplug.primitives.interpolation import whole_table

#: Bits of a code, at most: one 16-bit limb.
_LIMB_BITS = 16


class _Panels(NamedTuple):
    """Keys and values in codes, as attention_codes.py lays them out."""

    key_panels: Tensor
    key_scales: Tensor
    value_panels: Tensor
    exponents: Tensor


class _PerRow(NamedTuple):
    """What a kernel reads of a mask or bias: the tensor, or 0, and its strides by batch, head and row, in elements."""

    tensor: Tensor | int
    batch: int
    head: int
    row: int


_NOTHING = _PerRow(0, 0, 0, 0)


class Attention:
    """Attention without a softcap.

    Batches are left that have a query, key or value which is not finite, or a row whose scores are not finite or too
    large for their fraction bits. The whole call is left if a bias or sink leaves float32, for that is counted.
    """

    def supports(self, call: Call) -> str | None:
        query, key, value, _, _, _, softcap = call.arguments
        numerics = call.numerics
        if call.weight is not None or call.bias is not None:
            return NO_AFFINE
        if not query.dim() == key.dim() == value.dim() == 4:
            return "query, key and value need 4 dimensions"
        if not (key.dtype in DTYPES and value.dtype in DTYPES):
            return "keys and values are not floating-point"
        if softcap is not None:
            return "there is a softcap"
        if numerics.query_key_bits is None:
            return "the numerics have query_key_bits=None; the kernel takes an integer"
        if max(numerics.query_key_bits, numerics.bits) > _LIMB_BITS:
            return f"codes have more than {_LIMB_BITS} bits"
        if not numerics.divide_last:
            return "the numerics have divide_last=False; the kernel takes True"
        # Sums of weights times values are exact in doubles.
        if numerics.working_bits + numerics.bits - 1 + (key.shape[2] - 1).bit_length() > FLOAT64_EXACT_BITS:
            return f"sums over {key.shape[2]} keys do not fit {FLOAT64_EXACT_BITS} bits"
        return None

    def run(self, call: Call) -> tuple[Tensor, Tensor | None]:
        query, key, value, mask, sinks, scaling, softcap = call.arguments
        check_attention(query, key, value, mask, softcap, sinks)
        numerics, unit = call.numerics, natural_unit(call.numerics)
        (batches, key_heads, keys, channels), width = key.shape, value.shape[-1]
        heads, queries = query.shape[1:3]
        # A token's heads side by side, as the layer after wants them.
        output = torch.empty(batches, queries, heads, width, dtype=torch.float32)
        if _leaves_float32(mask, unit) or _leaves_float32(sinks, unit):
            return output, EVERY_ROW
        panels, left = _coded(_by_channel(key), _by_channel(value), numerics)
        if left is not None and bool(left.all()):
            return output, left
        query, dtype = _by_channel(query), query.dtype
        visible, bias = _masking(mask, (batches, heads, queries, keys), unit)
        scaling = channels**-0.5 if scaling is None else scaling
        values = attention_block.Words(
            heads=key_heads,
            groups=heads // key_heads,
            queries=queries,
            keys=keys,
            channels=channels,
            width=width,
            fraction_bits=numerics.fraction_bits,
            bits=numerics.bits,
            working_bits=numerics.working_bits,
            query_bits=numerics.query_key_bits,
            query=query,
            query_batch=query.stride(0),
            query_head=query.stride(1),
            query_row=query.stride(2),
            **panels._asdict(),
            table=whole_table(shift_exponential(numerics).table, output.device),
            output=output,
            factor=float(scaling * unit),
            sinks=0 if sinks is None else in_unit(sinks.to(torch.float32), unit).contiguous(),
            mask=visible.tensor,
            mask_batch=visible.batch,
            mask_head=visible.head,
            mask_row=visible.row,
            bias=bias.tensor,
            bias_batch=bias.batch,
            bias_head=bias.head,
            bias_row=bias.row,
        )
        units = batches * key_heads * -(-heads // key_heads * queries // ROWS)
        rare = launch(attention_kernel, units, 4 * ROWS * keys, as_words(values), marks=batches, held=values)
        rare = left if rare is None else rare if left is None else rare | left
        return output.to(dtype).transpose(1, 2), rare


def _leaves_float32(x: Tensor | None, unit: float) -> bool:
    """Return whether a finite bias or sink leaves float32 when multiplied by the unit: the closed form counts it.

    Biases that hide their key are not counted; they are below 0, and so far below float32's end only with it.
    """
    if x is None or not x.dtype.is_floating_point:
        return False
    limit = torch.finfo(torch.float32).max / unit
    return bool(((x > limit) & (x < torch.inf)).any())


def _by_channel(x: Tensor) -> Tensor:
    """Return x in float32, with channels side by side."""
    x = x if x.dtype is torch.float32 else x.to(torch.float32)
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _coded(key: Tensor, value: Tensor, numerics: Numerics) -> tuple[_Panels, Tensor | None]:
    """Return keys and values in panels, and the batches with a vector that is not finite, bool, if there are any."""
    (batches, heads, keys, channels), width = key.shape, value.shape[-1]
    vectors, steps = batches * heads, -(-keys // STEP_OF_KEYS)
    padded, pairs, pitch = steps * STEP_OF_KEYS, -(-channels // 2), -(-width // PANEL) * PANEL
    panels = _Panels(
        key_panels=torch.empty(vectors * padded * 2 * pairs, dtype=torch.int16),
        key_scales=torch.empty(vectors * padded, dtype=torch.float64),
        value_panels=torch.empty(vectors * padded * pitch, dtype=torch.int16),
        exponents=torch.empty(vectors * padded, dtype=torch.int32),
    )
    values = attention_codes.Words(
        heads=heads,
        keys=keys,
        channels=channels,
        width=width,
        key_bits=numerics.query_key_bits,
        bits=numerics.bits,
        key=key,
        key_batch=key.stride(0),
        key_head=key.stride(1),
        key_row=key.stride(2),
        value=value,
        value_batch=value.stride(0),
        value_head=value.stride(1),
        value_row=value.stride(2),
        **panels._asdict(),
    )
    size = STEP_OF_KEYS * (channels + width)
    return panels, launch(codes_kernel, vectors * steps, size, as_words(values), marks=batches, held=values)


def _masking(mask: Tensor | None, shape: tuple[int, ...], unit: float) -> tuple[_PerRow, _PerRow]:
    """Return what of a mask hides, and what is added to scores of `shape`, which count in 1/unit."""
    if mask is None:
        return _NOTHING, _NOTHING
    if mask.dtype == torch.int64 and (stairs := staircase(mask, *shape[2:])) is not None:
        return stairs, _NOTHING
    hides = masking(mask, shape[3], torch.float32, unit)
    return _per_row(hides.visible, shape), _per_row(hides.bias, shape)


def _per_row(x: Tensor | None, shape: tuple[int, ...]) -> _PerRow:
    """Return a mask or bias, broadcastable to `shape`, with its keys side by side."""
    if x is None:
        return _NOTHING
    x = x.expand(-1, -1, -1, shape[3])
    x = x if x.stride(-1) == 1 else x.contiguous()
    return _PerRow(x, *x.expand(shape).stride()[:3])


def staircase(counts: Tensor, queries: int, keys: int) -> _PerRow | None:
    """Return counts of visible keys that grow by one per row as one string of ones and zeros.

    Each row begins a byte before the one above. None for other counts, or of several batches or heads.
    """
    rows = counts.reshape(-1)
    if len(rows) != queries or not 0 < int(rows[0]) <= keys or not bool((rows.diff() == 1).all()):
        return None
    string = torch.zeros(queries - 1 + keys, dtype=torch.bool)
    string[: int(rows[-1])] = True
    return _PerRow(string[queries - 1 :], 0, 0, -1)
