"""Run attention's kernel: a few rows of a key head from queries to output, over the keys that any of them may see.

Two exact products with the rows' weights in between; no more of the scores is in memory than those rows'.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from spikeplug.kernels.cpu.attention_block import AT, NUMBERS, bias_at, head_of, mask_at, query_at, token_of
from spikeplug.kernels.cpu.attention_codes import PANELS, STEP_OF_KEYS, code_for_product
from spikeplug.kernels.cpu.attention_rows import add, divide, hide, row_weights, scale_products, seen_range, weigh
from spikeplug.kernels.cpu.compile import kernel
from spikeplug.kernels.cpu.memory import HEADER, doubles, floats, integers, leave, next_rows, reals, truths, words
from spikeplug.kernels.cpu.product import (
    LIMBS,
    PANEL,
    PITCH,
    ROWS,
    TERMS,
    product_of,
    wide_product_of_one,
    wide_product_of_rows,
)
from spikeplug.kernels.cpu.verbs import compiled, largest_magnitude, power_of_two

#: Keys whose products are kept as integers, before they become scores.
_STRIP = 8 * STEP_OF_KEYS


class _Rows(NamedTuple):
    """Hold the buffers of the ROWS query rows that a thread works on at a time.

    codes          int16 (ROWS, channels made even): codes of the queries
    factors        float64: what a row's products with keys are multiplied by
    starts, stops  the range of keys that a row may see
    seen           whether a row sees every key in that range
    scores         float32 (ROWS, keys + 1), the last place for a sink
    totals         sum of a row's weights
    aheads         2^-ahead is the scale of a row's largest weight times its value's scale
    limbs          int16 (blocks of TERMS keys, ROWS·LIMBS, PITCH): weights, from the first key that any row sees on
    sums           float64 (ROWS, channels of a value): sums of weights times values
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


@compiled
def take_queries(block, rows, key_head, first, present):
    """Code the queries of `present` rows from row `first` on, and find which keys each row may see.

    Fills codes, factors, starts, stops and seen of `rows`. Returns (low, high), the range of keys that any of the rows
    may see, widened to multiples of STEP_OF_KEYS.
    """
    channels, low, high = block[AT.channels], block[AT.keys], 0
    for member in range(present):
        at = query_at(block, key_head, first + member)
        query = floats(at, 1, channels)[0]
        largest = largest_magnitude(integers(at, 1, channels)[0])
        exponent, finite = code_for_product(
            query, 1.0, largest, rows.codes[member, :channels], block[NUMBERS.query_bits]
        )
        if not finite:
            leave(block, key_head // block[AT.heads])
        rows.factors[member] = power_of_two(exponent) * reals(block)[AT.factor]
        start, stop, seen = 0, block[AT.keys], True
        if block[AT.mask] != 0:
            start, stop, seen = seen_range(mask_at(block, key_head, first + member), stop)
        rows.starts[member], rows.stops[member], rows.seen[member] = start, stop, seen
        if stop > 0:
            low, high = min(low, start), max(high, stop)
    low = min(low, high)
    return low // STEP_OF_KEYS * STEP_OF_KEYS, (high + STEP_OF_KEYS - 1) // STEP_OF_KEYS * STEP_OF_KEYS


@compiled
def score(rows, panels, scales, low, high, present, products):
    """Set rows.scores to the scaled products of the queries with the keys from `low` to `high`.

    panels: address of the head's coded keys. scales: float64, one per key of the head. present: rows in use.
    products: int32 buffer (ROWS, keys of a strip).
    """
    stride = rows.codes.shape[1]
    for strip in range(low, high, _STRIP):
        end = min(strip + _STRIP, high)
        for key in range(strip, end, STEP_OF_KEYS):
            at, target = panels + 2 * stride * key, products[:, key - strip :].ctypes.data
            product_of(present, rows.codes.ctypes.data, stride, at, stride // 2, target, _STRIP)
        for member in range(present):
            line = rows.scores[member, strip:end]
            scale_products(products[member, : line.size], scales[strip:end], line, rows.factors[member])


@compiled
def weigh_row(block, rows, key_head, index, member, low, high, exponents, table, mantissas, octaves, radix):
    """Turn the scores of row `member` into softmax weights, and write them to rows.limbs for keys `low` to `high`.

    Adds the bias, hides masked keys and appends the sink first. Keys outside the row's range get weight 0.
    index: the row among those of the key head. exponents: of the head's values. table: mantissas of 2^-f.
    mantissas, octaves: int32 buffers, keys + 1 each. radix: bits of a low limb.
    """
    start, stop = rows.starts[member], rows.stops[member]
    if block[AT.bias] != 0:
        at = bias_at(block, key_head, index) + 4 * start
        add(rows.scores[member, start:stop], floats(at, 1, stop - start)[0])
    if not rows.seen[member]:
        at = mask_at(block, key_head, index) + start
        hide(rows.scores[member, start:stop], truths(at, 1, stop - start)[0])
    end = stop
    if block[AT.sinks] != 0:
        rows.scores[member, stop] = floats(block[AT.sinks] + 4 * head_of(block, key_head, index), 1, 1)[0, 0]
        end = stop + 1
    mantissas, octaves = mantissas[: end - start], octaves[: end - start]
    scores = rows.scores[member, start:end]
    total, ahead, plain = row_weights(
        scores, mantissas, octaves, exponents[start:stop], table, block[NUMBERS.fraction_bits]
    )
    if not plain:
        leave(block, key_head // block[AT.heads])
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
    """Set rows.sums to the sums of weights times values over the keys from `low` to `high`.

    panels: address of the head's coded values, in panels of PANEL channels and `stride` keys. present: rows in use.
    chunk: pairs of keys that are summed in 32 bits before the sum carries. place: 2^radix, the weight of a high limb.
    """
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
    """Compute attention of all rows.

    address: of the arguments (`Words` in attention_block.py). A batch is left to the closed form, and its output
    is unused, if a query in it cannot be coded or a row has NaN, +inf or too large scores.
    """
    block = words(address)
    share, width = block[AT.groups] * block[AT.queries], block[AT.width]
    bits, working_bits = block[NUMBERS.bits], block[NUMBERS.working_bits]
    units = (share + ROWS - 1) // ROWS
    heads, keys = block[HEADER.count] // units, (block[AT.keys] + STEP_OF_KEYS - 1) // STEP_OF_KEYS * STEP_OF_KEYS
    pairs, pitch = (block[AT.channels] + 1) // 2, (width + PANEL - 1) // PANEL * PANEL
    scales, exponents = doubles(block[PANELS.key_scales], heads, keys), integers(block[PANELS.exponents], heads, keys)
    table = integers(block[NUMBERS.table], 1, (1 << block[NUMBERS.fraction_bits]) + 1)[0]
    # A limb of a weight is at most 2^radix, a value's code at most 2^(n-1) - 1: with so many products, two a pair, a
    # sum is at most 2^31 - 2^(32-n), which leaves room for the 2^16 - 1 of what it kept when it carried.
    radix = (working_bits + 1) // 2
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
            panels = block[PANELS.key_panels] + 4 * pairs * key_head * keys
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
            panels = block[PANELS.value_panels] + 2 * key_head * pitch * keys
            sum_values(rows, panels, keys, low, high, present, chunk, place)
            for member in range(present):
                output = floats(block[AT.output] + 4 * width * token_of(block, key_head, first + member), 1, width)[0]
                total, ahead = rows.totals[member], rows.aheads[member]
                divide(rows.sums[member], quotients, output, total, ahead, bits, working_bits)
        unit, last = next_rows(block, last - unit)
