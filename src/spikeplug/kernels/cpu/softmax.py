"""Run softmax in three passes over a row that stays in cache: maximum, weights and their sum, division."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from spikeplug.codes import MASKED, natural_unit
from spikeplug.kernels.cpu.compile import kernel
from spikeplug.kernels.cpu.memory import integers, leave, next_rows, reals, words
from spikeplug.kernels.cpu.rows import CHUNK, ROWS, Settings, by_rows, own_places, rows_of
from spikeplug.kernels.cpu.verbs import (
    INFINITE,
    MAGNITUDE,
    as_bits,
    as_float,
    bit_length,
    compiled,
    exponent_of,
    fetch,
    look_up,
    magnitude_of,
    power_of_two,
    quotient_of,
    rint,
    shift_right,
)
from spikeplug.kernels.protocol import EVERY_ROW, NO_AFFINE, Call
from spikeplug.numerics import Numerics
from spikeplug.operators.rows import along
from spikeplug.operators.softmax.weights import shift_exponential
from spikeplug.primitives.interpolation import whole_table

_LOWEST = np.float32(MASKED)


@compiled
def largest_score(bits):
    """Return (largest x, largest |x|) of a float32 row x, both as int32 bit patterns.

    bits: the row's memory as int32. The magnitude of NaN is above that of infinity.
    """
    largest, magnitude = np.int32(-(1 << 31)), np.int32(0)
    for i in range(bits.size):
        b = bits[i]
        magnitude = np.int32(max(magnitude, np.int32(b & MAGNITUDE)))
        # Floats sort as their bits do, but for the negative ones, which sort the other way round.
        largest = np.int32(max(largest, np.int32(b ^ np.int32(shift_right(b, np.int32(31)) & MAGNITUDE))))
    return np.int32(largest ^ np.int32(shift_right(largest, np.int32(31)) & MAGNITUDE)), magnitude


@compiled
def is_plain(largest, magnitude, fraction_bits):
    """Return whether the kernel can compute a row: it has no NaN, no +inf, and its maximum fits 32-bit fixed point.

    largest, magnitude: the row's largest score and largest |score|, as float32 bits. A row of only -inf is plain too.
    """
    if magnitude > INFINITE or largest == INFINITE:
        return False
    # exponent + 1 bit for log2(e) + F <= 29, as in `excess_places`.
    return magnitude_of(largest) >= INFINITE or exponent_of(magnitude_of(largest)) + 1 + fraction_bits <= 29


@compiled
def ceiling_of(largest, scale, fraction_bits):
    """Return round(largest·scale), rounded up to a multiple of 2^fraction_bits, int32.

    2^fraction_bits is one octave, a factor of two in the weights.
    """
    octave = np.int64(1) << fraction_bits
    score = np.int64(rint(max(np.float32(largest * scale), _LOWEST)))
    return np.int32((score + (octave - 1)) & -octave)


@compiled
def distances(x, fractions, octaves, scale, ceiling, fraction_bits):
    """Set fractions and octaves (int32) to how far each score lies below the ceiling.

    The distance is ceiling - round(x·scale). fractions get its low fraction_bits bits, octaves the bits above, so that
    a weight is 2^-fraction (from a table) shifted right by octaves.
    """
    mask, places = np.int32((1 << fraction_bits) - 1), np.int32(fraction_bits)
    for i in range(x.size):
        distance = np.int32(ceiling - np.int32(rint(max(x[i] * scale, _LOWEST))))
        fractions[i] = distance & mask
        octaves[i] = shift_right(distance, places)


@compiled
def decay(mantissas, octaves, weights):
    """Set weights (int32) to mantissas >> octaves; return the sum of the weights and the largest."""
    total, largest = np.int64(0), np.int32(0)
    for i in range(mantissas.size):
        weight = shift_right(mantissas[i], np.int32(min(octaves[i], np.int32(31))))
        weights[i] = weight
        total += weight
        largest = np.int32(max(largest, weight))
    return total, largest


@compiled
def divide(weights, total, largest, bits, width):
    """Divide the weights by their sum, in place; the row's largest quotient has `bits` bits.

    weights: int32 before, the bits of float32 quotients after. total, largest: sum and maximum of the weights.
    width: bits to which the weights and the total are aligned before the division.
    """
    lift, drop = width - bit_length(np.int64(largest)), width - bit_length(total)
    denominator = total << drop if drop >= 0 else total >> -drop
    down = np.int32(max(-lift, 0))
    factor = np.float64(1 << (bits + max(lift, 0))) / np.float64(denominator)
    unit = np.float32(power_of_two(np.int64(drop - lift - bits)))
    for i in range(weights.size):
        quotient = quotient_of(np.float64(shift_right(weights[i], down)), factor)
        weights[i] = as_bits(np.float32(quotient) * unit)


class Words(NamedTuple):
    """Hold the 64-bit words of the softmax kernel.

    table         address of the mantissas of 2^-f for each fraction f of fraction_bits bits, int32
    fraction_bits, bits, working_bits  the fields of `Numerics` of the same names
    scale         what a score is multiplied by before it is rounded to an integer, a double
    """

    table: Any
    fraction_bits: Any
    bits: Any
    working_bits: Any
    scale: Any


AT = own_places(Words)


@kernel
def softmax_kernel(address):
    """Compute the softmax of each row; rows that `is_plain` refuses (NaN, +inf, too large) are left.

    address: of the arguments, a block of words (`memory.py`).
    """
    block = words(address)
    x, codes, output = rows_of(block)
    count, length = x.shape
    # One name for the output, as bits: it holds the weights first.
    weights = integers(block[ROWS.output], count, length)
    fraction_bits, bits, working_bits = block[AT.fraction_bits], block[AT.bits], block[AT.working_bits]
    scale = np.float32(reals(block)[AT.scale])
    table = integers(block[AT.table], 1, (1 << fraction_bits) + 1)[0]
    fractions, octaves = np.empty(CHUNK, np.int32), np.empty(CHUNK, np.int32)
    first, last = next_rows(block, 0)
    while first < last:
        for row in range(first, last):
            largest, magnitude = largest_score(codes[row])
            if not is_plain(largest, magnitude, fraction_bits):
                leave(block, row)
            elif magnitude_of(largest) >= INFINITE:  # -inf: nothing to attend to
                weights[row, :] = 0
            else:
                ceiling = ceiling_of(as_float(largest), scale, fraction_bits)
                total, most = np.int64(0), np.int32(0)
                for start in range(0, length, CHUNK):
                    end = min(start + CHUNK, length)
                    mantissas, places, here = fractions[: end - start], octaves[: end - start], weights[row, start:end]
                    if row + 1 < count:
                        fetch(x[row + 1, start:end])
                    fetch(output[row, start:end])
                    distances(x[row, start:end], mantissas, places, scale, ceiling, fraction_bits)
                    look_up(mantissas, table)
                    part, highest = decay(mantissas, places, here)
                    total, most = total + part, np.int32(max(most, highest))
                divide(weights[row], total, most, bits, working_bits)
        first, last = next_rows(block, last - first)


@lru_cache(maxsize=64)
def _settings(numerics: Numerics) -> Settings:
    return Settings.of(
        Words(
            table=whole_table(shift_exponential(numerics).table, torch.device("cpu")),
            fraction_bits=numerics.fraction_bits,
            bits=numerics.bits,
            working_bits=numerics.working_bits,
            scale=natural_unit(numerics) * (1 << numerics.fraction_bits),
        )
    )


class Softmax:
    """Compute softmax along any dimension.

    Rows with NaN, +inf or scores too large for their fraction bits are left to the closed form.
    """

    def supports(self, call: Call) -> str | None:
        return None if call.weight is None and call.bias is None else NO_AFFINE

    def run(self, call: Call) -> tuple[Tensor, Tensor | None]:
        x, dim = call.arguments
        if dim == -1:
            return by_rows(softmax_kernel, x, _settings(call.numerics))
        output, rare = by_rows(softmax_kernel, along(dim, x, "softmax"), _settings(call.numerics))
        return output.movedim(-1, dim), None if rare is None else EVERY_ROW
