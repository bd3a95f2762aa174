"""What attention's kernel wants made beforehand: values in signed bytes, and the keys each row may see."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: N803  (what is in capitals is known when a kernel is compiled)

from __future__ import annotations

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor

from spikeplug.config import SpikeConfig
from spikeplug.kernels.gpu.integers import (
    NONFINITE,
    magnitude_bits,
    nearest_mantissa,
    power_of_two,
    scale_exponent,
    widened,
)
from spikeplug.kernels.gpu.launch import on_device

#: Keys are filled up to a multiple of this, so that no block reads beyond.
KEY_STEP = 64
_SIGNIFICAND = {torch.bfloat16: 8, torch.float16: 11, torch.float32: 24}


def limbs(dtype: torch.dtype, config: SpikeConfig) -> int:
    """Signed bytes of a value: 2 if its n-bit code is at most 2^15 - 1, else 3.

    A code is at most 2^(n-1), and that only by rounding up: a largest element with no more than n - 1 significant
    bits, as half-precision ones have from 12 bits on, is coded exactly, below it.
    """
    exact = _SIGNIFICAND[dtype] < config.bits
    return 2 if config.bits <= (16 if exact else 15) else 3


def encode_values(value: Tensor, rare: Tensor, config: SpikeConfig) -> tuple[Tensor, Tensor]:
    """(bytes, exponents): `coding.encode` of every key's value (B, G, K, Dv) with n bits, its mantissa in bytes.

    bytes: int8 (limbs, B·G, Dv, K filled up), v = Σ 256^j·byte_j + 128·Σ_{j < last} 256^j: all bytes but the last are
    made signed by taking 128 away. Keys lie side by side, as the int8 matrix units want them.
    exponents: int32 (B·G, K filled up). rare's last byte is set if a value is not finite.
    """
    batches, heads, keys, channels = value.shape
    padded = -(-keys // KEY_STEP) * KEY_STEP
    count = limbs(value.dtype, config)
    bytes_ = torch.empty(count, batches * heads, channels, padded, dtype=torch.int8, device=value.device)
    exponents = torch.empty(batches * heads, padded, dtype=torch.int32, device=value.device)
    with on_device(value):
        _encode[(padded // KEY_STEP, batches * heads)](
            value,
            bytes_,
            exponents,
            rare,
            rare.numel() - 1,
            heads,
            keys,
            padded,
            *value.stride(),
            DV=channels,
            LIMBS=count,
            N=config.bits,
            STEP=KEY_STEP,
            BLOCK_DV=triton.next_power_of_2(channels),
            num_warps=4,
            enable_fp_fusion=False,
        )
    return bytes_, exponents


def key_ranges(mask: Tensor, keys: int) -> Tensor:
    """A row's first visible key and the one after the last, int32 (2, B', H', Q'); (keys, 0) if it may see none.

    mask: int8 (B', H', Q', K or 1).
    """
    ranges = torch.empty(2, *mask.shape[:3], dtype=torch.int32, device=mask.device)
    with on_device(mask):
        _range[(mask.shape[2], mask.shape[0] * mask.shape[1])](
            mask,
            ranges,
            ranges[0].numel(),
            mask.shape[1],
            keys,
            *mask.stride()[:3],
            mask.stride(3) if mask.shape[3] > 1 else 0,
            STEP=1024,
            num_warps=4,
        )
    return ranges


@triton.jit
def _encode(
    value,
    bytes_,
    exponents,
    rare,
    last,
    heads,
    keys,
    padded,
    batch_stride,
    head_stride,
    row_stride,
    channel_stride,
    DV: tl.constexpr,
    LIMBS: tl.constexpr,
    N: tl.constexpr,
    STEP: tl.constexpr,
    BLOCK_DV: tl.constexpr,
):
    head = tl.program_id(1).to(tl.int64)
    index, channel = tl.program_id(0) * STEP + tl.arange(0, STEP), tl.arange(0, BLOCK_DV)
    there = (channel < DV)[None, :]
    place = value + (head // heads) * batch_stride + (head % heads) * head_stride
    place += index.to(tl.int64)[:, None] * row_stride + channel[None, :] * channel_stride
    x = widened(tl.load(place, mask=there & (index < keys)[:, None], other=0.0))
    largest = tl.max(magnitude_bits(x), 1)
    broken = largest >= NONFINITE
    tl.store(rare + last + index * 0, (index * 0 + 1).to(tl.int8), mask=broken)
    exponent = scale_exponent(tl.where(broken, 0, largest), N)
    tl.store(exponents + head * padded + index, exponent)
    mantissa = nearest_mantissa(tl.where(broken[:, None], 0.0, x) * power_of_two(-exponent)[:, None], N)
    at = bytes_ + (head * DV + channel)[None, :] * padded + index[:, None]
    plane = (tl.num_programs(1) * DV).to(tl.int64) * padded
    tl.store(at, ((mantissa & 255) - 128).to(tl.int8), mask=there)
    mantissa = mantissa >> 8
    if LIMBS == 3:
        tl.store(at + plane, ((mantissa & 255) - 128).to(tl.int8), mask=there)
        mantissa = mantissa >> 8
        tl.store(at + 2 * plane, mantissa.to(tl.int8), mask=there)
    else:
        tl.store(at + plane, mantissa.to(tl.int8), mask=there)


@triton.jit
def _range(mask, ranges, end, heads, keys, batch_stride, head_stride, row_stride, key_stride, STEP: tl.constexpr):
    head = tl.program_id(1).to(tl.int64)
    place = mask + (head // heads) * batch_stride + (head % heads) * head_stride
    place += tl.program_id(0).to(tl.int64) * row_stride
    first, stop = tl.full([STEP], 0, tl.int32) + keys, tl.zeros([STEP], tl.int32)
    for start in range(0, keys, STEP):
        index = start + tl.arange(0, STEP)
        seen = tl.load(place + index.to(tl.int64) * key_stride, mask=index < keys, other=0) != 0
        first = tl.minimum(first, tl.where(seen, index, keys))
        stop = tl.maximum(stop, tl.where(seen, index + 1, 0))
    at = ranges + head * tl.num_programs(0) + tl.program_id(0)
    tl.store(at, tl.min(first, 0))
    tl.store(at + end, tl.max(stop, 0))
