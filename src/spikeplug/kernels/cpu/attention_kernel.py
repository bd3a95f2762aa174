"""Attention's kernel: a few rows of a key head from queries to output, over the keys that any of them may see.

Two exact products with the rows' weights in between; no more of the scores is in memory than those rows'.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from spikeplug.kernels.cpu.attention_codes import STEP_OF_KEYS, code_for_product
from spikeplug.kernels.cpu.attention_rows import add, divide, hide, row_weights, scale_products, seen_range, weigh
from spikeplug.kernels.cpu.launch import kernel
from spikeplug.kernels.cpu.memory import COUNT, OWN, doubles, floats, integers, leave, next_rows, reals, truths, words
from spikeplug.kernels.cpu.product import (
    LIMBS,
    PANEL,
    PITCH,
    ROWS,
    TERMS,
    product_of_one,
    product_of_rows,
    wide_product_of_one,
    wide_product_of_rows,
)
from spikeplug.kernels.cpu.verbs import compiled, inlined, power_of_two

#: Keys whose products are kept as integers, before they become scores.
_STRIP = 8 * STEP_OF_KEYS

(HEADS, GROUPS, QUERIES, KEYS, CHANNELS, WIDTH, F, N, P, BITS) = range(OWN, OWN + 10)
(QUERY, QUERY_BATCH, QUERY_HEAD, QUERY_ROW, KEY_PANELS, KEY_SCALES, VALUE_PANELS, EXPONENTS) = range(OWN + 10, OWN + 18)
(TABLE, OUTPUT, FACTOR, SINKS) = range(OWN + 18, OWN + 22)
(MASK, MASK_BATCH, MASK_HEAD, MASK_ROW, BIAS, BIAS_BATCH, BIAS_HEAD, BIAS_ROW) = range(OWN + 22, OWN + 30)


class _Rows(NamedTuple):
    """What is known of the ROWS rows in work, and the memory they are worked in.

    codes int16 (rows, channels in pairs); factors: what a row's products are multiplied by; starts, stops: the range of
    keys it may see, seen: whether all in it; scores (rows, keys, and a sink); totals Σ w, aheads: as `Sums`; limbs
    int16 (blocks of TERMS keys, rows·LIMBS, PITCH): weights from the first key of any row on; sums of weights times
    values.
    """

    codes: np.ndarray
    factors: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    seen: np.ndarray
    scores: np.ndarray
    totals: np.ndarray
    aheads: np.ndarray
    limbs: np.ndarray
    sums: np.ndarray


@inlined
def place_of(block, key_head, index, first):
    """Elements from the start to a key head's row `index`; strides of batch, head and row are words from `first` on."""
    batch, head = key_head // block[HEADS], key_head % block[HEADS] * block[GROUPS] + index // block[QUERIES]
    return batch * block[first] + head * block[first + 1] + index % block[QUERIES] * block[first + 2]


@inlined
def token_of(block, key_head, index):
    """Where a key head's row `index` lies among (batches, QUERIES, heads)."""
    heads, head = block[HEADS] * block[GROUPS], key_head % block[HEADS] * block[GROUPS] + index // block[QUERIES]
    return (key_head // block[HEADS] * block[QUERIES] + index % block[QUERIES]) * heads + head


@compiled
def take_queries(block, rows, key_head, first, present):
    """Code the queries, find what their rows may see; (low, high), the range of keys that any of them does."""
    channels, low, high = block[CHANNELS], block[KEYS], 0
    for member in range(present):
        at = block[QUERY] + 4 * place_of(block, key_head, first + member, QUERY_BATCH)
        query, pattern = floats(at, 1, channels)[0], integers(at, 1, channels)[0]
        exponent, finite = code_for_product(query, pattern, rows.codes[member, :channels], block[BITS])
        if not finite:
            leave(block)
        rows.factors[member] = power_of_two(exponent) * reals(block)[FACTOR]
        start, stop, seen = 0, block[KEYS], True
        if block[MASK] != 0:
            start, stop, seen = seen_range(block[MASK] + place_of(block, key_head, first + member, MASK_BATCH), stop)
        rows.starts[member], rows.stops[member], rows.seen[member] = start, stop, seen
        if stop > 0:
            low, high = min(low, start), max(high, stop)
    low = min(low, high)
    return low // STEP_OF_KEYS * STEP_OF_KEYS, (high + STEP_OF_KEYS - 1) // STEP_OF_KEYS * STEP_OF_KEYS


@compiled
def score(rows, panels, scales, low, high, present, products):
    """rows.scores <- products of queries and keys from `low` to `high`. panels: address of the head's; scales too."""
    stride = rows.codes.shape[1]
    for strip in range(low, high, _STRIP):
        end = min(strip + _STRIP, high)
        for key in range(strip, end, STEP_OF_KEYS):
            at, target = panels + 2 * stride * key, products[:, key - strip :].ctypes.data
            if present == ROWS:
                product_of_rows(rows.codes.ctypes.data, stride, at, stride // 2, target, _STRIP)
            else:
                for member in range(present):
                    one, its = rows.codes[member].ctypes.data, target + 4 * _STRIP * member
                    product_of_one(one, stride, at, stride // 2, its, _STRIP)
        for member in range(present):
            line = rows.scores[member, strip:end]
            scale_products(products[member, : line.size], scales[strip:end], line, rows.factors[member])


@compiled
def weigh_row(block, rows, key_head, index, member, low, high, exponents, table, mantissas, octaves, radix):
    """A row's scores to its weights, in limbs from `low` to `high`."""
    start, stop = rows.starts[member], rows.stops[member]
    if block[BIAS] != 0:
        at = block[BIAS] + 4 * (place_of(block, key_head, index, BIAS_BATCH) + start)
        add(rows.scores[member, start:stop], floats(at, 1, stop - start)[0])
    if not rows.seen[member]:
        at = block[MASK] + place_of(block, key_head, index, MASK_BATCH) + start
        hide(rows.scores[member, start:stop], truths(at, 1, stop - start)[0])
    end = stop
    if block[SINKS] != 0:
        head = key_head % block[HEADS] * block[GROUPS] + index // block[QUERIES]
        rows.scores[member, stop] = floats(block[SINKS] + 4 * head, 1, 1)[0, 0]
        end = stop + 1
    mantissas, octaves = mantissas[: end - start], octaves[: end - start]
    scores = rows.scores[member, start:end]
    total, ahead, plain = row_weights(scores, mantissas, octaves, exponents[start:stop], table, block[F])
    if not plain:
        leave(block)
    rows.totals[member], rows.aheads[member] = total, ahead
    for begin in range(low, high, TERMS):
        end, place = min(begin + TERMS, high), (begin - low) // TERMS
        # One-dimensional from the start: only then does the compiler know that they are contiguous.
        upper = rows.limbs[place, LIMBS * member, : end - begin]
        lower = rows.limbs[place, LIMBS * member + 1, : end - begin]
        first, last = min(max(start, begin), end), max(min(stop, end), begin)
        upper[: first - begin], lower[: first - begin] = 0, 0
        upper[last - begin :], lower[last - begin :] = 0, 0
        if first < last:
            part, here = slice(first - start, last - start), slice(first - begin, last - begin)
            weigh(mantissas[part], octaves[part], upper[here], lower[here], np.int32(ahead), radix)


@compiled
def sum_values(rows, panels, stride, low, high, present, chunk, place):
    """rows.sums <- weights times values from `low` to `high`. panels: address of the head's, `stride` keys each."""
    rows.sums[:present] = 0.0
    pitch = rows.sums.shape[1]
    for begin in range(low, high, TERMS):
        limbs, pairs = rows.limbs[(begin - low) // TERMS].ctypes.data, (min(begin + TERMS, high) - begin) // 2
        for channel in range(0, pitch, PANEL):
            at, target = panels + 2 * (channel * stride + PANEL * begin), rows.sums[:, channel:].ctypes.data
            if present == ROWS:
                wide_product_of_rows(limbs, at, pairs, chunk, place, target, pitch)
            else:
                for member in range(present):
                    one, its = limbs + 2 * LIMBS * PITCH * member, target + 8 * pitch * member
                    wide_product_of_one(one, at, pairs, chunk, place, its, pitch)


@kernel
def attention_kernel(address):
    """All rows of all HEADS (key heads; GROUPS query heads each), ROWS of a key head's GROUPS·QUERIES at a time.

    QUERY float32 (batches, HEADS·GROUPS, QUERIES, CHANNELS), BITS of a code; KEY_PANELS, KEY_SCALES, VALUE_PANELS and
    EXPONENTS as attention_codes.py makes them; TABLE of mantissas; FACTOR of the scores; F, N, P. MASK: bytes, 0 hides;
    BIAS: float32, (..., KEYS) each, 0 if there is none; SINKS: float32 (heads), or 0. OUTPUT: float32 (batches,
    QUERIES, heads, WIDTH channels of a value), contiguous. Strides are in elements.

    Counts the rows it could not do; nothing of the output is used then.
    """
    block = words(address)
    share, width, bits = block[GROUPS] * block[QUERIES], block[WIDTH], block[N]
    units = (share + ROWS - 1) // ROWS
    heads, keys = block[COUNT] // units, (block[KEYS] + STEP_OF_KEYS - 1) // STEP_OF_KEYS * STEP_OF_KEYS
    pairs, pitch = (block[CHANNELS] + 1) // 2, (width + PANEL - 1) // PANEL * PANEL
    scales, exponents = doubles(block[KEY_SCALES], heads, keys), integers(block[EXPONENTS], heads, keys)
    table = integers(block[TABLE], 1, (1 << block[F]) + 1)[0]
    # A limb of a weight is at most 2^radix, a value's code at most 2^(N-1) - 1: with so many products, two a pair, a
    # sum is at most 2^31 - 2^(32-N), which leaves room for the 2^16 - 1 of what it kept when it carried.
    radix = (block[P] + 1) // 2
    chunk, place = 1 << (31 - radix - bits), power_of_two(radix)
    rows = _Rows(
        np.zeros((ROWS, 2 * pairs), np.int16),
        np.empty(ROWS, np.float64),
        np.empty(ROWS, np.int64),
        np.empty(ROWS, np.int64),
        np.empty(ROWS, np.bool_),
        np.empty((ROWS, keys + 1), np.float32),
        np.empty(ROWS, np.int64),
        np.empty(ROWS, np.int64),
        np.empty(((keys + TERMS - 1) // TERMS, ROWS * LIMBS, PITCH), np.int16),
        np.empty((ROWS, pitch), np.float64),
    )
    products, quotients = np.empty((ROWS, _STRIP), np.int32), np.empty(width, np.int32)
    mantissas, octaves = np.empty(keys + 1, np.int32), np.empty(keys + 1, np.int32)
    unit, last = next_rows(block, 0)
    while unit < last:
        for here in range(unit, last):
            key_head, first = here // units, here % units * ROWS
            present = min(ROWS, share - first)
            low, high = take_queries(block, rows, key_head, first, present)
            panels = block[KEY_PANELS] + 4 * pairs * key_head * keys
            score(rows, panels, scales[key_head], low, high, present, products)
            for member in range(present):
                index = first + member
                weigh_row(
                    block,
                    rows,
                    key_head,
                    index,
                    member,
                    low,
                    high,
                    exponents[key_head],
                    table,
                    mantissas,
                    octaves,
                    radix,
                )
            panels = block[VALUE_PANELS] + 2 * key_head * pitch * keys
            sum_values(rows, panels, keys, low, high, present, chunk, place)
            for member in range(present):
                output = floats(block[OUTPUT] + 4 * width * token_of(block, key_head, first + member), 1, width)[0]
                divide(rows.sums[member], quotients, output, rows.totals[member], rows.aheads[member], bits, block[P])
        unit, last = next_rows(block, last - unit)
