"""Make scores in attention's kernel: query·keyᵀ of integer codes by the int8 matrix units, exact, and rounded once.

Let o be the offset of the bytes (attention_codes.py), W the channels, filled up with codes of 0, and q' = q - o and
k' = k - o what the bytes hold. Then Σ q·k = Σ q'·k' + o·(Σ q + Σ k) - o²·W. The products of bytes are summed from the
upper ones down; of two bytes, Σ q'·k' = 256·(256·Σ q1·k1 + Σ q1·k0 + Σ q0·k1) + Σ q0·k0.

Σ q·k is below 2^(2·bits - 1), see codes.encode_for_product. Of two bytes it fits int32, whatever is added up on the
way: int32 wraps, and is right in the end. Of three it is below 2^39, in int64.

The matrix units do not wrap, they clamp, so none of their sums may leave int32. A product of bytes is at most 2^14 and
W at most 2^8, so a sum of products is at most 2^22. Of two bytes, the sum that is then taken 256 times is at most
2^8·2^22 + 2·2^22 < 2^31. Σ q0·k0 starts from the terms in o: |Σ q| and |Σ k| are below sqrt(W)·2^15.5, at most 2^19.5,
so these are at most 2^7·2·2^19.5 + 2^14·2^8 < 2^28. Of three, the last byte of a code below 2^19 is within 2^3, so a
sum with one last byte is at most 2^18 and one with two 2^14: the three upper places make at most
2^16·2^14 + 2^8·2·2^18 + 2·2^18 + 2^22 < 2^31, and the one below them 2·2^22.

The two float64 products and the rounding to float32 are those of operators/attention/products.py, in its order. So a
score depends on its query and key alone: not on a tile, nor on the pass in which it is made.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: N803  (what is in capitals is known when a kernel is compiled)

from __future__ import annotations

import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]

from spikeplug.kernels.gpu.attention_codes import cut, encoded, offset
from spikeplug.kernels.gpu.integers import MASKED, nearest, power_of_two_wide, widened


@triton.constexpr_function
def integers(count):
    """Return the Triton dtype that holds a dot product of query and key codes of `count` bytes: int32 or int64."""
    return tl.int32 if count == 2 else tl.int64


@triton.jit
def coded_queries(x, factor, BITS: tl.constexpr, LIMBS: tl.constexpr):
    """Encode the queries x (rows, W) for `scores`: return (bytes, correction, scale).

    bytes: the int8 bytes of the codes q, from `cut`. correction: o·Σ q - o²·W (rows,), o the `offset` of the bytes.
    scale: 2^exponent·factor (rows,), float64; factor turns query·key into a score to base 2.
    """
    code, exponent = encoded(widened(x), BITS, FOR_PRODUCT=True)
    away: tl.constexpr = offset(LIMBS)
    correction = tl.sum(code, 1).to(integers(LIMBS)) * away - away * away * x.shape[1]
    return cut(code, LIMBS), correction, power_of_two_wide(exponent) * factor


@triton.jit
def scores(queries, keys, masking, start, LIMBS: tl.constexpr, MASK: tl.constexpr, BLOCK_KEYS: tl.constexpr):
    """Return the scores, as logarithms to base 2, of the keys from `start` on: float32 (rows, BLOCK_KEYS).

    A score is -inf where the row may not see the key, and +inf where it is NaN: a query or key was not finite.

    queries: the tuple that `coded_queries` returns.
    keys: a tuple for one head: pointer to the lowest bytes of its key codes, the stride from these to the next bytes,
    pointers to the keys' exponents and to their sums of codes, and the number of keys.
    masking: (pointers to each row's mask (rows, 1), its stride per key, bool (rows, 1): which rows exist). It is unread
    unless MASK.
    """
    query_bytes, correction, query_scale = queries
    bytes_, plane, exponents, sums, count = keys
    index = start + tl.arange(0, BLOCK_KEYS)
    width: tl.constexpr = query_bytes[0].shape[1]
    place = bytes_ + index[None, :] * width + tl.arange(0, width)[:, None]
    correction = correction[:, None] + (tl.load(sums + index).to(integers(LIMBS)) * offset(LIMBS))[None, :]
    total = _product(query_bytes, place, plane, correction, LIMBS)
    key_scale = power_of_two_wide(tl.load(exponents + index))
    score = (total.to(tl.float64) * query_scale[:, None] * key_scale[None, :]).to(tl.float32)
    score = tl.where(score == score, score, float("inf"))
    within = (index < count)[None, :]
    if MASK:
        mask, stride, here = masking
        visible = tl.load(mask + index.to(tl.int64)[None, :] * stride, mask=here & within, other=0).to(tl.int32)
        # The bits of +inf for 1, of -inf for 0. Not a comparison: tensors of single bits, which Triton may move through
        # shared memory on the way to the matrix units, have no place there.
        return tl.minimum(score, ((visible - 1) & -2147483648 | 0x7F800000).to(tl.float32, bitcast=True))
    else:
        return tl.where(within, score, -float("inf"))


@triton.jit
def fixed_point(score, F: tl.constexpr):
    """Return a float32 score as an integer with F fraction bits: round(score·2^F) clamped to [-2^30, 2^29], int32."""
    return nearest(tl.minimum(tl.maximum(score * (1 << F), float(MASKED)), 536870912.0))


@triton.jit
def _product(query_bytes, place, plane, correction, LIMBS: tl.constexpr):
    """Return the dot products of query and key bytes, plus correction: (rows, BLOCK_KEYS), int32 or int64.

    query_bytes: from `cut`. place: pointers to the keys' lowest bytes. plane: the stride to their next bytes.
    """
    last, second, first = query_bytes
    key_first, key_last = tl.load(place), tl.load(place + (LIMBS - 1) * plane)
    upper = tl.dot(last, key_last, out_dtype=tl.int32) << 8
    if LIMBS == 2:
        upper = tl.dot(last, key_first, upper, out_dtype=tl.int32)
        upper = tl.dot(first, key_last, upper, out_dtype=tl.int32)
        # This sum may wrap, and is not for the matrix units, which clamp. (The compiler lets a product start from what
        # is added to it, unless the product already starts from something, as this one does.)
        return (upper << 8) + tl.dot(first, key_first, correction, out_dtype=tl.int32)
    else:
        key_second = tl.load(place + plane)
        upper = tl.dot(last, key_second, upper, out_dtype=tl.int32)
        upper = tl.dot(second, key_last, upper, out_dtype=tl.int32) << 8
        upper = tl.dot(last, key_first, upper, out_dtype=tl.int32)
        upper = tl.dot(second, key_second, upper, out_dtype=tl.int32)
        upper = tl.dot(first, key_last, upper, out_dtype=tl.int32)
        lower = tl.dot(second, key_first, out_dtype=tl.int32)
        lower = tl.dot(first, key_second, lower, out_dtype=tl.int32)
        upper = (upper.to(tl.int64) << 8) + lower
        return (upper << 8) + tl.dot(first, key_first, out_dtype=tl.int32) + correction
