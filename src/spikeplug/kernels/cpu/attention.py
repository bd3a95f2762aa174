"""Run attention on a CPU: keys and values coded once into panels, then one kernel from queries to output."""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from spikeplug.codes import is_packed, levels_of, natural_unit
from spikeplug.fixedpoint import FLOAT64_EXACT_BITS
from spikeplug.kernels.cpu import attention_codes
from spikeplug.kernels.cpu.attention_block import Numbers, Words
from spikeplug.kernels.cpu.attention_codes import STEP_OF_KEYS, Panels, codes_kernel
from spikeplug.kernels.cpu.attention_kernel import attention_kernel
from spikeplug.kernels.cpu.launch import launch
from spikeplug.kernels.cpu.memory import as_words
from spikeplug.kernels.cpu.product import PANEL, ROWS
from spikeplug.kernels.cpu.rows import Settings
from spikeplug.kernels.protocol import DTYPES, EVERY_ROW, NO_AFFINE, Call
from spikeplug.numerics import Numerics
from spikeplug.operators.attention.call import AttentionCall, in_unit, masking
from spikeplug.operators.softmax.weights import shift_exponential
from spikeplug.primitives.interpolation import whole_table

#: Bits of a code, at most: one 16-bit limb.
_LIMB_BITS = 16


class _PerRow(NamedTuple):
    """Hold a mask or bias for the kernel: the tensor (0: there is none) and its strides, in elements.

    batch, head, row: the stride from one batch, head or query row to the next.
    """

    tensor: Tensor | int
    batch: int
    head: int
    row: int


_NOTHING = _PerRow(0, 0, 0, 0)


class Attention:
    """Compute attention without a softcap.

    A batch is left to the closed form if a query, key or value in it is not finite, or if a row's scores have NaN or
    +inf or are too large for their fraction bits. The whole call is left if a bias or sink overflows float32 when it is
    converted to the unit of the scores, because the closed form counts such saturations.
    """

    def supports(self, call: Call) -> str | None:
        query, key, value, _, _, softcap, _ = call.arguments
        numerics = call.numerics
        if call.weight is not None or call.bias is not None:
            return NO_AFFINE
        if not query.dim() == key.dim() == value.dim() == 4:
            return "query, key and value need 4 dimensions"
        if not (is_packed(key) and is_packed(value)) and not (key.dtype in DTYPES and value.dtype in DTYPES):
            return "keys and values are neither floating-point nor packed"
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
        query, key, value, mask, scaling, _, sinks = call.arguments
        AttentionCall(*call.arguments)  # raises for what the operator refuses
        numerics, unit = call.numerics, natural_unit(call.numerics)
        (batches, heads, queries, channels), (key_heads, keys) = query.shape, key.shape[1:3]
        width = levels_of(value).shape[-1]
        # A token's heads side by side, as the layer after wants them.
        output = torch.empty(batches, queries, heads, width, dtype=torch.float32)
        if _leaves_float32(mask, unit) or _leaves_float32(sinks if sinks is None else sinks.abs(), unit):
            return output, EVERY_ROW
        memory, panels, left = _coded(_by_channel(key), _by_channel(value), numerics)
        if left is not None and bool(left.all()):
            return output, left
        query, dtype = _by_channel(query), query.dtype
        sinks = None if sinks is None else in_unit(sinks.to(torch.float32), unit).contiguous()
        visible, bias = _masking(mask, (batches, heads, queries, keys), unit)
        by_batch, by_head, by_row, _ = query.stride()
        values = Words(
            heads=key_heads,
            groups=heads // key_heads,
            queries=queries,
            keys=keys,
            channels=channels,
            width=width,
            query=query,
            query_batch=by_batch,
            query_head=by_head,
            query_row=by_row,
            output=output,
            factor=float((channels**-0.5 if scaling is None else scaling) * unit),
            sinks=0 if sinks is None else sinks,
            mask=visible.tensor,
            mask_batch=visible.batch,
            mask_head=visible.head,
            mask_row=visible.row,
            bias=bias.tensor,
            bias_batch=bias.batch,
            bias_head=bias.head,
            bias_row=bias.row,
        )
        numbers = _numbers(numerics)
        words = panels + numbers.words + as_words(values)
        units = batches * key_heads * -(-heads // key_heads * queries // ROWS)
        held = (memory, numbers, values)
        rare = launch(attention_kernel, units, 4 * ROWS * keys, words, marks=batches, held=held)
        rare = left if rare is None else rare if left is None else rare | left
        return output.to(dtype).transpose(1, 2), rare


@lru_cache(maxsize=64)
def _numbers(numerics: Numerics) -> Settings:
    table = whole_table(shift_exponential(numerics).table, torch.device("cpu"))
    return Settings.of(
        Numbers(
            fraction_bits=numerics.fraction_bits,
            bits=numerics.bits,
            working_bits=numerics.working_bits,
            query_bits=numerics.query_key_bits,
            table=table,
        )
    )


def _leaves_float32(x: Tensor | None, unit: float) -> bool:
    """Return whether a finite positive element of x overflows float32 when it is multiplied by `unit`.

    The closed form counts such an element as a saturation. A negative element that overflows is not counted: as a bias
    it hides its key. False for None and for tensors that are not floating-point.
    """
    if x is None or not x.dtype.is_floating_point:
        return False
    limit = torch.finfo(torch.float32).max / unit
    return bool(((x > limit) & (x < torch.inf)).any())


def _by_channel(x: Tensor) -> Tensor:
    """Return x as float32, or packed as it is, with the last dimension, the channels, contiguous in memory."""
    x = x if x.dtype is torch.float32 or is_packed(x) else x.to(torch.float32)
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _coded(key: Tensor, value: Tensor, numerics: Numerics) -> tuple[Tensor, Panels, Tensor | None]:
    """Code keys and values into integers; return (memory, panels, left).

    memory: uint8, holds all codes and must be kept while they are used. panels: the addresses of the arrays in it.
    left: bool (batches,), True where a key or value is not finite or too large to code; None if no batch is.
    """
    (batches, heads, keys, channels), width = levels_of(key).shape, levels_of(value).shape[-1]
    steps = -(-keys // STEP_OF_KEYS)
    padded, pairs, pitch = batches * heads * steps * STEP_OF_KEYS, -(-channels // 2), -(-width // PANEL) * PANEL
    # Bytes: multiples of 64, so that all lie as one of them would.
    sizes = Panels(
        key_panels=4 * padded * pairs, key_scales=8 * padded, value_panels=2 * padded * pitch, exponents=4 * padded
    )
    memory = torch.empty(sum(sizes), dtype=torch.uint8)
    panels = Panels(*accumulate(sizes[:-1], initial=memory.data_ptr()))
    (key_batch, key_head, key_row, _), (value_batch, value_head, value_row, _) = key.stride(), value.stride()
    values = attention_codes.Words(
        packed=int(is_packed(key)),
        heads=heads,
        keys=keys,
        channels=channels,
        width=width,
        key_bits=numerics.query_key_bits,
        bits=numerics.bits,
        key=key,
        key_batch=key_batch,
        key_head=key_head,
        key_row=key_row,
        value=value,
        value_batch=value_batch,
        value_head=value_head,
        value_row=value_row,
    )
    units, size, words = batches * heads * steps, STEP_OF_KEYS * (channels + width), panels + as_words(values)
    return memory, panels, launch(codes_kernel, units, size, words, marks=batches, held=(memory, values))


def _masking(mask: Tensor | None, shape: tuple[int, ...], unit: float) -> tuple[_PerRow, _PerRow]:
    """Split an attention mask in two: return (visible, bias), what hides keys and what is added to scores.

    shape: (batches, heads, queries, keys) of the scores. unit: the factor that converts a bias to the scores' unit.
    """
    if mask is None:
        return _NOTHING, _NOTHING
    if mask.dtype == torch.int64 and (stairs := staircase(mask, *shape[2:])) is not None:
        return stairs, _NOTHING
    hides = masking(mask, shape[3], torch.float32, unit)
    return _per_row(hides.visible, shape), _per_row(hides.bias, shape)


def _per_row(x: Tensor | None, shape: tuple[int, ...]) -> _PerRow:
    """Return mask or bias x with its strides, as if expanded to `shape`, its last dimension (keys) contiguous.

    x: broadcastable to shape (batches, heads, queries, keys), or None.
    """
    if x is None:
        return _NOTHING
    x = x.expand(-1, -1, -1, shape[3])
    x = x if x.stride(-1) == 1 else x.contiguous()
    return _PerRow(x, *x.expand(shape).stride()[:3])


def staircase(counts: Tensor, queries: int, keys: int) -> _PerRow | None:
    """Return a causal mask, given as the number of visible keys of each query row, as one shared bool vector.

    counts: int64. If each row sees one key more than the row above, all rows are windows of one vector of ones, then
    zeros: each row's window begins one byte before that of the row above, so the row stride is -1. Returns None for
    other counts, and if there are several batches or heads.
    """
    rows = counts.reshape(-1)
    if len(rows) != queries or not 0 < int(rows[0]) <= keys or not bool((rows.diff() == 1).all()):
        return None
    string = torch.zeros(queries - 1 + keys, dtype=torch.bool)
    string[: int(rows[-1])] = True
    return _PerRow(string[queries - 1 :], 0, 0, -1)
