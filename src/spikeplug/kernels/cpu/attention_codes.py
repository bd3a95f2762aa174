"""Attention's keys and values, each coded once, in the panels that product.py multiplies with."""

from __future__ import annotations

import numpy as np

from spikeplug.kernels.cpu.launch import kernel
from spikeplug.kernels.cpu.memory import COUNT, OWN, doubles, floats, integers, leave, next_rows, words
from spikeplug.kernels.cpu.panels import CODES, code_vectors, interleave_vectors, transpose_vectors
from spikeplug.kernels.cpu.product import PANEL, PANELS
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
STEP_OF_KEYS = PANEL * PANELS


@compiled
def code(x, codes, scale, most):
    """codes <- round(x·scale) within ±most; Σ codes², in 64 bits: each square fits 32."""
    vectors = codes.size // CODES
    total = code_vectors(x, codes, vectors, scale, most) if vectors else np.int64(0)
    for i in range(vectors * CODES, codes.size):
        mantissa = np.int32(min(max(rint(x[i] * scale), -most), most))
        codes[i] = np.int16(mantissa)
        total += np.int64(np.int32(mantissa * mantissa))
    return total


@compiled
def code_for_product(x, pattern, codes, bits):
    """(exponent, plain): codes <- x as `encode_for_product` codes it, with so many bits, 16 at most.

    x: float32; pattern: its bits. What is not finite, or so large that its scale is not a normal float32, is not plain.
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
    """(exponent, finite): codes <- x as `encode` codes it in two's complement of so many bits, 16 at most."""
    magnitude = largest_magnitude(pattern)
    exponent = np.int64(scale_exponent(min(magnitude, np.int32(INFINITE - 1)), bits))
    code(x, codes, np.float32(power_of_two(max(-exponent, -126))), np.float32((1 << (bits - 1)) - 1))
    return exponent, magnitude < INFINITE


@compiled
def transpose(rows, columns):
    """columns[j·PANEL + i] <- rows[i, j], 32 bits each."""
    pairs = rows.shape[1]
    blocks = pairs // PANEL
    if blocks:
        transpose_vectors(rows, columns, blocks, pairs)
    for pair in range(blocks * PANEL, pairs):
        for member in range(PANEL):
            columns[pair * PANEL + member] = rows[member, pair]


(HEADS, KEYS, CHANNELS, WIDTH, KEY_BITS, N, KEY, KEY_BATCH, KEY_HEAD, KEY_ROW) = range(OWN, OWN + 10)
(VALUE, VALUE_BATCH, VALUE_HEAD, VALUE_ROW) = range(OWN + 10, OWN + 14)
(KEY_PANELS, KEY_SCALES, VALUE_PANELS, EXPONENTS) = range(OWN + 14, OWN + 18)


@inlined
def head_at(block, head, first):
    """The address of a head's first vector; the tensor's, and its strides in elements, are words from `first` on."""
    return block[first] + 4 * (head // block[HEADS] * block[first + 1] + head % block[HEADS] * block[first + 2])


@inlined
def vector_at(address, key, pitch, channels):
    """(x, its bits) of one vector of float32; `pitch` elements from one to the next."""
    place = address + 4 * key * pitch
    return floats(place, 1, channels)[0], integers(place, 1, channels)[0]


@compiled
def code_keys(block, unit, head, start, codes, panels, scales):
    """panels, scales[...] <- the keys of one unit from `start` on; codes: a panel's, int16 (PANEL, channels, even)."""
    address, channels = head_at(block, head, KEY), block[CHANNELS]
    for member in range(STEP_OF_KEYS):
        key, at, row = start + member, unit * STEP_OF_KEYS + member, member % PANEL
        if key < block[KEYS]:
            x, pattern = vector_at(address, key, block[KEY_ROW], channels)
            exponent, plain = code_for_product(x, pattern, codes[row, :channels], block[KEY_BITS])
            scales[at] = power_of_two(exponent)
            if not plain:
                leave(block)
        else:
            codes[row, :] = 0
            scales[at] = 0.0
        if row == PANEL - 1:
            transpose(codes.view(np.int32), panels[unit * PANELS + member // PANEL])


@compiled
def code_values(block, unit, head, start, codes, panels, exponents):
    """panels, exponents[...] <- the values of one unit from `start` on; codes: a pair's, int16 (2, full panels)."""
    address, width = head_at(block, head, VALUE), block[WIDTH]
    count = codes.shape[1] // PANEL
    pairs = (block[KEYS] + STEP_OF_KEYS - 1) // STEP_OF_KEYS * STEP_OF_KEYS // 2
    for member in range(STEP_OF_KEYS):
        key, at, row = start + member, unit * STEP_OF_KEYS + member, member % 2
        exponents[at] = 0
        if key < block[KEYS]:
            x, pattern = vector_at(address, key, block[VALUE_ROW], width)
            exponents[at], finite = code_value(x, pattern, codes[row, :width], block[N])
            if not finite:
                leave(block)
        else:
            codes[row, :] = 0
        if row == 1:
            interleave_vectors(codes[0], codes[1], panels[head * count * pairs + key // 2], count, pairs * PANEL)


@kernel
def codes_kernel(address):
    """KEY (batches, HEADS, KEYS, CHANNELS) and VALUE (..., WIDTH), float32, into panels. A unit of work: STEP_OF_KEYS.

    KEY_PANELS: int16 (heads, panels, pairs of channels, PANEL keys, 2), KEY_BITS each. KEY_SCALES: doubles (heads,
    keys). VALUE_PANELS: int16 (heads, panels, pairs of keys, PANEL channels, 2), N bits each. EXPONENTS: int32 (heads,
    keys). All zero beyond the channels and, up to a full step, beyond the keys. Counts vectors that are not plain.
    """
    block = words(address)
    steps, pairs = (block[KEYS] + STEP_OF_KEYS - 1) // STEP_OF_KEYS, (block[CHANNELS] + 1) // 2
    panels = (block[WIDTH] + PANEL - 1) // PANEL
    key_panels = integers(block[KEY_PANELS], block[COUNT] * PANELS, pairs * PANEL)
    scales = doubles(block[KEY_SCALES], 1, block[COUNT] * STEP_OF_KEYS)[0]
    value_panels = integers(block[VALUE_PANELS], block[COUNT] * panels * STEP_OF_KEYS // 2, PANEL)
    exponents = integers(block[EXPONENTS], 1, block[COUNT] * STEP_OF_KEYS)[0]
    key_codes, value_codes = np.zeros((PANEL, 2 * pairs), np.int16), np.zeros((2, panels * PANEL), np.int16)
    first, last = next_rows(block, 0)
    while first < last:
        for unit in range(first, last):
            head, start = unit // steps, unit % steps * STEP_OF_KEYS
            code_keys(block, unit, head, start, key_codes, key_panels, scales)
            code_values(block, unit, head, start, value_codes, value_panels, exponents)
        first, last = next_rows(block, last - first)
