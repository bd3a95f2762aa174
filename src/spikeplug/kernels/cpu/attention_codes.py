"""Code attention's keys and values, each once, in the panels that product.py multiplies with."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from spikeplug.codes import NO_STEP
from spikeplug.kernels.cpu.compile import kernel
from spikeplug.kernels.cpu.memory import (
    HEADER,
    borrowed,
    bytes_at,
    doubles,
    floats,
    halves,
    integers,
    keep,
    leave,
    next_rows,
    places_of,
    words,
)
from spikeplug.kernels.cpu.panels import CODES, code_vectors, interleave_vectors, transpose
from spikeplug.kernels.cpu.product import COLUMNS, PANEL, PANELS_AT_ONCE
from spikeplug.kernels.cpu.verbs import (
    INFINITE,
    absolute,
    as_bits,
    as_float,
    compiled,
    inlined,
    is_normal,
    largest_magnitude,
    power_of_two,
    rint,
    scale_exponent,
)

#: Keys whose panels are multiplied with at once: there are as many panels as make full steps.
STEP_OF_KEYS = COLUMNS


@compiled
def code(x, codes, scale, most):
    """Set codes (int16) to round(x·scale), clipped to ±most; return the sum of the squared codes, int64.

    x: float32, or int8 levels, whose product by the scale is then rounded once, too.
    """
    vectors = codes.size // CODES
    total = code_vectors(x, codes, vectors, scale, most) if vectors else np.int64(0)
    for i in range(vectors * CODES, codes.size):
        mantissa = np.int32(min(max(rint(np.float32(x[i]) * scale), -most), most))
        codes[i] = np.int16(mantissa)
        total += np.int64(np.int32(mantissa * mantissa))
    return total


@compiled
def code_for_product(x, unit, magnitude, codes, bits):
    """Set codes to round(x·unit·2^-exponent) such that inner products of two such vectors fit 2·bits bits.

    Returns (exponent, plain). The exponent is the smallest, from the scale that fills `bits` bits on, for which
    Σ codes² < 2^(2·bits-1): the rule of `encode_for_product`. plain: False if x is not finite, or so large that its
    scale is not a normal float32; the codes are then 0.
    x: float32 and unit 1, or int8 and unit a step times a power of two. magnitude: the bits of the largest |x·unit| as
    float32. bits: of a code, with the sign, at most 16.
    """
    exponent, largest = np.int64(scale_exponent(magnitude, bits)), (1 << (bits - 1)) - 1
    most, limit = np.float32(largest), np.int64(1) << (2 * bits - 1)
    # Rounding moves a norm from one step to the next by less than sqrt(d). sqrt(65/64) - 1 > 2^-7.5, so while
    # d <= limit·2^-15 a sum foreseen to be 65/64 of the limit is beyond it.
    guessed = np.int64(codes.size) << 15 > limit
    while magnitude < INFINITE and exponent <= 126:
        scale = power_of_two(-exponent)
        square = code(x, codes, np.float32(unit * scale), most)
        fits = square < limit
        if fits and np.int32(rint(np.float32(as_float(magnitude) * np.float32(scale)))) <= largest:
            return exponent, True
        exponent += 1
        # Twice the step quarters the sum: steps that leave 65/64 of the limit need not be tried.
        while not (fits or guessed) and square >> 2 >= limit + (limit >> 6):
            square, exponent = square >> 2, exponent + 1
        guessed = True
    codes[:] = 0
    return np.int64(0), False


@compiled
def code_value(x, unit, magnitude, codes, bits):
    """Set codes to round(x·unit·2^-exponent), where the largest |x·unit| fills `bits` bits with the sign (at most 16).

    Returns (exponent, finite). finite: whether all of x is finite. x, unit, magnitude: as for `code_for_product`.
    """
    exponent = np.int64(scale_exponent(min(magnitude, np.int32(INFINITE - 1)), bits))
    code(x, codes, np.float32(unit * power_of_two(max(-exponent, -126))), np.float32((1 << (bits - 1)) - 1))
    return exponent, magnitude < INFINITE


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

    packed                        1: keys and values are bytes, see `codes.pack`; 0: float32
    heads, keys, channels, width  sizes of keys (batches, heads, keys, channels) and values (..., width)
    key_bits, bits  bits of a key's code, and of a value's code
    key, value      addresses; their strides by batch, head and key follow, in elements

    There is one mark per batch.
    """

    packed: Any
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
def element_of(block, head, key, by_batch, by_head, by_key):
    """Return where a vector begins in a tensor, in elements. by_batch, by_head, by_key: the tensor's strides."""
    return head // block[AT.heads] * by_batch + head % block[AT.heads] * by_head + key * by_key


@inlined
def vector_at(place, channels):
    """Return the float32 vector at an address, and the bits of its largest magnitude."""
    return floats(place, 1, channels)[0], largest_magnitude(integers(place, 1, channels)[0])


@compiled
def packed_at(place, channels):
    """Return the levels (int8) of the packed vector at an address, their unit, and the bits of its largest magnitude.

    The magnitude is INFINITE for a vector without a code, and for one whose unit is not a normal number.
    """
    levels, largest = bytes_at(place, 1, channels)[0], np.int32(0)
    step, exponent = halves(place + channels, 1, 2)[0]
    for i in range(channels):
        largest = np.int32(max(largest, absolute(np.int32(levels[i]))))
    if step == NO_STEP or not is_normal(exponent):
        return levels, 1.0, INFINITE
    unit = step * power_of_two(exponent)
    return levels, unit, as_bits(np.float32(largest * unit))


@compiled
def code_keys(block, unit, head, start, codes, panels, scales):
    """Code one unit's STEP_OF_KEYS keys of a head, from key `start` on, into panels and scales.

    Keys beyond the last are coded as 0. A batch with a key that cannot be coded is marked as left.
    codes: a buffer for one panel's codes, int16 (PANEL, channels).
    """
    channels = block[AT.channels]
    for member in range(STEP_OF_KEYS):
        key, at, row = start + member, unit * STEP_OF_KEYS + member, member % PANEL
        if key < block[AT.keys]:
            place = element_of(block, head, key, block[AT.key_batch], block[AT.key_head], block[AT.key_row])
            if block[AT.packed]:
                levels, step, most = packed_at(block[AT.key] + place, channels)
                exponent, plain = code_for_product(levels, step, most, codes[row, :channels], block[AT.key_bits])
            else:
                x, most = vector_at(block[AT.key] + 4 * place, channels)
                exponent, plain = code_for_product(x, 1.0, most, codes[row, :channels], block[AT.key_bits])
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
    width = block[AT.width]
    count = codes.shape[1] // PANEL
    pairs = (block[AT.keys] + STEP_OF_KEYS - 1) // STEP_OF_KEYS * STEP_OF_KEYS // 2
    for member in range(STEP_OF_KEYS):
        key, at, row = start + member, unit * STEP_OF_KEYS + member, member % 2
        exponents[at] = 0
        if key < block[AT.keys]:
            place = element_of(block, head, key, block[AT.value_batch], block[AT.value_head], block[AT.value_row])
            if block[AT.packed]:
                levels, step, most = packed_at(block[AT.value] + place, width)
                exponents[at], finite = code_value(levels, step, most, codes[row, :width], block[AT.bits])
            else:
                x, most = vector_at(block[AT.value] + 4 * place, width)
                exponents[at], finite = code_value(x, 1.0, most, codes[row, :width], block[AT.bits])
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
    own_keys, own_values = np.zeros((PANEL, 2 * pairs), np.int16), np.zeros((2, panels * PANEL), np.int16)
    key_codes, value_codes = borrowed(own_keys), borrowed(own_values)
    first, last = next_rows(block, 0)
    while first < last:
        for unit in range(first, last):
            head, start = unit // steps, unit % steps * STEP_OF_KEYS
            code_keys(block, unit, head, start, key_codes, key_panels, scales)
            code_values(block, unit, head, start, value_codes, value_panels, exponents)
        first, last = next_rows(block, last - first)
    keep(own_keys)
    keep(own_values)
