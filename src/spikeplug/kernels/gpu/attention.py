"""Run attention on a GPU: keys and values coded once, then a program per key head and block of rows."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor

from spikeplug.codes import is_packed, levels_of, natural_unit
from spikeplug.kernels.gpu.attention_codes import KEY_STEP, encode_keys, encode_values, filled, key_ranges, limbs
from spikeplug.kernels.gpu.attention_rare import rare_kernel
from spikeplug.kernels.gpu.attention_tiles import attention_kernel
from spikeplug.kernels.gpu.launch import exponential_constants, knots, on_device
from spikeplug.kernels.protocol import DTYPES, NO_AFFINE, Call
from spikeplug.numerics import Numerics
from spikeplug.operators.attention.call import AttentionCall, visible_keys
from spikeplug.operators.softmax.weights import shift_exponential
from spikeplug.saturation import counter

#: Channels of a head, at most: what a program's registers hold.
_CHANNELS = 256
#: Rows whose marks a program of `rare_kernel` reads, and the keys that it takes at once.
_RARE_ROWS = 64
_RARE_KEYS = 32


class Blocks(NamedTuple):
    """Describe the tile of one Triton program: its query rows, the keys it takes at once, and its warps."""

    rows: int
    keys: int
    warps: int


def choose_blocks(rows: int, channels: int) -> Blocks:
    """Return the tiles for `rows` query rows per key head and `channels` per key or value. No result depends on it.

    They are the largest tiles that fit the registers of sm_90: four int32 sums per row and channel, the queries' bytes
    and the scores. With codes of two bytes, a thread's stack takes 208 bytes at most.
    """
    height = max(16, min(32 if channels <= 128 else 16, triton.next_power_of_2(rows)))
    return Blocks(height, KEY_STEP, 4 if height == 16 and channels <= 64 else 8)


class Attention:
    """Run attention with a bool mask, counts of visible keys, or no mask."""

    def supports(self, call: Call) -> str | None:
        query, key, value, mask, _, softcap, sinks = call.arguments
        numerics = call.numerics
        if call.weight is not None or call.bias is not None:
            return NO_AFFINE
        if not query.dim() == key.dim() == value.dim() == 4:
            return "query, key and value need 4 dimensions"
        if not all(x.dtype in DTYPES or is_packed(x) for x in (key, value)):
            return "keys and values are neither floating-point nor packed"
        if softcap is not None or sinks is not None:
            return "there is a softcap" if sinks is None else "there are sinks"
        if mask is not None and mask.dtype.is_floating_point:
            return "the mask is a bias"
        if numerics.query_key_bits is None:
            return "the numerics have query_key_bits=None; the kernel takes an integer"
        if not numerics.divide_last:
            return "the numerics have divide_last=False; the kernel takes True"
        if max(query.shape[-1], levels_of(value).shape[-1]) > _CHANNELS:
            return f"heads have more than {_CHANNELS} channels"
        # A sum of int8 products is of `limbs` products per key at most, see attention_tiles.py; the whole fits 62 bits.
        keys = key.shape[2]
        if keys * limbs(numerics.bits) >= 1 << 17 or numerics.working_bits + numerics.bits + keys.bit_length() > 62:
            return f"sums over {keys} keys do not fit"
        return None

    def run(self, call: Call) -> tuple[Tensor, None]:
        query, _, _, mask, scaling, _, _ = call.arguments
        numerics = call.numerics
        # Raises for what the operator refuses. Bytes become numbers, which are encoded again.
        given = AttentionCall(*call.arguments).unpacked()
        key, value = given.key, given.value
        assert value is not None
        visible = None if mask is None else visible_keys(mask, key.shape[2])[(None,) * (4 - mask.dim())]
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        return _attention(query, key, value, visible, float(scaling * natural_unit(numerics)), numerics), None


def _attention(
    query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None, factor: float, numerics: Numerics
) -> Tensor:
    """Return the output of attention (B, H, Q, Dv), in the query's dtype.

    visible: bool, 4 dimensions, broadcastable to the scores (B, H, Q, K); None if all keys are visible.
    factor: what query·key is multiplied by to give a score to base 2, log2(e) included.
    """
    (batches, heads, rows, channels), (key_heads, keys) = query.shape, key.shape[1:3]
    key_bits = numerics.query_key_bits
    assert key_bits is not None, "refused by supports"
    output = query.new_empty(batches, heads, rows, value.shape[-1])
    rare = torch.empty(batches, heads, rows, dtype=torch.int8, device=query.device)
    coded_keys, (coded_values, broken) = encode_keys(key, key_bits), encode_values(value, numerics.bits)
    mask = ranges = coded_keys.exponents  # unread if all keys are visible
    mask_strides: tuple[int, ...] = (0, 0, 0, 0)
    range_strides = mask_strides
    if visible is not None:
        mask = visible.view(torch.int8)  # a bool would pass through shared memory, which has none
        ranges = key_ranges(mask, keys)
        mask = mask.expand(batches, heads, rows, keys)
        mask_strides, range_strides = mask.stride(), ranges.expand(2, batches, heads, rows).stride()
    widths = filled(channels), filled(value.shape[-1])
    groups = heads // key_heads
    blocks = choose_blocks(rows * groups, max(widths))
    # What both kernels take, under the same names.
    shared = {
        "query": query,
        "keys": coded_keys.bytes_,
        "key_exponents": coded_keys.exponents,
        "values": coded_values.bytes_,
        "value_exponents": coded_values.exponents,
        "mask": mask,
        "table": knots(shift_exponential(numerics).table, query.device),
        "output": output,
        "rare": rare,
        "factor": factor,
        "key_heads": key_heads,
        "groups": groups,
        "rows": rows,
        "count": keys,
        "padded": coded_keys.exponents.shape[-1],
        **_strides("query", query.stride(), "channel"),
        **_strides("mask", mask_strides, "key"),
        "D": channels,
        "DV": value.shape[-1],
        "MASK": visible is not None,
        "KEY_BITS": key_bits,
        "KEY_LIMBS": limbs(key_bits),
        "LIMBS": limbs(numerics.bits),
        **exponential_constants(numerics),
        "BLOCK_D": widths[0],
        "BLOCK_DV": widths[1],
        "enable_fp_fusion": False,
    }
    with on_device(query), counter("softmax: row not finite", query.device) as ledger:
        attention_kernel[(-(-rows * groups // blocks.rows), batches * key_heads)](
            key_sums=coded_keys.sums,
            ranges=ranges,
            range_end=range_strides[0],
            range_batch=range_strides[1],
            range_head=range_strides[2],
            range_row=range_strides[3],
            DIGITS=3 if numerics.working_bits <= 22 else 4,
            BLOCK_ROWS=blocks.rows,
            BLOCK_KEYS=blocks.keys,
            num_warps=blocks.warps,
            num_stages=2,
            **shared,
        )
        rare_kernel[(-(-rows * groups // _RARE_ROWS), batches * key_heads)](
            key=key,
            value=value,
            broken=broken,
            ledger=ledger,
            **_strides("key", key.stride(), "channel"),
            **_strides("value", value.stride(), "channel"),
            BLOCK_ROWS=_RARE_ROWS,
            BLOCK_KEYS=_RARE_KEYS,
            num_warps=4,
            **shared,
        )
    return output


def _strides(name: str, strides: tuple[int, ...], last: str) -> dict[str, int]:
    """Return the 4 strides by the kernels' argument names: `name`_batch, `name`_head, `name`_row and `name`_`last`."""
    return {f"{name}_{axis}": stride for axis, stride in zip(("batch", "head", "row", last), strides, strict=True)}
