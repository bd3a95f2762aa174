"""Attention's keys and values, each coded once, in the panels that product.py multiplies with."""

from __future__ import annotations

import numpy as np

from spikeplug.kernels.cpu.launch import kernel
from spikeplug.kernels.cpu.memory import COUNT, OWN, doubles, floats, halves, integers, leave, next_rows, words
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

#: Keys lie in panels, so many at once.
STEP_OF_KEYS = PANEL * PANELS


@compiled
def code_for_product(x, pattern, codes, bits):
    """(exponent, plain): codes <- x as `encode_for_product` codes it, with so many bits, 16 at most.

    x: float32; pattern: its bits. What is not finite, or so large that its scale is not a normal float32, is not plain.
    """
    magnitude = largest_magnitude(pattern)
    exponent, most, limit = np.int64(scale_exponent(magnitude, bits)), (1 << (bits - 1)) - 1, 1 << (2 * bits - 1)
    while magnitude < INFINITE and exponent <= 126:
        scale = np.float32(power_of_two(-exponent))
        for i in range(x.size):
            codes[i] = np.int16(np.int32(rint(x[i] * scale)))
        if np.int32(rint(as_float(magnitude) * scale)) <= most:
            square = np.int64(0)
            for i in range(codes.size):
                square += np.int32(np.int32(codes[i]) * np.int32(codes[i]))
            if square < limit:
                return exponent, True
        exponent += 1
    codes[:] = 0
    return np.int64(0), False


@compiled
def code_vector(x, pattern, codes, bits):
    """(exponent, finite): codes <- x as `encode` codes it in two's complement of so many bits, 16 at most.

    x: float32; pattern: its bits. What is not finite codes as 0.
    """
    magnitude = largest_magnitude(pattern)
    if magnitude >= INFINITE:
        codes[:] = 0
        return np.int64(0), False
    exponent, most = np.int64(scale_exponent(magnitude, bits)), np.float32((1 << (bits - 1)) - 1)
    scale = np.float32(power_of_two(max(-exponent, -126)))
    for i in range(x.size):
        codes[i] = np.int16(np.int32(min(max(rint(x[i] * scale), -most), most)))
    return exponent, True


@compiled
def transpose(rows, columns):
    """columns[j·PANEL + i] <- rows[i, j]."""
    for pair in range(rows.shape[1]):
        part = columns[pair * PANEL : (pair + 1) * PANEL]
        for member in range(PANEL):
            part[member] = rows[member, pair]


@compiled
def interleave(first, second, target):
    """target <- first[0], second[0], first[1], ..."""
    for i in range(first.size):
        target[2 * i], target[2 * i + 1] = first[i], second[i]


X, CODES, SCALES, CHANNELS, KEYS, HEADS, BITS, BY_BATCH, BY_HEAD, BY_KEY = range(OWN, OWN + 10)


@inlined
def vector_of(block, head, key):
    """(x, its bits) of one key's vector; X has a channel after the other, and strides in elements."""
    heads = block[HEADS]
    place = head // heads * block[BY_BATCH] + head % heads * block[BY_HEAD] + key * block[BY_KEY]
    return floats(block[X] + 4 * place, 1, block[CHANNELS])[0], integers(block[X] + 4 * place, 1, block[CHANNELS])[0]


@kernel
def keys_kernel(address):
    """X: keys (batches, HEADS, KEYS, CHANNELS) into CODES and SCALES, BITS each; a unit of work is a panel of a head.

    CODES: int16 (heads, panels, pairs of channels, PANEL keys, 2), zero beyond the channels and keys, and as many
    panels as make full steps of STEP_OF_KEYS. SCALES: doubles (heads, panels·PANEL), zero beyond the keys.
    """
    block = words(address)
    keys, channels, bits = block[KEYS], block[CHANNELS], block[BITS]
    panels, pairs = (keys + STEP_OF_KEYS - 1) // STEP_OF_KEYS * (STEP_OF_KEYS // PANEL), (channels + 1) // 2
    target = integers(block[CODES], block[COUNT], pairs * PANEL)
    scales = doubles(block[SCALES], block[COUNT], PANEL)
    codes = np.zeros((PANEL, 2 * pairs), np.int16)
    first, last = next_rows(block, 0)
    while first < last:
        for panel in range(first, last):
            head, start = panel // panels, panel % panels * PANEL
            for member in range(PANEL):
                if start + member >= keys:
                    codes[member, :] = 0
                    scales[panel, member] = 0.0
                    continue
                x, pattern = vector_of(block, head, start + member)
                exponent, plain = code_for_product(x, pattern, codes[member, :channels], bits)
                if not plain:
                    leave(block)
                scales[panel, member] = power_of_two(exponent)
            transpose(codes.view(np.int32), target[panel])
        first, last = next_rows(block, last - first)


@kernel
def values_kernel(address):
    """X: values (batches, HEADS, KEYS, CHANNELS) into CODES and SCALES, BITS each; a unit of work is a pair of keys.

    CODES: int16 (heads, panels, pairs of keys, PANEL channels, 2), zero beyond channels and keys; as many pairs as
    keys_kernel's panels have. SCALES: int32 (heads, keys in pairs), exponents.
    """
    block = words(address)
    keys, channels, bits = block[KEYS], block[CHANNELS], block[BITS]
    pairs, panels = (keys + STEP_OF_KEYS - 1) // STEP_OF_KEYS * (STEP_OF_KEYS // 2), (channels + PANEL - 1) // PANEL
    target = halves(block[CODES], block[COUNT] * panels, PANEL * 2)
    exponents = integers(block[SCALES], block[COUNT], 2)
    codes = np.zeros((2, panels * PANEL), np.int16)
    first, last = next_rows(block, 0)
    while first < last:
        for unit in range(first, last):
            head, pair = unit // pairs, unit % pairs
            for member in range(2):
                key = 2 * pair + member
                if key >= keys:
                    codes[member, :] = 0
                    exponents[unit, member] = 0
                    continue
                x, pattern = vector_of(block, head, key)
                exponent, finite = code_vector(x, pattern, codes[member, :channels], bits)
                if not finite:
                    leave(block)
                exponents[unit, member] = exponent
            for panel in range(panels):
                part = slice(panel * PANEL, (panel + 1) * PANEL)
                interleave(codes[0, part], codes[1, part], target[(head * panels + panel) * pairs + pair])
        first, last = next_rows(block, last - first)
