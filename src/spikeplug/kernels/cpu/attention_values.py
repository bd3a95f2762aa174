"""Attention's values: each key's encoded once, as doubles in the panels that product.py sums over."""

from __future__ import annotations

import numpy as np

from spikeplug.kernels.cpu.launch import kernel
from spikeplug.kernels.cpu.memory import COUNT, OWN, doubles, floats, integers, leave, next_rows, words
from spikeplug.kernels.cpu.product import PANEL
from spikeplug.kernels.cpu.verbs import INFINITE, largest_magnitude, power_of_two, rint, scale_exponent

X, CODES, EXPONENTS, CHANNELS, PANELS, KEYS, N = range(OWN, OWN + 7)


@kernel
def values_kernel(address):
    """X: values (heads·keys, CHANNELS) into CODES and EXPONENTS, so many PANELS and KEYS a head, N bits each.

    Each key's value as `encode` codes it, in doubles: codes (heads, panels, keys, PANEL), zero beyond the channels.
    """
    block = words(address)
    rows, channels, count, keys, bits = block[COUNT], block[CHANNELS], block[PANELS], block[KEYS], block[N]
    x, codes = floats(block[X], rows, channels), integers(block[X], rows, channels)
    panels, exponents = doubles(block[CODES], rows * count, PANEL), integers(block[EXPONENTS], 1, rows)[0]
    first, last = next_rows(block, 0)
    while first < last:
        for row in range(first, last):
            magnitude = largest_magnitude(codes[row])
            exponent = np.int64(scale_exponent(magnitude, bits))
            exponents[row] = exponent
            scale = np.float32(power_of_two(max(-exponent, -126)))
            if magnitude >= INFINITE:
                leave(block)
            start = (row // keys) * count * keys + row % keys
            for panel in range(count):
                target = panels[start + panel * keys]
                for i in range(PANEL):
                    channel = panel * PANEL + i
                    target[i] = np.float64(rint(x[row, channel] * scale)) if channel < channels else 0.0
        first, last = next_rows(block, last - first)
