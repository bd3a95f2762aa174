"""Turn one row of attention from scores into weights in limbs, and from sums into the output."""

from __future__ import annotations

import numpy as np

from spikeplug.kernels.cpu.memory import longs, truths
from spikeplug.kernels.cpu.softmax import ceiling_of, distances, is_plain, largest_score
from spikeplug.kernels.cpu.verbs import (
    INFINITE,
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
from spikeplug.operators.attention.rows import FARTHEST

#: Eight bytes of 1.
_ALL = np.int64(0x0101010101010101)


@compiled
def seen_range(address, keys):
    """Return (start, stop, all): the range of visible keys in a mask row of `keys` bytes at an address.

    A byte of 0 hides a key, 1 shows it. Every key outside start <= key < stop is hidden. all: whether every key inside
    is visible. A row without visible keys gives (0, 0, True). Reads eight bytes at a time.
    """
    visible, start, stop = truths(address, 1, keys)[0], 0, keys
    while stop >= 8 and longs(address + stop - 8, 1)[0] == 0:
        stop -= 8
    while stop > 0 and visible[stop - 1] == 0:
        stop -= 1
    while start + 8 <= stop and longs(address + start, 1)[0] == 0:
        start += 8
    while start < stop and visible[start] == 0:
        start += 1
    whole, seen = longs(address + start, (stop - start) // 8), _ALL
    for i in range(whole.size):
        seen &= whole[i]
    every = seen == _ALL
    for i in range(start + 8 * whole.size, stop):
        every &= visible[i] != 0
    return start, stop, every


@compiled
def hide(scores, visible):
    """Set scores to -inf, in place, where `visible` is 0."""
    for i in range(visible.size):
        scores[i] = scores[i] if visible[i] else np.float32(-np.inf)


@compiled
def add(scores, bias):
    """Add a bias to scores, in place."""
    for i in range(bias.size):
        scores[i] = np.float32(scores[i] + bias[i])


@compiled
def scale_products(products, scales, scores, factor):
    """Set scores (float32) to products·factor·scales, rounded once.

    products: int32, exact products of a query's code with the keys' codes. scales: float64, one per key. factor: the
    query's scale times the attention scaling.
    """
    for i in range(scores.size):
        scores[i] = np.float32(products[i] * factor * scales[i])


@compiled
def total_weight(mantissas, octaves):
    """Return the sum of mantissas[i] >> octaves[i] over all i, int64: the sum of a row's weights."""
    total = np.int64(0)
    for i in range(mantissas.size):
        total += shift_right(mantissas[i], np.int32(min(octaves[i], np.int32(31))))
    return total


@compiled
def lags(octaves, exponents):
    """Subtract the values' exponents from octaves, in place; return the smallest difference, at most FARTHEST.

    octaves: int32, how far each key's weight is shifted right. It may be one longer, for a sink, which stays as it is.
    """
    ahead = np.int32(FARTHEST)
    for i in range(exponents.size):
        lag = np.int32(octaves[i] - exponents[i])
        octaves[i] = lag
        ahead = np.int32(min(ahead, lag))
    return ahead


@compiled
def row_weights(scores, mantissas, octaves, exponents, table, fraction_bits):
    """Turn a row's scores into weights mantissa·2^-octaves; return (total, ahead, plain).

    Sets mantissas and octaves (int32, buffers as long as scores). The value's exponent is then part of octaves.
    scores: float32, one per key, and perhaps a sink's after them. exponents: of the values, one per key.
    total: the sum of the weights, without the values' exponents. ahead: the smallest of the octaves of the keys.
    plain: False for a row that the closed form must compute. If every score is -inf, the mantissas are 0.
    """
    pattern = scores.view(np.int32)
    largest, magnitude = largest_score(pattern)
    plain = is_plain(largest, magnitude, fraction_bits)
    if magnitude_of(largest) >= INFINITE:  # -inf: nothing to attend to
        mantissas[:] = 0
        octaves[:] = 0
        return np.int64(0), np.int64(0), plain
    scale = np.float32(1 << fraction_bits)
    ceiling = ceiling_of(as_float(largest), scale, fraction_bits)
    distances(scores, mantissas, octaves, scale, ceiling, fraction_bits)
    look_up(mantissas, table)
    total = total_weight(mantissas, octaves)
    return total, np.int64(lags(octaves, exponents)), plain


@compiled
def weigh(mantissas, octaves, high, low, ahead, radix):
    """Split each weight mantissas >> (octaves - ahead) into two int16 limbs: weight = high·2^radix + low."""
    mask, places = np.int32((1 << radix) - 1), np.int32(radix)
    for i in range(high.size):
        weight = shift_right(mantissas[i], np.int32(min(np.int32(octaves[i] - ahead), np.int32(31))))
        high[i] = np.int16(shift_right(weight, places))
        low[i] = np.int16(weight & mask)


@compiled
def divide(sums, quotients, output, total, ahead, bits, width):
    """Set the output (float32) to the sums over the total weight, so that the row's largest quotient has `bits` bits.

    sums: float64, integers: weights times values. quotients: int32 buffer. ahead: octaves by which the weights in the
    sums were raised. width: bits to which the numerators and the total are aligned before the division.
    """
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
