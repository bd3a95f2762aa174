"""Code keys and values in signed bytes, as int8 matrix units take them; find the keys that a row sees.

A code c, |c| < 2^(bits-1), is Σ 256^j·byte_j + offset: all its bytes but the last are made signed by taking 128 away,
so the offset is 128·Σ_{j < last} 256^j. (Balanced digits need none, but the last one of 2^15 - 1 is 128, no int8.)
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: N803  (what is in capitals is known when a kernel is compiled)

from __future__ import annotations

from typing import NamedTuple

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor

from spikeplug.kernels.gpu.integers import (
    NONFINITE,
    decode,
    is_finite,
    magnitude_bits,
    nearest_mantissa,
    scale_exponent,
    tally,
    widened,
)
from spikeplug.kernels.gpu.launch import on_device
from spikeplug.saturation import counter

#: Keys are filled up to a multiple of this, so that no block reads beyond.
KEY_STEP = 64
#: The exponent of a vector that is not finite: its power of two is infinite in float64, and NaN times its codes, all 0.
UNDEFINED = tl.constexpr(1024)


class Codes(NamedTuple):
    """Hold keys or values as integer codes: B·G heads of K vectors with C channels; zeros fill up K and C.

    bytes_: int8, the signed bytes of the codes, lowest byte first: (bytes per code, B·G, K, C) for keys, (bytes per
    code, B·G, C, K) for values. exponents: int32 (B·G, K); an element is code·2^exponent.
    sums: int32 (B·G, K), the sum of each vector's codes.
    """

    bytes_: Tensor
    exponents: Tensor
    sums: Tensor


def limbs(bits: int) -> int:
    """Return how many bytes hold a code of `bits` bits (at most 20): 2 or 3."""
    return 2 if bits <= 16 else 3


def filled(channels: int) -> int:
    """Return `channels` rounded up to what the matrix units take: a power of two, 32 or more."""
    return max(32, int(triton.next_power_of_2(channels)))


def encode_keys(x: Tensor, bits: int) -> Codes:
    """Encode the keys x (B, G, K, C) with `bits` bits; a key's channels lie side by side in memory.

    They are the codes of `codes.encode_for_product`: the dot product of any two is below 2^(2·bits - 1).
    A key that is not finite has codes of 0 and the exponent UNDEFINED.
    """
    return _coded(x, bits, x, x, values=False)


def encode_values(x: Tensor, bits: int) -> tuple[Codes, Tensor]:
    """Encode the values x (B, G, K, C) with `bits` bits; one channel's values of all keys lie side by side in memory.

    They are the codes of `codes.encode` with |code| < 2^(bits - 1).
    Also return an int8 (B·G), 1 for each head with a value that is not finite, else 0. Such a value is coded as 0 and
    counted in the ledger of saturations.
    """
    broken = torch.zeros(x.shape[0] * x.shape[1], dtype=torch.int8, device=x.device)
    with counter("input: not finite", x.device) as ledger:
        return _coded(x, bits, broken, ledger, values=True), broken


def _coded(x: Tensor, bits: int, broken: Tensor, ledger: Tensor, *, values: bool) -> Codes:
    batches, heads, keys, channels = x.shape
    padded, width, count = -(-keys // KEY_STEP) * KEY_STEP, filled(channels), limbs(bits)
    exponents, sums = torch.empty(2, batches * heads, padded, dtype=torch.int32, device=x.device)
    shape = (count, batches * heads, width, padded) if values else (count, batches * heads, padded, width)
    bytes_ = torch.empty(shape, dtype=torch.int8, device=x.device)
    with on_device(x):
        _encode[(padded // KEY_STEP, batches * heads)](
            x=x,
            bytes_=bytes_,
            exponents=exponents,
            sums=sums,
            broken=broken,
            ledger=ledger,
            heads=heads,
            keys=keys,
            padded=padded,
            batch_stride=x.stride(0),
            head_stride=x.stride(1),
            row_stride=x.stride(2),
            channel_stride=x.stride(3),
            VALUES=values,
            CHANNELS=channels,
            FILLED=width,
            LIMBS=count,
            BITS=bits,
            STEP=KEY_STEP,
            num_warps=4,
            enable_fp_fusion=False,
        )
    return Codes(bytes_, exponents, sums)


def key_ranges(mask: Tensor, keys: int) -> Tensor:
    """Return the range of keys that each query row may see, int32 (2, B', H', Q').

    [0] is the index of a row's first visible key, [1] that of its last one plus 1; (keys, 0) if it may see none.
    mask: int8 (B', H', Q', K or 1), not 0 where a key is visible. keys: their number K.
    """
    ranges = torch.empty(2, *mask.shape[:3], dtype=torch.int32, device=mask.device)
    with on_device(mask):
        _range[(mask.shape[2], mask.shape[0] * mask.shape[1])](
            mask=mask,
            ranges=ranges,
            end=ranges[0].numel(),
            heads=mask.shape[1],
            keys=keys,
            batch_stride=mask.stride(0),
            head_stride=mask.stride(1),
            row_stride=mask.stride(2),
            key_stride=mask.stride(3) if mask.shape[3] > 1 else 0,
            STEP=1024,
            num_warps=4,
        )
    return ranges


@triton.constexpr_function
def offset(count):
    """Return what to add to Σ 256^j·byte_j to get a code of `count` bytes: 128 was taken from all but its last byte."""
    return sum(128 << 8 * place for place in range(count - 1))


@triton.constexpr_function
def doublings(channels):
    """Return how often `encoded` may have to double a scale at most: the least j > 0 with 2·4^j > channels.

    BITS is the width of a code. Before the doublings |x| / scale < 2^(BITS - 1), so after j > 0 of them a code is at
    most 2^(BITS - 1 - j), rounding included, which is below 2^(BITS - 1); and the squares sum to
    channels·4^(BITS - 1 - j) < 2·4^(BITS - 1) at most.
    """
    return max(1, channels.bit_length() // 2)


@triton.jit
def encoded(x, BITS: tl.constexpr, FOR_PRODUCT: tl.constexpr):
    """Return the rows of x (rows, C), float32, as (codes (rows, C), exponents (rows,)), int32: x ≈ code·2^exponent.

    Always |code| < 2^(BITS - 1). FOR_PRODUCT: as `codes.encode_for_product`, also Σ code² < 2^(2·BITS - 1) in a row;
    a row that is not finite gets codes of 0 and the exponent UNDEFINED. Else as `codes.encode`; an element that is
    not finite gets the code 0.
    """
    size = magnitude_bits(x)
    if FOR_PRODUCT:
        broken = tl.max(size, 1) >= NONFINITE
        x, size = tl.where(broken[:, None], 0.0, x), tl.where(broken[:, None], 0, size)
    else:
        x, size = tl.where(size < NONFINITE, x, 0.0), tl.where(size < NONFINITE, size, 0)
    exponent = scale_exponent(tl.max(size, 1), BITS)
    if FOR_PRODUCT:
        for _ in range(doublings(x.shape[1])):
            exponent += _too_large(_codes(x, exponent, BITS), BITS)
    # The scale in two halves is for either code: where encode's, in one, rounds otherwise, the code is 0 both times.
    code = _codes(x, exponent, BITS)
    if FOR_PRODUCT:
        return code, tl.where(broken, UNDEFINED, exponent)
    else:
        most: tl.constexpr = (1 << (BITS - 1)) - 1
        return tl.minimum(tl.maximum(code, -most), most), exponent


@triton.jit
def _codes(x, exponent, BITS: tl.constexpr):
    """Return x (rows, C) divided by 2^exponent (rows,), rounded half to even, int32."""
    return nearest_mantissa(decode(x, -exponent[:, None]), BITS)


@triton.jit
def _too_large(code, BITS: tl.constexpr):
    """Return 1 for rows with a code beyond 2^(BITS-1) - 1 or squares that sum to 2^(2·BITS-1) or more, else 0."""
    square = tl.sum(code.to(tl.int64) * code, 1)
    return ((tl.max(tl.abs(code), 1) >= 1 << (BITS - 1)) | (square >= 1 << (2 * BITS - 1))).to(tl.int32)


@triton.jit
def cut(code, LIMBS: tl.constexpr):
    """Return the signed bytes (last, second, first) of codes, int8: the highest byte first in the tuple.

    128 is taken away from all bytes but the last. If LIMBS is 2, a code is `last` and `first`; leave `second` unread.
    """
    first, second = (code & 255) - 128, (code >> 8 & 255) - 128
    return (code >> 8 * (LIMBS - 1)).to(tl.int8), second.to(tl.int8), first.to(tl.int8)


@triton.jit
def _encode(
    x,
    bytes_,
    exponents,
    sums,
    broken,
    ledger,
    heads,
    keys,
    padded,
    batch_stride,
    head_stride,
    row_stride,
    channel_stride,
    VALUES: tl.constexpr,
    CHANNELS: tl.constexpr,
    FILLED: tl.constexpr,
    LIMBS: tl.constexpr,
    BITS: tl.constexpr,
    STEP: tl.constexpr,
):
    head = tl.program_id(1).to(tl.int64)
    index, channel = tl.program_id(0) * STEP + tl.arange(0, STEP), tl.arange(0, FILLED)
    place = x + (head // heads) * batch_stride + (head % heads) * head_stride
    place += index.to(tl.int64)[:, None] * row_stride + channel[None, :] * channel_stride
    there = (index < keys)[:, None] & (channel < CHANNELS)[None, :]
    vectors = widened(tl.load(place, mask=there, other=0.0))
    code, exponent = encoded(vectors, BITS, FOR_PRODUCT=not VALUES)
    vector = head * padded + index
    tl.store(exponents + vector, exponent)
    tl.store(sums + vector, tl.sum(code, 1))
    if VALUES:
        strange = tl.sum((~is_finite(vectors)).to(tl.int32), 1)
        tally(ledger, strange)
        tl.store(broken + head + index * 0, (index * 0 + 1).to(tl.int8), mask=strange > 0)
        at = bytes_ + (head * FILLED + channel)[None, :] * padded + index[:, None]
    else:
        at = bytes_ + vector[:, None] * FILLED + channel[None, :]
    plane = (tl.num_programs(1) * FILLED).to(tl.int64) * padded
    third, second, first = cut(code, LIMBS)
    tl.store(at, first)
    tl.store(at + (LIMBS - 1) * plane, third)
    if LIMBS == 3:
        tl.store(at + plane, second)


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
