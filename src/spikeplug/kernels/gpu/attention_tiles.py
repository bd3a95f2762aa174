"""Attention's kernel: one program for a key head and a block of rows; two passes over the keys, all sums exact.

Why two passes. With s a score in integers and M the row's largest, rounded up to a whole octave, a weight is
w >> (M - s)/2^F, and w, the mantissa of 2^s, does not depend on M: only the shift does. A key's value then counts
floor(w / 2^(b - b_min)) times, where b is its octaves less its value's exponent, and b_min the row's smallest: what the
shift drops depends on b_min. Online, with b_min known from the keys so far, a later key that lowers it by j asks for
Σ (weight >> j)·v from Σ weight·v, and the sum of floors is not the floor of the sum: the bits to drop are lost inside
it. An exact online form would need a sum for every bit of the weight, Σ bit·v, so that rescaling only leaves planes
out: P + 1 binary products in place of three of 8 bits. Making the scores a second time costs less. The first pass finds
M and b_min, the second sums integers, which no tile order changes.

Why the sums are exact. Weights, at most 2^P, are cut into balanced digits of 8 bits, values into signed bytes (see
attention_values.py): int8 matrix products into int32. A sum for one power of 256 is of at most 3 products a key, each
at most 2^14, and stays below 2^31 while keys times products is below 2^17, which the caller guarantees. The sums meet
in int64 at the end.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: N803  (what is in capitals is known when a kernel is compiled)

from __future__ import annotations

import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]

from spikeplug.kernels.gpu.integers import (
    MASKED,
    bit_length,
    decay,
    decode,
    denominator_of,
    half_to_the,
    mark,
    nearest,
    quotient,
    rounded,
    shift,
)


@triton.jit
def attention_kernel(
    query,  # (B, H, Q, D)
    key,  # (B, G, K, D)
    bytes_,  # (LIMBS, B·G, Dv, padded): values in signed bytes
    exponents,  # (B·G, padded)
    mask,  # (B, H, Q, K), int8 0 or 1; unread unless MASK
    ranges,  # (2, B, H, Q): the first key that a row may see, and the one after the last
    table,
    output,  # (B, H, Q, Dv), contiguous
    rare,
    scaling,  # what a score is multiplied by, in octaves
    batches,
    key_heads,
    groups,
    rows,
    keys,
    padded,  # keys, and what fills the last block: of weight 0
    query_batch,
    query_head,
    query_row,
    query_channel,
    key_batch,
    key_head,
    key_row,
    key_channel,
    mask_batch,
    mask_head,
    mask_row,
    mask_key,
    range_end,
    range_batch,
    range_head,
    range_row,
    D: tl.constexpr,
    DV: tl.constexpr,
    MASK: tl.constexpr,
    LIMBS: tl.constexpr,  # of a value: 2 or 3
    DIGITS: tl.constexpr,  # of a weight: 3 or 4
    N: tl.constexpr,
    P: tl.constexpr,
    F: tl.constexpr,
    REST: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_DV: tl.constexpr,
):
    # The last rows first: under a causal mask they have the most keys.
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    batch, head = (tl.program_id(1) // key_heads).to(tl.int64), (tl.program_id(1) % key_heads).to(tl.int64)
    # A key head's rows: its query heads side by side, so that they share what is loaded of the keys.
    index = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    here = index < rows * groups
    row, query_of = index // groups, head * groups + index % groups
    channel = tl.arange(0, BLOCK_D)
    place = query + batch * query_batch + (query_of * query_head + row.to(tl.int64) * query_row)[:, None]
    q = tl.load(place + channel[None, :] * query_channel, mask=here[:, None] & (channel < D)[None, :], other=0.0)
    if q.dtype == tl.float32:
        q = q * scaling  # as the closed form; half-precision queries keep their bits for the matrix units
    key_place = key + batch * key_batch + head * key_head + channel[:, None] * key_channel
    mask_place = mask + batch * mask_batch + (query_of * mask_head + row.to(tl.int64) * mask_row)[:, None]
    first, stop = 0, keys
    if MASK:
        range_place = ranges + batch * range_batch + query_of * range_head + row * range_row
        first = tl.min(tl.load(range_place, mask=here, other=keys), 0) // BLOCK_KEYS * BLOCK_KEYS
        stop = tl.max(tl.load(range_place + range_end, mask=here, other=0), 0)

    # First pass: the largest score, and the smallest octaves less value's exponent.
    largest = tl.full([BLOCK_ROWS], -float("inf"), tl.float32)
    nearest_key = tl.full([BLOCK_ROWS], 1 << 30, tl.int32)
    exponent_place = exponents + tl.program_id(1).to(tl.int64) * padded
    for start in range(first, stop, BLOCK_KEYS):
        score = _scores(
            q, key_place, key_row, mask_place, mask_key, scaling, start, keys, here, channel, D, MASK, F, BLOCK_KEYS
        )
        largest = tl.maximum(largest, tl.max(score, 1))
        octaves = (-_integer(score)) >> F
        exponent = tl.load(exponent_place + start + tl.arange(0, BLOCK_KEYS))
        nearest_key = tl.minimum(nearest_key, tl.min(octaves - exponent[None, :], 1))
    strange = (tl.abs(largest) >= 268435456.0) & (largest != -float("inf"))
    flat = (batch * key_heads * groups + query_of) * rows + row
    mark(rare, flat, batches * key_heads * groups * rows, here & strange)
    # A row that sees nothing keeps its distance: its scores lie an octave and more below M, and none leads.
    top = tl.minimum((-_integer(largest)) >> F, (1 << 29) >> F)
    lead = tl.minimum(nearest_key, top + (1 << 12))

    # Second pass: Σ 2^(s - M), Σ weight and, power by power of 256, Σ weight·v.
    total, weights = tl.zeros([BLOCK_ROWS], tl.int64), tl.zeros([BLOCK_ROWS], tl.int64)
    sum0 = tl.zeros([BLOCK_ROWS, BLOCK_DV], tl.int32)
    sum1 = tl.zeros([BLOCK_ROWS, BLOCK_DV], tl.int32)
    sum2 = tl.zeros([BLOCK_ROWS, BLOCK_DV], tl.int32)
    sum3 = tl.zeros([BLOCK_ROWS, BLOCK_DV], tl.int32)
    sum4 = tl.zeros([BLOCK_ROWS, BLOCK_DV], tl.int32)
    sum5 = tl.zeros([BLOCK_ROWS, BLOCK_DV], tl.int32)
    value_channel = tl.arange(0, BLOCK_DV)
    plane = (tl.num_programs(1) * DV).to(tl.int64) * padded
    value_place = bytes_ + (tl.program_id(1).to(tl.int64) * DV + value_channel)[None, :] * padded
    for start in range(first, stop, BLOCK_KEYS):
        score = _scores(
            q, key_place, key_row, mask_place, mask_key, scaling, start, keys, here, channel, D, MASK, F, BLOCK_KEYS
        )
        below = -_integer(score)
        mantissa, octaves = half_to_the(below, table, F, REST, P), below >> F
        # Never below 0, if both passes make the same scores; a unit that did not would be off by a last bit, no more.
        total += tl.sum(decay(mantissa, tl.maximum(octaves - top[:, None], 0)), 1)
        exponent = tl.load(exponent_place + start + tl.arange(0, BLOCK_KEYS))
        weight = decay(mantissa, tl.maximum(octaves - exponent[None, :] - lead[:, None], 0))
        weights += tl.sum(weight, 1)
        digit0 = _digit(weight)
        weight = (weight + 128) >> 8
        digit1 = _digit(weight)
        weight = (weight + 128) >> 8
        digit2, digit3 = _digit(weight), _digit((weight + 128) >> 8)
        at = value_place + (start + tl.arange(0, BLOCK_KEYS))[:, None]
        seen = (value_channel < DV)[None, :]
        limb = tl.load(at, mask=seen, other=0)
        sum0 = tl.dot(digit0, limb, sum0, out_dtype=tl.int32)
        sum1 = tl.dot(digit1, limb, sum1, out_dtype=tl.int32)
        sum2 = tl.dot(digit2, limb, sum2, out_dtype=tl.int32)
        if DIGITS == 4:
            sum3 = tl.dot(digit3, limb, sum3, out_dtype=tl.int32)
        limb = tl.load(at + plane, mask=seen, other=0)
        sum1 = tl.dot(digit0, limb, sum1, out_dtype=tl.int32)
        sum2 = tl.dot(digit1, limb, sum2, out_dtype=tl.int32)
        sum3 = tl.dot(digit2, limb, sum3, out_dtype=tl.int32)
        if DIGITS == 4:
            sum4 = tl.dot(digit3, limb, sum4, out_dtype=tl.int32)
        if LIMBS == 3:
            limb = tl.load(at + 2 * plane, mask=seen, other=0)
            sum2 = tl.dot(digit0, limb, sum2, out_dtype=tl.int32)
            sum3 = tl.dot(digit1, limb, sum3, out_dtype=tl.int32)
            sum4 = tl.dot(digit2, limb, sum4, out_dtype=tl.int32)
            if DIGITS == 4:
                sum5 = tl.dot(digit3, limb, sum5, out_dtype=tl.int32)

    # One division a channel. All bytes of a value but the last were made signed by taking 128 away.
    offset: tl.constexpr = 128 if LIMBS == 2 else 128 + (128 << 8)
    value = (sum5.to(tl.int64) << 8) + sum4
    value = (value << 8) + sum3
    value = (value << 8) + sum2
    value = (value << 8) + sum1
    value = (value << 8) + sum0 + (weights * offset)[:, None]
    size = tl.where((value_channel < DV)[None, :], tl.abs(value), 0)
    places = (P - bit_length(tl.max(size, 1)))[:, None]
    denominator, inverse, total_places = denominator_of(total[:, None], N, P)
    quotients = (quotient(shift(size, places).to(tl.int32), denominator, inverse, N + 1) + 1) >> 1
    y = decode(tl.where(value < 0, -quotients, quotients), (top - lead)[:, None] - places + total_places - N)
    tl.store(
        output + flat[:, None] * DV + value_channel[None, :],
        rounded(y, output.dtype.element_ty),
        mask=here[:, None] & (value_channel < DV)[None, :],
    )


@triton.jit
def _scores(
    q,
    key_place,
    key_row,
    mask_place,
    mask_key,
    scaling,
    start,
    keys,
    here,
    channel,
    D: tl.constexpr,
    MASK: tl.constexpr,
    F: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
):
    """Scores in octaves times 2^F, float32, -inf where a key is not to be seen, +inf for NaN."""
    index = start + tl.arange(0, BLOCK_KEYS)
    within = index < keys
    k = tl.load(
        key_place + index.to(tl.int64)[None, :] * key_row, mask=(channel < D)[:, None] & within[None, :], other=0.0
    )
    score = tl.dot(q, k, input_precision="ieee")
    score = score * (1 << F) if q.dtype == tl.float32 else score * (scaling * (1 << F))
    score = tl.where(score == score, score, float("inf"))
    if MASK:
        seen = here[:, None] & within[None, :]
        visible = tl.load(mask_place + index.to(tl.int64)[None, :] * mask_key, mask=seen, other=0).to(tl.int32)
        # The bits of +inf for 1, of -inf for 0. Not a comparison: tensors of single bits, which Triton may move through
        # shared memory on the way to the matrix units, have no place there.
        return tl.minimum(score, ((visible - 1) & -2147483648 | 0x7F800000).to(tl.float32, bitcast=True))
    else:
        return tl.where(within[None, :], score, -float("inf"))


@triton.jit
def _integer(score):
    return nearest(tl.minimum(tl.maximum(score, float(MASKED)), 536870912.0))


@triton.jit
def _digit(weight):
    """The balanced digit of the lowest 8 bits, -128..127; what is left is (weight + 128) >> 8."""
    return (((weight + 128) & 255) - 128).to(tl.int8)
