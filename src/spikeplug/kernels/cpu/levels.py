"""Encode a row in few levels of a step: receive, rotate, normalise, divide by the step. See operators/linear/levels.py.

All is done in 32-bit integers and exact quotients, in passes over a row in cache.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types

from spikeplug.kernels.cpu.product import LONG, WORD
from spikeplug.kernels.cpu.verbs import (
    INFINITE,
    absolute,
    as_float,
    bit_length,
    compiled,
    intrinsic,
    largest_magnitude,
    power_of_two,
    rint,
    scale_exponent,
    shift_left,
    shift_right,
    with_sign,
)
from spikeplug.operators.linear.levels import OCTAVES, RECEIVED_BITS, STEP_BITS

#: Lanes of a vector on which sums and differences of near neighbours are formed.
LANES = 16
#: The widest rotation whose sums of 24-bit integers fit 32 bits, with room to round.
MOST_ROTATION = 64
#: The largest mantissa that two int8 digits hold.
MOST_MANTISSA = 127 * 256 + 127
#: What `levels_of` returns as the step of a row with NaN or infinities.
UNDEFINED = -1


class Encoder(NamedTuple):
    """Hold the constants of an encoder, as 64-bit words of a kernel's block.

    levels    largest level
    block     channels that share a step; 0: all
    octaves   by how many octaves a block's step may lie below the vector's; 0 without blocks
    places    bits of the largest normalised magnitude
    rotation  order of the Hadamard matrix; 0: none
    """

    levels: Any
    block: Any
    octaves: Any
    places: Any
    rotation: Any


@lru_cache(maxsize=256)
def encoder(levels: int, block: int, rotation: int) -> Encoder:
    """Return the constants of the encoder with these settings."""
    octaves = OCTAVES if block else 0
    places = STEP_BITS + levels.bit_length() + octaves - 1
    return Encoder(levels, block, octaves, places, rotation)


def largest_mantissa(levels: int, block: int) -> int:
    """Return the bound of |mantissa| of the levels."""
    return levels << (OCTAVES if block else 0)


def largest_step(levels: int, block: int) -> int:
    """Return the bound of a vector's step, as `Levels` holds it."""
    unit = largest_mantissa(levels, block)
    places: int = encoder(levels, block, 0).places
    return -(-(1 << places) // unit)


def refused(levels: int, block: int, rotation: int) -> str | None:
    """Return why the kernels do not encode with these settings, or None; values out of their domain are refused too."""
    if levels < 1 or block < 0 or largest_mantissa(levels, block) > MOST_MANTISSA:
        return f"levels of {levels} with block={block} do not fit 16 bits"
    if rotation and (rotation < 2 or rotation & (rotation - 1) or rotation > MOST_ROTATION):
        return f"rotation={rotation}; kernels take powers of two up to {MOST_ROTATION}"
    return None


@intrinsic
def _near_butterflies(typing_context: Any, array: Any, place: Any, order: Any) -> Any:
    """Transform LANES int32 of an array from `place` on, in groups of min(order, LANES), in place.

    Each stage replaces a pair (a, b) of elements that lie 1, 2, 4, ... apart by (a + b, a - b).
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        kind, bools = ir.VectorType(WORD, LANES), ir.VectorType(ir.IntType(1), LANES)
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), kind.as_pointer())
        value = builder.load(pointer, align=4)
        for distance in (1, 2, 4, 8):
            partners = ir.Constant(ir.VectorType(WORD, LANES), [lane ^ distance for lane in range(LANES)])
            other = builder.shuffle_vector(value, ir.Constant(kind, ir.Undefined), partners)
            high = ir.Constant(bools, [bool(lane & distance) for lane in range(LANES)])
            stage = builder.select(high, builder.sub(other, value), builder.add(other, value))
            wanted = builder.icmp_signed(">", arguments[2], LONG(distance))
            value = builder.select(wanted, stage, value)
        builder.store(value, pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), generate


@compiled
def rotate(codes, order):
    """Multiply each `order` elements of codes (int32, padded to a multiple of LANES) by a Hadamard matrix, in place."""
    for place in range(0, codes.size, LANES):
        _near_butterflies(codes, place, order)
    distance = np.int64(LANES)
    while distance < order:
        for start in range(0, codes.size - distance, 2 * distance):
            low, high = codes[start : start + distance], codes[start + distance : start + 2 * distance]
            for i in range(distance):
                a, b = low[i], high[i]
                low[i] = np.int32(a + b)
                high[i] = np.int32(a - b)
        distance *= 2


@compiled
def _largest(codes):
    """Return the largest |code| of int32 codes, int32."""
    largest = np.int32(0)
    for i in range(codes.size):
        largest = np.int32(max(largest, absolute(codes[i])))
    return largest


@compiled
def _receive(x, codes, scale):
    """Set codes (int32) to round(x·scale)."""
    for i in range(x.size):
        codes[i] = np.int32(rint(np.float32(x[i] * scale)))


@compiled
def _normalised(code, left, half, right):
    """Return |code|·2^(left - right), rounded to nearest, halves up, int32; half is 2^(right-1), or 0."""
    return shift_right(np.int32(shift_left(absolute(code), left) + half), right)


@compiled
def _divide_few(codes, left, half, right, step):
    """Set codes to round(normalised code / step), halves away from 0, for at most 127 levels.

    The quotient plus 1/2 is a multiple of 1/(2·step) >= 2^-13.01. Two roundings of a quotient below 2^7 and one of the
    sum are off by less than 2^-15. So 2^-15 more lifts every exact integer and carries nothing else over one.
    """
    inverse = np.float32(np.float32(1) / np.float32(step)) if step > 0 else np.float32(0)
    lift = np.float32(0.5 + 2.0**-15)
    for i in range(codes.size):
        size = np.float32(_normalised(codes[i], left, half, right))
        codes[i] = with_sign(np.int32(np.float32(size * inverse) + lift), codes[i])


@compiled
def _divide(codes, left, half, right, step, places):
    """Set codes to round(normalised code / step)·2^places, halves away from 0; step < 2^17, quotients below 2^16.

    The quotient plus 1/2 is a multiple of 1/(2·step) > 2^-18, computed in doubles to 2^-34: 2^-20 more makes it exact.
    """
    inverse = 1 / np.float64(step) if step > 0 else 0.0
    for i in range(codes.size):
        size = np.float64(_normalised(codes[i], left, half, right))
        count = np.int32(size * inverse + (0.5 + 2.0**-20))
        codes[i] = with_sign(shift_left(count, places), codes[i])


@compiled
def levels_of(x, bits, codes, levels, block, octaves, places, rotation):
    """Set codes to the levels of a row x; return (step, exponent): x ≈ codes·step·2^exponent.

    x      float32 (d,); bits: the same memory as int32
    codes  int32 (d padded to a multiple of LANES,), zero beyond d
    step   UNDEFINED for a row with NaN or infinities, whose codes are not set

    The other arguments are those of `Encoder`.
    """
    magnitude = largest_magnitude(bits)
    if magnitude >= INFINITE:
        return np.int64(UNDEFINED), np.int64(0)
    exponent = np.int64(scale_exponent(magnitude, RECEIVED_BITS + 1))
    scale = np.float32(power_of_two(-exponent))
    _receive(x, codes, scale)
    largest = np.int32(rint(np.float32(as_float(magnitude) * scale)))
    if rotation > 0:
        rotate(codes, rotation)
        largest = _largest(codes)
        exponent -= (bit_length(rotation) - 1) >> 1
    shift = places - bit_length(np.int64(largest))
    exponent -= shift
    left, right = np.int32(max(shift, 0)), np.int32(max(-shift, 0))
    half = np.int32((np.int64(1) << np.int64(right)) >> 1)
    top = np.int64(_normalised(largest, left, half, right))
    unit = levels << octaves
    step = ((top + unit - 1) // unit) << octaves
    values = codes[: x.size]
    if block == 0:
        if levels <= 127:
            _divide_few(values, left, half, right, step)
        else:
            _divide(values, left, half, right, step, np.int32(0))
        return step, exponent
    for start in range(0, x.size, block):
        own = values[start : min(start + block, x.size)]
        most = np.int64(_normalised(_largest(own), left, half, right))
        up = np.int64(0)
        while up < octaves and most << (up + 1) <= top:
            up += 1
        _divide(own, left, half, right, step >> up, np.int32(octaves - up))
    return step >> octaves, exponent
