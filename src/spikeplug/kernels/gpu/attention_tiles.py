"""Run attention's kernel: one program per key head and block of rows, two passes over the keys, all sums exact.

Why two passes. With s a score in integers and M the row's largest, rounded up to a whole octave, a weight is
w >> (M - s)/2^F, and w, the mantissa of 2^s, does not depend on M: only the shift does. A key's value then counts
floor(w / 2^(b - b_min)) times, where b is its octaves less its value's exponent, and b_min the row's smallest: what the
shift drops depends on b_min. Online, with b_min known from the keys so far, a later key that lowers it by j asks for
Σ (weight >> j)·v from Σ weight·v, and the sum of floors is not the floor of the sum: the bits to drop are lost inside
it. An exact online form would need a sum for every bit of the weight, Σ bit·v, so that rescaling only leaves planes
out: P + 1 binary products in place of three of 8 bits. Making the scores a second time costs less. The first pass finds
M and b_min, the second sums integers, which no tile order changes.

Why the sums are exact. Weights, at most 2^P, are cut into balanced digits of 8 bits, values into signed bytes (see
attention_codes.py): int8 matrix products into int32. A sum for one power of 256 is of at most 3 products a key, each
at most 2^14, and stays below 2^31 while keys times products is below 2^17, which the caller guarantees. The sums meet
in int64 at the end.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: N803  (what is in capitals is known when a kernel is compiled)

from __future__ import annotations

import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]

from spikeplug.kernels.gpu.attention_codes import offset
from spikeplug.kernels.gpu.attention_scores import coded_queries, fixed_point, scores
from spikeplug.kernels.gpu.integers import (
    bit_length,
    decay,
    decode,
    denominator_of,
    half_to_the,
    quotient,
    rounded,
    shift,
)


@triton.jit
def attention_kernel(
    query,  # (B, H, Q, D)
    keys,  # int8 (LIMBS, B·G, padded, BLOCK_D): keys in signed bytes
    key_exponents,  # (B·G, padded)
    key_sums,  # (B·G, padded)
    values,  # int8 (LIMBS, B·G, BLOCK_DV, padded): values in signed bytes
    value_exponents,  # (B·G, padded)
    mask,  # (B, H, Q, K), int8 0 or 1; unread unless MASK
    ranges,  # (2, B, H, Q): the first key that a row may see, and the one after the last
    table,
    output,  # (B, H, Q, Dv), contiguous
    rare,  # (B, H, Q), int8: 1 for the rows that attention_rare.py does again, 0 for all others
    factor: tl.float64,  # of a score, in octaves; float32 without the annotation
    key_heads,
    groups,
    rows,
    count,  # of keys
    padded,  # keys, and what fills the last block: of weight 0
    query_batch,
    query_head,
    query_row,
    query_channel,
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
    KEY_BITS: tl.constexpr,
    KEY_LIMBS: tl.constexpr,  # bytes of a query and of a key: 2 or 3
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
    pair = tl.program_id(1).to(tl.int64)
    batch, head = pair // key_heads, pair % key_heads
    # A key head's rows: its query heads side by side, so that they share what is loaded of the keys.
    index = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    here = index < rows * groups
    row, query_of = index // groups, head * groups + index % groups
    channel = tl.arange(0, BLOCK_D)
    place = query + batch * query_batch + (query_of * query_head + row.to(tl.int64) * query_row)[:, None]
    x = tl.load(place + channel[None, :] * query_channel, mask=here[:, None] & (channel < D)[None, :], other=0.0)
    queries = coded_queries(x, factor, KEY_BITS, KEY_LIMBS)
    plane = tl.num_programs(1) * padded.to(tl.int64)
    first_key = pair * padded
    coded_keys = (keys + first_key * BLOCK_D, plane * BLOCK_D, key_exponents + first_key, key_sums + first_key, count)
    mask_place = mask + batch * mask_batch + (query_of * mask_head + row.to(tl.int64) * mask_row)[:, None]
    masking = (mask_place, mask_key, here[:, None])
    first, stop = 0, count
    if MASK:
        range_place = ranges + batch * range_batch + query_of * range_head + row * range_row
        first = tl.min(tl.load(range_place, mask=here, other=count), 0) // BLOCK_KEYS * BLOCK_KEYS
        stop = tl.max(tl.load(range_place + range_end, mask=here, other=0), 0)

    # First pass: the largest score, and the smallest octaves less value's exponent.
    largest = tl.full([BLOCK_ROWS], -float("inf"), tl.float32)
    nearest_key = tl.full([BLOCK_ROWS], 1 << 30, tl.int32)
    exponent_place = value_exponents + first_key + tl.arange(0, BLOCK_KEYS)
    for start in range(first, stop, BLOCK_KEYS):
        score = scores(queries, coded_keys, masking, start, KEY_LIMBS, MASK, BLOCK_KEYS)
        largest = tl.maximum(largest, tl.max(score, 1))
        octaves = (-fixed_point(score, F)) >> F
        nearest_key = tl.minimum(nearest_key, tl.min(octaves - tl.load(exponent_place + start)[None, :], 1))
    # A largest score of 2^(28 - F) or more is too large for F fraction bits; -inf is a row that sees nothing.
    strange = (tl.abs(largest) >= (1 << (28 - F))) & (largest != -float("inf"))
    flat = (batch * key_heads * groups + query_of) * rows + row
    tl.store(rare + flat, strange.to(tl.int8), mask=here)
    # A row that sees nothing keeps its distance: its scores lie an octave and more below M, and none leads.
    top = tl.minimum((-fixed_point(largest, F)) >> F, (1 << 29) >> F)
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
    value_place = values + first_key * BLOCK_DV + value_channel[None, :] * padded
    value_plane = plane * BLOCK_DV
    for start in range(first, stop, BLOCK_KEYS):
        below = -fixed_point(scores(queries, coded_keys, masking, start, KEY_LIMBS, MASK, BLOCK_KEYS), F)
        mantissa, octaves = half_to_the(below, table, F, REST, P), below >> F
        # No shift is below 0, as no score and no lag is beyond what the first pass found.
        total += tl.sum(decay(mantissa, octaves - top[:, None]), 1)
        weight = decay(mantissa, octaves - tl.load(exponent_place + start)[None, :] - lead[:, None])
        weights += tl.sum(weight, 1)
        digit0 = _digit(weight)
        weight = (weight + 128) >> 8
        digit1 = _digit(weight)
        weight = (weight + 128) >> 8
        digit2, digit3 = _digit(weight), _digit((weight + 128) >> 8)
        at = value_place + (start + tl.arange(0, BLOCK_KEYS))[:, None]
        limb = tl.load(at)
        sum0 = tl.dot(digit0, limb, sum0, out_dtype=tl.int32)
        sum1 = tl.dot(digit1, limb, sum1, out_dtype=tl.int32)
        sum2 = tl.dot(digit2, limb, sum2, out_dtype=tl.int32)
        if DIGITS == 4:
            sum3 = tl.dot(digit3, limb, sum3, out_dtype=tl.int32)
        limb = tl.load(at + value_plane)
        sum1 = tl.dot(digit0, limb, sum1, out_dtype=tl.int32)
        sum2 = tl.dot(digit1, limb, sum2, out_dtype=tl.int32)
        sum3 = tl.dot(digit2, limb, sum3, out_dtype=tl.int32)
        if DIGITS == 4:
            sum4 = tl.dot(digit3, limb, sum4, out_dtype=tl.int32)
        if LIMBS == 3:
            limb = tl.load(at + 2 * value_plane)
            sum2 = tl.dot(digit0, limb, sum2, out_dtype=tl.int32)
            sum3 = tl.dot(digit1, limb, sum3, out_dtype=tl.int32)
            sum4 = tl.dot(digit2, limb, sum4, out_dtype=tl.int32)
            if DIGITS == 4:
                sum5 = tl.dot(digit3, limb, sum5, out_dtype=tl.int32)

    # One division a channel.
    value = (sum5.to(tl.int64) << 8) + sum4
    value = (value << 8) + sum3
    value = (value << 8) + sum2
    value = (value << 8) + sum1
    value = (value << 8) + sum0 + (weights * offset(LIMBS))[:, None]
    size = tl.abs(value)
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
def _digit(weight):
    """Return the lowest digit of weight to base 256, balanced: int8 in -128..127.

    The digits above it are those of (weight + 128) >> 8.
    """
    return (((weight + 128) & 255) - 128).to(tl.int8)
