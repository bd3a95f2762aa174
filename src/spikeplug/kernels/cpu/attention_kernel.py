"""Attention's kernel: a few rows of a key head from queries to output, over the keys that any of them may see.

Two exact products with the rows' weights in between; no more of the scores is in memory than those rows'.
"""

from __future__ import annotations

import numpy as np

from spikeplug.kernels.cpu.attention_codes import code_vector
from spikeplug.kernels.cpu.attention_rows import (
    add,
    divide,
    hide,
    row_weights,
    scale_products,
    seen_range,
    split_query,
    weigh,
)
from spikeplug.kernels.cpu.launch import kernel
from spikeplug.kernels.cpu.memory import (
    COUNT,
    OWN,
    doubles,
    floats,
    integers,
    leave,
    next_rows,
    reals,
    truths,
    words,
)
from spikeplug.kernels.cpu.product import (
    LIMBS,
    PANEL,
    PITCH,
    ROWS,
    TERMS,
    carrying_product_of_one,
    carrying_product_of_rows,
    product_of_one,
    product_of_rows,
)
from spikeplug.kernels.cpu.verbs import compiled, inlined, power_of_two

#: Keys whose scores are made at once, between the product and their rounding.
_STRIP = 8 * PANEL
#: Bytes from one row's limbs to the next's.
_LIMB_ROW = 2 * LIMBS * PITCH

(HEADS, GROUPS, QUERIES, KEYS, CHANNELS, VALUES, F, N, P, BITS) = range(OWN, OWN + 10)
(QUERY, QUERY_BATCH, QUERY_HEAD, QUERY_ROW, KEY_PANELS, KEY_SCALES, VALUE_PANELS, EXPONENTS) = range(OWN + 10, OWN + 18)
(TABLE, OUTPUT, FACTOR, SINKS) = range(OWN + 18, OWN + 22)
(MASK, MASK_BATCH, MASK_HEAD, MASK_ROW, BIAS, BIAS_BATCH, BIAS_HEAD, BIAS_ROW) = range(OWN + 22, OWN + 30)


@inlined
def place_of(block, batch, head, row, first):
    """Elements from the start to a row; the strides of batch, head and row are in the block from `first` on."""
    return batch * block[first] + head * block[first + 1] + row * block[first + 2]


@compiled
def score(limbs, panel, pairs, output, pitch, rows):
    """output (rows, pitch) += queries in limbs of 8 bits times a panel of keys."""
    if rows == ROWS:
        product_of_rows(limbs, panel, pairs, pairs, 256.0, output, pitch)
    else:
        for row in range(rows):
            product_of_one(limbs + _LIMB_ROW * row, panel, pairs, pairs, 256.0, output + 8 * pitch * row, pitch)


@compiled
def attend(limbs, panel, pairs, chunk, radix, output, pitch, rows):
    """output (rows, pitch) += weights in limbs times a panel of values."""
    if rows == ROWS:
        carrying_product_of_rows(limbs, panel, pairs, chunk, radix, output, pitch)
    else:
        for row in range(rows):
            at = limbs + _LIMB_ROW * row
            carrying_product_of_one(at, panel, pairs, chunk, radix, output + 8 * pitch * row, pitch)


@kernel
def attention_kernel(address):
    """All rows of all HEADS (key heads; GROUPS query heads each), ROWS of a key head's GROUPS·QUERIES at a time.

    QUERY float32 (batches, HEADS·GROUPS, QUERIES, CHANNELS), BITS of a code; KEY_PANELS, KEY_SCALES, VALUE_PANELS and
    EXPONENTS as attention_codes.py makes them; TABLE of mantissas; FACTOR of the scores; F, N, P. MASK: bytes, 0 hides;
    BIAS: float32, (..., KEYS) each, 0 if there is none; SINKS: float32 (heads), or 0. OUTPUT: float32 (batches, heads,
    QUERIES, VALUES channels), contiguous. Strides are in elements.

    Counts the rows it could not do; nothing of the output is used then.
    """
    block = words(address)
    heads, groups, queries, keys = block[HEADS], block[GROUPS], block[QUERIES], block[KEYS]
    channels, width, working_bits, bits = block[CHANNELS], block[VALUES], block[P], block[N]
    share, padded = groups * queries, (keys + PANEL - 1) // PANEL * PANEL
    units, panels = (share + ROWS - 1) // ROWS, (width + PANEL - 1) // PANEL
    pairs, blocks = (channels + 1) // 2, (padded + TERMS - 1) // TERMS
    key_scales = doubles(block[KEY_SCALES], block[COUNT] // units, padded)
    exponents = integers(block[EXPONENTS], block[COUNT] // units, padded)
    table = integers(block[TABLE], 1, (1 << block[F]) + 1)[0]
    # A limb of a weight is at most 2^radix, a value's code at most 2^(N-1) - 1: with so many products, two a pair, a sum
    # is at most 2^31 - 2^(32-N), which leaves room for the 2^16 - 1 of what it kept when it carried.
    radix = (working_bits + 1) // 2
    chunk, place = 1 << (31 - radix - bits), power_of_two(radix)
    query_blocks = (channels + TERMS - 1) // TERMS
    queries_in_limbs = np.zeros((query_blocks, ROWS * LIMBS, PITCH), np.int16)
    weights_in_limbs = np.zeros((blocks, ROWS * LIMBS, PITCH), np.int16)
    code, factors = np.empty(channels, np.int16), np.empty(ROWS, np.float64)
    products, scores = np.empty((ROWS, _STRIP), np.float64), np.empty((ROWS, padded + 1), np.float32)
    mantissas, octaves = np.empty(padded + 1, np.int32), np.empty(padded + 1, np.int32)
    starts, stops, all_seen = np.empty(ROWS, np.int64), np.empty(ROWS, np.int64), np.empty(ROWS, np.bool_)
    totals, aheads = np.empty(ROWS, np.int64), np.empty(ROWS, np.int64)
    sums, quotients = np.empty((ROWS, panels * PANEL), np.float64), np.empty(width, np.int32)
    unit, last = next_rows(block, 0)
    while unit < last:
        for unit_here in range(unit, last):
            key_head, first = unit_here // units, unit_here % units * ROWS
            batch, present = key_head // heads, min(ROWS, share - first)
            low, high = padded, 0
            for member in range(present):
                head, row = key_head % heads * groups + (first + member) // queries, (first + member) % queries
                at = block[QUERY] + 4 * place_of(block, batch, head, row, QUERY_BATCH)
                query, pattern = floats(at, 1, channels)[0], integers(at, 1, channels)[0]
                exponent, finite = code_vector(query, pattern, code, block[BITS])
                if not finite:
                    leave(block)
                factors[member] = power_of_two(exponent) * reals(block)[FACTOR]
                for part in range(query_blocks):
                    some, line = code[part * TERMS : (part + 1) * TERMS], queries_in_limbs[part]
                    split_query(some, line[LIMBS * member, : some.size], line[LIMBS * member + 1, : some.size])
                starts[member], stops[member], all_seen[member] = 0, keys, True
                if block[MASK] != 0:
                    at = block[MASK] + place_of(block, batch, head, row, MASK_BATCH)
                    starts[member], stops[member], all_seen[member] = seen_range(at, keys)
                if stops[member] > 0:
                    low, high = min(low, starts[member]), max(high, stops[member])
            low = min(low, high) // PANEL * PANEL
            high = (high + PANEL - 1) // PANEL * PANEL

            for strip in range(low, high, _STRIP):
                end = min(strip + _STRIP, high)
                products[:present] = 0.0
                for key in range(strip, end, PANEL):
                    panel = block[KEY_PANELS] + 4 * pairs * (key_head * padded + key)
                    output = products[:, key - strip :].ctypes.data
                    for part in range(query_blocks):
                        some = min(TERMS // 2, pairs - part * (TERMS // 2))
                        at = panel + 2 * PANEL * TERMS * part
                        score(queries_in_limbs[part].ctypes.data, at, some, output, _STRIP, present)
                for member in range(present):
                    line, scales = scores[member, strip:end], key_scales[key_head, strip:end]
                    scale_products(products[member, : end - strip], scales, line, factors[member])

            for member in range(present):
                head, row = key_head % heads * groups + (first + member) // queries, (first + member) % queries
                start, stop = starts[member], stops[member]
                if block[BIAS] != 0:
                    at = block[BIAS] + 4 * (place_of(block, batch, head, row, BIAS_BATCH) + start)
                    add(scores[member, start:stop], floats(at, 1, stop - start)[0])
                if not all_seen[member]:
                    at = block[MASK] + place_of(block, batch, head, row, MASK_BATCH) + start
                    hide(scores[member, start:stop], truths(at, 1, stop - start)[0])
                sink = 0
                if block[SINKS] != 0:
                    sink = 1
                    scores[member, stop] = floats(block[SINKS], 1, heads * groups)[0, head]
                row_mantissas, row_octaves = mantissas[: stop - start + sink], octaves[: stop - start + sink]
                totals[member], aheads[member], plain = row_weights(
                    scores[member, start : stop + sink],
                    row_mantissas,
                    row_octaves,
                    exponents[key_head, start:stop],
                    table,
                    block[F],
                )
                if not plain:
                    leave(block)
                for part in range((high - low + TERMS - 1) // TERMS):
                    begin = low + part * TERMS
                    end = min(begin + TERMS, high)
                    line = weights_in_limbs[part, LIMBS * member : LIMBS * (member + 1)]
                    a, b = min(max(start, begin), end), max(min(stop, end), begin)
                    line[:, : a - begin] = 0
                    line[:, b - begin : end - begin] = 0
                    if a < b:
                        weigh(
                            row_mantissas[a - start : b - start],
                            row_octaves[a - start : b - start],
                            line[0, a - begin : b - begin],
                            line[1, a - begin : b - begin],
                            np.int32(aheads[member]),
                            radix,
                        )

            sums[:present] = 0.0
            for part in range((high - low + TERMS - 1) // TERMS):
                limbs, some = weights_in_limbs[part].ctypes.data, min(TERMS, high - low - part * TERMS) // 2
                for panel in range(panels):
                    first_key = (key_head * panels + panel) * padded + low + part * TERMS
                    at, output = block[VALUE_PANELS] + 2 * PANEL * first_key, sums[:, panel * PANEL :].ctypes.data
                    attend(limbs, at, some, chunk, place, output, panels * PANEL, present)
            for member in range(present):
                head, row = key_head % heads * groups + (first + member) // queries, (first + member) % queries
                at = block[OUTPUT] + 4 * width * ((batch * heads * groups + head) * queries + row)
                divide(
                    sums[member], quotients, floats(at, 1, width)[0], totals[member], aheads[member], bits, working_bits
                )
        unit, last = next_rows(block, last - unit)
