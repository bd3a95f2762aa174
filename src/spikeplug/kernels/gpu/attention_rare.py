"""Do attention's rare rows again, one at a time, on the device: the host need not know whether there are any.

Rare is a row whose largest score is NaN, infinite or too large for its fraction bits: attention's kernel marks it. A
value that is not finite also changes the rows that may attend to it: its key head is marked. Every program reads the
marks of some rows, and ends if there are none.

A row is done as in closed form, channel by channel and key by key. A score with a query or key that is not finite is
the float product, summed in an order of its own: NaN, +inf or -inf. (That order shows where, beside an infinity, finite
products overflow. There the closed forms of two devices differ as well.)
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: N803  (what is in capitals is known when a kernel is compiled)

from __future__ import annotations

import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]

from spikeplug.kernels.gpu.attention_codes import UNDEFINED, encoded, offset
from spikeplug.kernels.gpu.integers import (
    bit_length,
    decay,
    decode,
    denominator_of,
    distance_to,
    excess_places,
    half_to_the,
    power_of_two,
    power_of_two_wide,
    quotient,
    rounded,
    row_ceiling,
    score_integers,
    shift,
    tally,
    widened,
)

#: The octaves below which no weight·scale can be seen, as operators/attention/rows.py has it.
FARTHEST = tl.constexpr(1 << 12)


@triton.jit
def rare_kernel(
    query,  # (B, H, Q, D)
    key,  # (B, G, K, D)
    value,  # (B, G, K, Dv)
    keys,  # int8 (KEY_LIMBS, B·G, padded, BLOCK_D): keys in signed bytes
    key_exponents,  # (B·G, padded)
    values,  # int8 (LIMBS, B·G, BLOCK_DV, padded): values in signed bytes
    value_exponents,  # (B·G, padded)
    mask,  # (B, H, Q, K), int8 0 or 1; unread unless MASK
    table,
    output,  # (B, H, Q, Dv), contiguous
    rare,  # (B, H, Q), int8
    broken,  # (B·G), int8: key heads with a value that is not finite
    ledger,  # the count of rows that are not finite
    factor: tl.float64,  # of a score, in octaves; float32 without the annotation
    key_heads,
    groups,
    rows,
    count,  # of keys
    padded,
    query_batch,
    query_head,
    query_row,
    query_channel,
    key_batch,
    key_head,
    key_row,
    key_channel,
    value_batch,
    value_head,
    value_row,
    value_channel,
    mask_batch,
    mask_head,
    mask_row,
    mask_key,
    D: tl.constexpr,
    DV: tl.constexpr,
    MASK: tl.constexpr,
    KEY_BITS: tl.constexpr,
    KEY_LIMBS: tl.constexpr,
    LIMBS: tl.constexpr,
    N: tl.constexpr,
    P: tl.constexpr,
    F: tl.constexpr,
    REST: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,  # rows of a program
    BLOCK_KEYS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_DV: tl.constexpr,
):
    pair = tl.program_id(1).to(tl.int64)
    batch, head = pair // key_heads, pair % key_heads
    first = tl.program_id(0) * BLOCK_ROWS
    index = first + tl.arange(0, BLOCK_ROWS)
    # The rows of a key head lie side by side.
    head_rows = pair * groups * rows
    marks = tl.load(rare + head_rows + index, mask=index < rows * groups, other=0).to(tl.int32)
    spreads = tl.load(broken + pair).to(tl.int32)
    if tl.max(marks, 0) + spreads > 0:
        plane = tl.num_programs(1) * padded.to(tl.int64)
        key_floats = (key + batch * key_batch + head * key_head, key_row, key_channel)
        key_codes = (keys + pair * padded * BLOCK_D, plane * BLOCK_D, key_exponents + pair * padded)
        value_codes = (values + pair * padded * BLOCK_DV, plane * BLOCK_DV, value_exponents + pair * padded, padded)
        value_floats = (value + batch * value_batch + head * value_head, value_row, value_channel)
        channel = tl.arange(0, BLOCK_DV)
        for member in range(first, tl.minimum(first + BLOCK_ROWS, rows * groups)):
            query_of, row = head * groups + member // rows, (member % rows).to(tl.int64)
            is_rare = tl.load(rare + head_rows + member).to(tl.int32)
            if is_rare + spreads > 0:
                seen_by = (mask + batch * mask_batch + query_of * mask_head + row * mask_row, mask_key, count)
                target = output + (head_rows + member) * DV + channel
                y = widened(tl.load(target, mask=channel < DV, other=0.0))
                if is_rare > 0:
                    x = query + batch * query_batch + query_of * query_head + row * query_row
                    x = _vectors(x, tl.arange(0, 1), tl.arange(0, 1) == 0, (0, query_channel), D, BLOCK_D)
                    y = _row(
                        x,
                        factor,
                        key_floats,
                        key_codes,
                        value_codes,
                        seen_by,
                        table,
                        ledger,
                        D,
                        MASK,
                        KEY_BITS,
                        KEY_LIMBS,
                        LIMBS,
                        N,
                        P,
                        F,
                        REST,
                        BLOCK_KEYS,
                        BLOCK_D,
                        BLOCK_DV,
                    )
                if spreads > 0:
                    y = _spread(y, value_floats, seen_by, DV, MASK, BLOCK_KEYS, BLOCK_DV)
                tl.store(target, rounded(y, output.dtype.element_ty), mask=channel < DV)


@triton.jit
def _row(
    x,
    factor,
    key_floats,
    key_codes,
    value_codes,
    seen_by,
    table,
    ledger,
    D: tl.constexpr,
    MASK: tl.constexpr,
    KEY_BITS: tl.constexpr,
    KEY_LIMBS: tl.constexpr,
    LIMBS: tl.constexpr,
    N: tl.constexpr,
    P: tl.constexpr,
    F: tl.constexpr,
    REST: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_DV: tl.constexpr,
):
    """Return the attention output of one query x (1, BLOCK_D), float32 (BLOCK_DV,).

    If a score of it is NaN or +inf, the output is NaN and the row is counted at the pointer `ledger`.
    """
    code, exponent = encoded(x, KEY_BITS, FOR_PRODUCT=True)
    single = (tl.zeros([1, 1], tl.float64) + factor).to(tl.float32)
    queries = (code.to(tl.int64), x * single, power_of_two_wide(exponent) * factor, exponent)
    value_bytes, value_plane, exponents, padded = value_codes
    count = seen_by[2]
    lane = tl.arange(0, BLOCK_KEYS)

    largest = tl.full([1], -float("inf"), tl.float32)
    for start in range(0, count, BLOCK_KEYS):
        score = _scores(queries, key_floats, key_codes, seen_by, start + lane, D, MASK, KEY_LIMBS, BLOCK_D)
        score = tl.where(score == score, score, float("inf"))
        largest = tl.maximum(largest, tl.max(score[None, :], 1))
    undefined = largest == float("inf")
    tally(ledger, undefined.to(tl.int32))
    places = excess_places(tl.where(tl.abs(largest) == float("inf"), 0.0, largest), F)
    scale = power_of_two(-places)
    ceiling = row_ceiling(score_integers(largest, undefined, scale, 1 << F), places, F)

    ahead = tl.full([1], FARTHEST, tl.int32)
    for start in range(0, count, BLOCK_KEYS):
        score = _scores(queries, key_floats, key_codes, seen_by, start + lane, D, MASK, KEY_LIMBS, BLOCK_D)
        distance = distance_to(ceiling, score_integers(score, undefined, scale, 1 << F), places)
        lag = (distance >> F) - tl.load(exponents + start + lane)
        ahead = tl.minimum(ahead, tl.min(lag[None, :], 1))

    total, sums = tl.zeros([1], tl.int64), tl.zeros([BLOCK_DV], tl.int64)
    channel = tl.arange(0, BLOCK_DV)
    for start in range(0, count, BLOCK_KEYS):
        score = _scores(queries, key_floats, key_codes, seen_by, start + lane, D, MASK, KEY_LIMBS, BLOCK_D)
        distance = distance_to(ceiling, score_integers(score, undefined, scale, 1 << F), places)
        mantissa, octaves = half_to_the(distance, table, F, REST, P), distance >> F
        total += tl.sum(decay(mantissa, octaves).to(tl.int64)[None, :], 1)
        weight = decay(mantissa, octaves - tl.load(exponents + start + lane) - ahead)
        at = value_bytes + channel[None, :] * padded + (start + lane)[:, None]
        sums += tl.sum(weight[:, None].to(tl.int64) * _joined(at, value_plane, LIMBS), 0)

    size = tl.abs(sums)
    lift = P - bit_length(tl.max(size[None, :], 1))
    denominator, inverse, total_places = denominator_of(total, N, P)
    q = (quotient(shift(size, lift).to(tl.int32), denominator, inverse, N + 1) + 1) >> 1
    y = decode(tl.where(sums < 0, -q, q), total_places - ahead - lift - N)
    return tl.where(undefined, float("nan"), y)


@triton.jit
def _scores(
    queries,
    key_floats,
    key_codes,
    seen_by,
    index,
    D: tl.constexpr,
    MASK: tl.constexpr,
    KEY_LIMBS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Return one query's scores to base 2 with the keys at `index`, float32 (keys,); -inf for keys it may not see.

    A score is the exact product of the integer codes times their scales; with a query or key that is not finite, it
    is the product of the floats.
    """
    code, scaled, query_scale, query_exponent = queries
    bytes_, plane, exponents = key_codes
    channel = tl.arange(0, BLOCK_D)
    key_exponent = tl.load(exponents + index)
    codes = _joined(bytes_ + index[:, None] * BLOCK_D + channel[None, :], plane, KEY_LIMBS)
    total = tl.sum(codes.to(tl.int64) * code, 1)
    score = (total.to(tl.float64) * query_scale * power_of_two_wide(key_exponent)).to(tl.float32)
    pointer, row_stride, channel_stride = key_floats
    seen = _seen(seen_by, index, MASK)
    floats = _vectors(pointer, index, index < seen_by[2], (row_stride, channel_stride), D, BLOCK_D)
    broken = (query_exponent == UNDEFINED) | (key_exponent == UNDEFINED)
    score = tl.where(broken, tl.sum(floats * scaled, 1), score)
    return tl.where(seen, score, -float("inf"))


@triton.jit
def _spread(
    y, value_floats, seen_by, DV: tl.constexpr, MASK: tl.constexpr, BLOCK_KEYS: tl.constexpr, BLOCK_DV: tl.constexpr
):
    """Return the output row y (BLOCK_DV,) changed by the values that are not finite, of keys that the row may see.

    Per channel: NaN if there is a NaN or infinities of both signs, the infinity if they have one sign, else y.
    """
    pointer, row_stride, channel_stride = value_floats
    above, below = tl.zeros([BLOCK_DV], tl.int32), tl.zeros([BLOCK_DV], tl.int32)
    undefined = tl.zeros([BLOCK_DV], tl.int32)
    for start in range(0, seen_by[2], BLOCK_KEYS):
        index = start + tl.arange(0, BLOCK_KEYS)
        seen = _seen(seen_by, index, MASK)
        floats = _vectors(pointer, index, seen, (row_stride, channel_stride), DV, BLOCK_DV)
        above += tl.sum((floats == float("inf")).to(tl.int32), 0)
        below += tl.sum((floats == -float("inf")).to(tl.int32), 0)
        undefined += tl.sum((floats != floats).to(tl.int32), 0)
    y = tl.where(above > 0, float("inf"), y)
    y = tl.where(below > 0, -float("inf"), y)
    return tl.where((undefined > 0) | ((above > 0) & (below > 0)), float("nan"), y)


@triton.jit
def _seen(seen_by, index, MASK: tl.constexpr):
    """Return whether the row may attend to the keys at `index`, bool (keys,)."""
    mask, stride, count = seen_by
    seen = index < count
    if MASK:
        return seen & (tl.load(mask + index.to(tl.int64) * stride, mask=seen, other=0) != 0)
    else:
        return seen


@triton.jit
def _vectors(pointer, index, there, strides, C: tl.constexpr, BLOCK_C: tl.constexpr):
    """Load the vectors number `index` of a tensor at `pointer`, float32 (vectors, BLOCK_C).

    there: bool, which vectors to load; the others, and channels from C on, are 0. strides: (per vector, per channel).
    """
    channel = tl.arange(0, BLOCK_C)
    place = index.to(tl.int64)[:, None] * strides[0] + channel.to(tl.int64)[None, :] * strides[1]
    return widened(tl.load(pointer + place, mask=there[:, None] & (channel < C)[None, :], other=0.0))


@triton.jit
def _joined(place, plane, LIMBS: tl.constexpr):
    """Load codes and join their LIMBS signed bytes to int32.

    place: pointers to the lowest bytes. plane: the stride from a byte to the next higher one.
    """
    code = tl.load(place).to(tl.int32) + (tl.load(place + (LIMBS - 1) * plane).to(tl.int32) << 8 * (LIMBS - 1))
    if LIMBS == 3:
        code += tl.load(place + plane).to(tl.int32) << 8
    return code + offset(LIMBS)
