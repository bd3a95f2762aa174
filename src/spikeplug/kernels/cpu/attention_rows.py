"""Attention's kernels: from a tile's scores to its output, and from values to panels of doubles."""

from __future__ import annotations

import numpy as np

from spikeplug.kernels.cpu.launch import kernel
from spikeplug.kernels.cpu.memory import COUNT, OWN, floats, integers, leave, next_rows, truths, words
from spikeplug.kernels.cpu.product import PANEL, ROWS, product_of_one, product_of_rows
from spikeplug.kernels.cpu.softmax import ceiling_of, distances, is_plain, largest_score
from spikeplug.kernels.cpu.verbs import (
    INFINITE,
    MINUS_INFINITY,
    as_double,
    as_float,
    as_integer,
    bit_length,
    compiled,
    decode,
    floor,
    look_up,
    magnitude_of,
    power_of_two,
    quotient_of,
    shift_right,
)
from spikeplug.operators.attention_rows import FARTHEST


@compiled
def hide(codes, hidden, shown):
    """shown <- the scores' bits, those of -inf where hidden; what follows the keys (a sink) is never hidden."""
    for i in range(hidden.size):
        shown[i] = MINUS_INFINITY if hidden[i] else codes[i]
    for i in range(hidden.size, codes.size):
        shown[i] = codes[i]


@compiled
def seen_range(hidden):
    """(start, stop): outside, every key is hidden; (0, 0) where all are."""
    start, stop = 0, hidden.size
    while stop > 0 and hidden[stop - 1]:
        stop -= 1
    while start < stop and hidden[start]:
        start += 1
    return start, stop


@compiled
def total_weight(mantissas, octaves):
    """Σ mantissa >> octaves."""
    total = np.int64(0)
    for i in range(mantissas.size):
        total += shift_right(mantissas[i], np.int32(min(octaves[i], np.int32(31))))
    return total


@compiled
def lags(octaves, exponents):
    """octaves <- octaves - exponents of the values, as far as there are values; the smallest."""
    ahead = np.int32(FARTHEST)
    for i in range(exponents.size):
        lag = np.int32(octaves[i] - exponents[i])
        octaves[i] = lag
        ahead = np.int32(min(ahead, lag))
    return ahead


@compiled
def weigh(mantissas, octaves, weights, ahead):
    """weights <- mantissas >> (octaves - ahead)."""
    for i in range(weights.size):
        weights[i] = np.float64(shift_right(mantissas[i], np.int32(min(np.int32(octaves[i] - ahead), np.int32(31)))))


@compiled
def divide(sums, quotients, output, total, ahead, bits, width):
    """output <- sums over the total, n = bits of the row's largest: `Ratio.scaled`, decoded."""
    largest = np.int64(0)
    for i in range(output.size):
        largest = max(largest, as_integer(abs(sums[i])))
    lift = width - bit_length(np.int64(as_double(largest)))
    drop = width - bit_length(total)
    denominator = total << drop if drop >= 0 else total >> -drop
    factor, raised = np.float64(1 << bits) / np.float64(max(denominator, 1)), power_of_two(lift)
    for i in range(output.size):
        quotient = quotient_of(floor(abs(sums[i]) * raised), factor)
        quotients[i] = -quotient if sums[i] < 0 else quotient
    # Where nothing is seen the exponent says nothing, and is kept within a double's.
    decode(quotients, output, min(max(drop - lift - bits - ahead, -1000), 1000))


(SCORES, TABLE, CODES, EXPONENTS, OUTPUT, WIDTH, KEYS, STRIDE, SHARE) = range(OWN, OWN + 9)
(F, N, P, CHANNELS, INNER, GROUP, ROW, HIDDEN, MASKS) = range(OWN + 9, OWN + 18)


@compiled
def weigh_row(codes, hidden, shown, mantissas, octaves, exponents, weights, table, fraction_bits):
    """(total, ahead, plain) of one row; weights <- its weights, whose sum with the values is to be divided by total.

    codes: the scores' bits; weights, exponents and hidden (empty: nothing is) for the keys, which a sink may follow.
    """
    if hidden.size > 0:
        hide(codes, hidden, shown)
        codes = shown[: codes.size]
    largest, magnitude = largest_score(codes)
    if magnitude_of(largest) >= INFINITE:  # -inf: nothing to attend to
        weights[:] = 0
        return np.int64(0), np.int64(0), is_plain(largest, magnitude, fraction_bits)
    scale = np.float32(1 << fraction_bits)
    mantissas, octaves = mantissas[: codes.size], octaves[: codes.size]
    ceiling = ceiling_of(as_float(largest), scale, fraction_bits)
    distances(codes.view(np.float32), mantissas, octaves, scale, ceiling, fraction_bits)
    look_up(mantissas, table)
    total = total_weight(mantissas, octaves)
    ahead = lags(octaves, exponents)
    weigh(mantissas, octaves, weights, ahead)
    return total, np.int64(ahead), is_plain(largest, magnitude, fraction_bits)


@kernel
def attention_kernel(address):
    """SCORES (heads·SHARE, WIDTH) of a tile, SHARE rows a key head, into its OUTPUT.

    TABLE of mantissas; CODES and EXPONENTS of the first head's values from the tile's first key on, KEYS of the STRIDE
    keys that there are; F, N, P; CHANNELS of a value. In the output, groups of INNER rows lie GROUP elements apart, and
    their rows ROW elements. HIDDEN: (MASKS, KEYS), row r has mask r % MASKS; none if there are no masks.

    A unit of work is ROWS rows of a head. Counts the rows it could not do; nothing else of the tile is used then.
    """
    block = words(address)
    width, keys, stride, share, masks = block[WIDTH], block[KEYS], block[STRIDE], block[SHARE], block[MASKS]
    fraction_bits, bits, working_bits, channels, inner = block[F], block[N], block[P], block[CHANNELS], block[INNER]
    units, count = (share + ROWS - 1) // ROWS, (channels + PANEL - 1) // PANEL
    heads = block[COUNT] // units
    codes = integers(block[SCORES], heads * share, width)
    table = integers(block[TABLE], 1, (1 << fraction_bits) + 1)[0]
    exponents, hidden = integers(block[EXPONENTS], heads, stride), truths(block[HIDDEN], masks, keys)
    mantissas, octaves, shown = np.empty(width, np.int32), np.empty(width, np.int32), np.empty(width, np.int32)
    weights, sums = np.empty((ROWS, keys), np.float64), np.empty((ROWS, count * PANEL), np.float64)
    totals, aheads, quotients = np.empty(ROWS, np.int64), np.empty(ROWS, np.int64), np.empty(channels, np.int32)
    unit, last = next_rows(block, 0)
    while unit < last:
        for place in range(unit, last):
            head, first = place // units, place % units * ROWS
            present, low, high = min(ROWS, share - first), keys, 0
            for member in range(present):  # what any of them sees; a sink is beyond the keys, so that all are kept
                start, stop = 0, keys
                if masks > 0 and width == keys:
                    start, stop = seen_range(hidden[(head * share + first + member) % masks])
                low, high = min(low, start if stop > 0 else keys), max(high, stop)
            low = min(low, high)
            for member in range(present):
                row = head * share + first + member
                mask = hidden[row % masks, low:high] if masks > 0 else hidden[0, :0]
                line = codes[row, low : width - keys + high]
                scaled = exponents[head, low:high]
                total, ahead, plain = weigh_row(
                    line, mask, shown, mantissas, octaves, scaled, weights[member, low:high], table, fraction_bits
                )
                totals[member], aheads[member] = total, ahead
                if not plain:
                    leave(block)
            for panel in range(count):
                values = block[CODES] + 8 * PANEL * (stride * (head * count + panel) + low)
                if present == ROWS:
                    output = sums[:, panel * PANEL :].ctypes.data
                    product_of_rows(weights[:, low:].ctypes.data, keys, values, high - low, output, count * PANEL)
                else:
                    for member in range(present):
                        output = sums[member, panel * PANEL :].ctypes.data
                        product_of_one(weights[member, low:].ctypes.data, 0, values, high - low, output, 0)
            for member in range(present):
                row = head * share + first + member
                target = floats(
                    block[OUTPUT] + 4 * (row // inner * block[GROUP] + row % inner * block[ROW]), 1, channels
                )[0]
                divide(sums[member], quotients, target, totals[member], aheads[member], bits, working_bits)
        unit, last = next_rows(block, last - unit)
