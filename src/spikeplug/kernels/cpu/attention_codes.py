"""Code attention's keys and values, each once, in the panels that product.py multiplies with."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from spikeplug.kernels.cpu.compile import kernel
from spikeplug.kernels.cpu.memory import HEADER, doubles, floats, integers, leave, next_rows, places_of, words
from spikeplug.kernels.cpu.panels import CODES, code_vectors, interleave_vectors, transpose_vectors
from spikeplug.kernels.cpu.product import PANEL, PANELS_AT_ONCE
from spikeplug.kernels.cpu.verbs import (
    INFINITE,
    as_float,
    compiled,
    inlined,
    largest_magnitude,
    power_of_two,
    rint,
    scale_exponent,
)

#: Keys whose panels are multiplied with at once: there are as many panels as make full steps.
STEP_OF_KEYS = PANEL * PANELS_AT_ONCE


@compiled
def code(x, codes, scale, most):
    """Set codes (int16) to round(x·scale), clipped to ±most; return the sum of the squared codes, int64."""
    vectors = codes.size // CODES
    total = code_vectors(x, codes, vectors, scale, most) if vectors else np.int64(0)
    for i in range(vectors * CODES, codes.size):
        mantissa = np.int32(min(max(rint(x[i] * scale), -most), most))
        codes[i] = np.int16(mantissa)
        total += np.int64(np.int32(mantissa * mantissa))
    return total


@compiled
def code_for_product(x, pattern, codes, bits):
    """Set codes to round(x·2^-exponent) such that inner products of two such vectors fit 2·bits bits.

    Returns (exponent, plain). The exponent is the smallest, from the scale that fills `bits` bits on, for which
    Σ codes² < 2^(2·bits-1): the rule of `encode_for_product`. plain: False if x is not finite, or so large that its
    scale is not a normal float32; the codes are then 0.
    x: float32 vector. pattern: the same memory as int32. bits: of a code, with the sign, at most 16.
    """
    magnitude = largest_magnitude(pattern)
    exponent, largest = np.int64(scale_exponent(magnitude, bits)), (1 << (bits - 1)) - 1
    most, limit = np.float32(largest), np.int64(1) << (2 * bits - 1)
    # Rounding moves a norm from one step to the next by less than sqrt(d). sqrt(65/64) - 1 > 2^-7.5, so while
    # d <= limit·2^-15 a sum foreseen to be 65/64 of the limit is beyond it.
    guessed = np.int64(codes.size) << 15 > limit
    while magnitude < INFINITE and exponent <= 126:
        scale = np.float32(power_of_two(-exponent))
        square = code(x, codes, scale, most)
        fits = square < limit
        if fits and np.int32(rint(as_float(magnitude) * scale)) <= largest:
            return exponent, True
        exponent += 1
        # Twice the step quarters the sum: steps that leave 65/64 of the limit need not be tried.
        while not (fits or guessed) and square >> 2 >= limit + (limit >> 6):
            square, exponent = square >> 2, exponent + 1
        guessed = True
    codes[:] = 0
    return np.int64(0), False


@compiled
def code_value(x, pattern, codes, bits):
    """Set codes to round(x·2^-exponent), where the largest |x| fills `bits` bits with the sign (at most 16).

    Returns (exponent, finite). finite: whether all of x is finite.
    x: float32 vector. pattern: the same memory as int32.
    """
    magnitude = largest_magnitude(pattern)
    exponent = np.int64(scale_exponent(min(magnitude, np.int32(INFINITE - 1)), bits))
    code(x, codes, np.float32(power_of_two(max(-exponent, -126))), np.float32((1 << (bits - 1)) - 1))
    return exponent, magnitude < INFINITE


@compiled
def transpose(rows, columns):
    """Transpose int32 `rows` (PANEL, pairs): set columns[j·PANEL + i] to rows[i, j]."""
    pairs = rows.shape[1]
    blocks = pairs // PANEL
    if blocks:
        transpose_vectors(rows, columns, blocks, pairs)
    for pair in range(blocks * PANEL, pairs):
        for member in range(PANEL):
            columns[pair * PANEL + member] = rows[member, pair]


class Panels(NamedTuple):
    """Hold the addresses of coded keys and values, which follow the header in the blocks of attention's two kernels.

    key_panels    int16 (heads, panels, pairs of channels, PANEL keys, 2)
    key_scales    doubles (heads, keys)
    value_panels  int16 (heads, panels, pairs of keys, PANEL channels, 2)
    exponents     int32 (heads, keys), the exponent of each value vector

    A head's keys are padded to a multiple of STEP_OF_KEYS. All arrays are zero in the padding of keys and channels.
    """

    key_panels: Any
    key_scales: Any
    value_panels: Any
    exponents: Any


class Words(NamedTuple):
    """Hold the 64-bit words of the kernel that codes keys and values. A unit of work: STEP_OF_KEYS keys of one head.

    heads, keys, channels, width  sizes of float32 keys (batches, heads, keys, channels) and values (..., width)
    key_bits, bits  bits of a key's code, and of a value's code
    key, value      addresses; their strides by batch, head and key follow, in elements

    There is one mark per batch.
    """

    heads: Any
    keys: Any
    channels: Any
    width: Any
    key_bits: Any
    bits: Any
    key: Any
    key_batch: Any
    key_head: Any
    key_row: Any
    value: Any
    value_batch: Any
    value_head: Any
    value_row: Any


PANELS = places_of(Panels, after=HEADER)
AT = places_of(Words, after=PANELS)


@inlined
def head_at(address, head, heads, by_batch, by_head):
    """Return the address of a head's first vector in a float32 tensor.

    address: of the tensor. head: counts the heads of all batches, `heads` per batch. by_batch, by_head: the tensor's
    strides, in elements.
    """
    return address + 4 * (head // heads * by_batch + head % heads * by_head)


@inlined
def vector_at(address, key, pitch, channels):
    """Return vector number `key` as float32 (channels,), and the same memory as int32.

    address: of vector 0. pitch: elements from one vector to the next.
    """
    place = address + 4 * key * pitch
    return floats(place, 1, channels)[0], integers(place, 1, channels)[0]


@compiled
def code_keys(block, unit, head, start, codes, panels, scales):
    """Code one unit's STEP_OF_KEYS keys of a head, from key `start` on, into panels and scales.

    Keys beyond the last are coded as 0. A batch with a key that cannot be coded is marked as left.
    codes: a buffer for one panel's codes, int16 (PANEL, channels).
    """
    address = head_at(block[AT.key], head, block[AT.heads], block[AT.key_batch], block[AT.key_head])
    channels = block[AT.channels]
    for member in range(STEP_OF_KEYS):
        key, at, row = start + member, unit * STEP_OF_KEYS + member, member % PANEL
        if key < block[AT.keys]:
            x, pattern = vector_at(address, key, block[AT.key_row], channels)
            exponent, plain = code_for_product(x, pattern, codes[row, :channels], block[AT.key_bits])
            scales[at] = power_of_two(exponent)
            if not plain:
                leave(block, head // block[AT.heads])
        else:
            codes[row, :] = 0
            scales[at] = 0.0
        if row == PANEL - 1:
            transpose(codes.view(np.int32), panels[unit * PANELS_AT_ONCE + member // PANEL])


@compiled
def code_values(block, unit, head, start, codes, panels, exponents):
    """Code one unit's STEP_OF_KEYS value vectors of a head, from key `start` on, into panels and exponents.

    Vectors beyond the last key are coded as 0. A batch with a value that is not finite is marked as left.
    codes: a buffer for the codes of two value vectors, int16 (2, channels).
    """
    address = head_at(block[AT.value], head, block[AT.heads], block[AT.value_batch], block[AT.value_head])
    width = block[AT.width]
    count = codes.shape[1] // PANEL
    pairs = (block[AT.keys] + STEP_OF_KEYS - 1) // STEP_OF_KEYS * STEP_OF_KEYS // 2
    for member in range(STEP_OF_KEYS):
        key, at, row = start + member, unit * STEP_OF_KEYS + member, member % 2
        exponents[at] = 0
        if key < block[AT.keys]:
            x, pattern = vector_at(address, key, block[AT.value_row], width)
            exponents[at], finite = code_value(x, pattern, codes[row, :width], block[AT.bits])
            if not finite:
                leave(block, head // block[AT.heads])
        else:
            codes[row, :] = 0
        if row == 1:
            interleave_vectors(codes[0], codes[1], panels[head * count * pairs + key // 2], count, pairs * PANEL)


@kernel
def codes_kernel(address):
    """Code keys and values into panels; leave the batches with a vector that is not finite."""
    block = words(address)
    steps, pairs = (block[AT.keys] + STEP_OF_KEYS - 1) // STEP_OF_KEYS, (block[AT.channels] + 1) // 2
    panels, count = (block[AT.width] + PANEL - 1) // PANEL, block[HEADER.count]
    key_panels = integers(block[PANELS.key_panels], count * PANELS_AT_ONCE, pairs * PANEL)
    scales = doubles(block[PANELS.key_scales], 1, count * STEP_OF_KEYS)[0]
    value_panels = integers(block[PANELS.value_panels], count * panels * STEP_OF_KEYS // 2, PANEL)
    exponents = integers(block[PANELS.exponents], 1, count * STEP_OF_KEYS)[0]
    key_codes, value_codes = np.zeros((PANEL, 2 * pairs), np.int16), np.zeros((2, panels * PANEL), np.int16)
    first, last = next_rows(block, 0)
    while first < last:
        for unit in range(first, last):
            head, start = unit // steps, unit % steps * STEP_OF_KEYS
            code_keys(block, unit, head, start, key_codes, key_panels, scales)
            code_values(block, unit, head, start, value_codes, value_panels, exponents)
        first, last = next_rows(block, last - first)
