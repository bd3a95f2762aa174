"""Encode a row in few levels of a step: receive, rotate, normalise, divide by the step. See operators/linear/levels.py.

All is done in 32-bit integers and exact quotients, in passes over a row in cache. Rotations whose sums need more bits
are finished in doubles, which hold every integer below 2^53.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from llvmlite import ir
from numba import types
from torch import Tensor

from spikeplug.hadamard import factors_of, hadamard
from spikeplug.kernels.cpu.memory import longs
from spikeplug.kernels.cpu.product import LONG, WORD
from spikeplug.kernels.cpu.verbs import (
    INFINITE,
    absolute,
    as_double,
    as_float,
    as_integer,
    bit_length,
    compiled,
    exponent_of,
    inlined,
    intrinsic,
    largest_magnitude,
    power_of_two,
    shift_left,
    shift_right,
    with_sign,
)
from spikeplug.kernels.levels import largest_mantissa
from spikeplug.operators.linear.levels import SHARE_BITS, STEP_BITS
from spikeplug.operators.linear.receiver import LOWEST_EXPONENT, RECEIVED_BITS

#: Lanes of a vector on which sums and differences of near neighbours are formed.
LANES = 16
#: The widest rotation whose sums of 24-bit integers fit 32 bits, with room to round.
_MOST_SHORT = 64
#: The widest rotation whose sums of 24-bit integers fit 32 bits: 128·(2^24 - 1).
_MOST_WHOLE = 128
#: Rows of a rotation's factor that are summed at once. Every order but 1 and 2 is a multiple of it.
_ROWS = 4
#: What `levels_of` returns as the step of a row with NaN or infinities.
UNDEFINED = -1
#: From this exponent on, an inverse power of two is a float32.
_LEAST = -126


class Encoder(NamedTuple):
    """Hold the constants of an encoder, as 64-bit words of a kernel's block.

    levels    largest level
    block     channels that share a step; 0: all
    shares    bits of the number of shares that a block's step may have; 0 without blocks
    places    bits of the largest normalised magnitude
    rotation  order of the Hadamard matrix; 0: none
    dyadic    the largest power of two in it, whose factor is butterflies
    factors   address of the table of the other factors, see `_factors`; 0: there are none
    """

    levels: Any
    block: Any
    shares: Any
    places: Any
    rotation: Any
    dyadic: Any
    factors: Any


@lru_cache(maxsize=256)
def encoder(levels: int, block: int, rotation: int) -> Encoder:
    """Return the constants of the encoder with these settings."""
    shares = SHARE_BITS if block else 0
    places = STEP_BITS + levels.bit_length() + shares - 1
    dyadic = _dyadic(rotation)
    factors = 0 if dyadic == rotation else _factors(rotation)[0].data_ptr()
    return Encoder(levels, block, shares, places, rotation, dyadic, factors)


def _dyadic(order: int) -> int:
    """Return the product of the factors of a Hadamard matrix's order that are powers of two."""
    return math.prod(factor for factor in factors_of(order) if factor in (2, 4)) if order else 0


@cache
def _factors(order: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the table of the factors of a Hadamard matrix that are no powers of two, and the signs it points at.

    Three int64 words per factor, then a zero: its order, how far its elements lie apart, and the address of its signs,
    float64 (order, order). Tables are kept: kernels hold their addresses.
    """
    words, held, right = [], [], order
    for factor in factors_of(order):
        right //= factor
        if factor not in (2, 4):
            held.append(hadamard(factor).to(torch.float64))
            words += [factor, right, held[-1].data_ptr()]
    return torch.tensor([*words, 0], dtype=torch.int64), tuple(held)


def largest_step(levels: int, block: int) -> int:
    """Return the bound of a vector's step, as `Levels` holds it."""
    unit = largest_mantissa(levels, block)
    places: int = encoder(levels, block, 0).places
    return -(-(1 << places) // unit)


def _near(distances: tuple[int, ...]) -> Any:
    """Return a function for kernels that transforms LANES int32 of an array, from `place` on, in place.

    Each stage replaces pairs (a, b) of elements that lie one of the distances apart by (a + b, a - b).
    """

    @intrinsic
    def verb(typing_context: Any, array: Any, place: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
            kind, bools = ir.VectorType(WORD, LANES), ir.VectorType(ir.IntType(1), LANES)
            pointer = builder.bitcast(builder.gep(data, [arguments[1]]), kind.as_pointer())
            value = builder.load(pointer, align=4)
            for distance in distances:
                partners = ir.Constant(ir.VectorType(WORD, LANES), [lane ^ distance for lane in range(LANES)])
                other = builder.shuffle_vector(value, ir.Constant(kind, ir.Undefined), partners)
                high = ir.Constant(bools, [bool(lane & distance) for lane in range(LANES)])
                value = builder.select(high, builder.sub(other, value), builder.add(other, value))
            builder.store(value, pointer, align=4)
            return context.get_dummy_value()

        return types.void(array, types.int64), generate

    return verb


_all_near, _first_near, _second_near, _third_near = _near((1, 2, 4, 8)), _near((1,)), _near((2,)), _near((4,))


def _far(stages: int) -> Any:
    """Return a function for kernels that transforms LANES groups of elements of an array, in place.

    The elements of a group lie `distance` apart from `place` on: 2 for one stage, 4 for two.
    """

    @intrinsic
    def verb(typing_context: Any, array: Any, place: Any, distance: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
            kind = ir.VectorType(data.type.pointee, LANES)
            places = [builder.add(arguments[1], builder.mul(arguments[2], LONG(i))) for i in range(1 << stages)]
            pointers = [builder.bitcast(builder.gep(data, [place]), kind.as_pointer()) for place in places]
            values = [builder.load(pointer, align=4) for pointer in pointers]
            whole = isinstance(data.type.pointee, ir.IntType)
            add, subtract = (builder.add, builder.sub) if whole else (builder.fadd, builder.fsub)
            for stage in range(stages):
                for i in range(1 << stages):
                    if not i >> stage & 1:
                        a, b = values[i], values[i | 1 << stage]
                        values[i], values[i | 1 << stage] = add(a, b), subtract(a, b)
            for value, pointer in zip(values, pointers, strict=True):
                builder.store(value, pointer, align=4)
            return context.get_dummy_value()

        return types.void(array, types.int64, types.int64), generate

    return verb


_one_far, _two_far = _far(1), _far(2)


@compiled
def _rotate_far(codes, size, first, order):
    """Transform groups of `order` of the first `size` codes, where groups of `first`, at least LANES, are done."""
    distance = first
    while 2 * distance < order:
        for start in range(0, size, 4 * distance):
            for place in range(start, start + distance, LANES):
                _two_far(codes, place, distance)
        distance *= 4
    if distance < order:
        for start in range(0, size, 2 * distance):
            for place in range(start, start + distance, LANES):
                _one_far(codes, place, distance)


@compiled
def rotate(codes, size, order):
    """Multiply each `order` of the first `size` codes (int32, padded to a multiple of LANES) by a Hadamard matrix."""
    if order >= LANES:
        for place in range(0, size, LANES):
            _all_near(codes, place)
        _rotate_far(codes, size, np.int64(LANES), order)
        return
    for place in range(0, size, LANES):
        if order > 1:
            _first_near(codes, place)
        if order > 2:
            _second_near(codes, place)
        if order > 4:
            _third_near(codes, place)


@compiled
def _largest(codes):
    """Return the largest |code| of int32 codes, int32."""
    largest = np.int32(0)
    for i in range(codes.size):
        largest = np.int32(max(largest, absolute(codes[i])))
    return largest


@inlined
def room_of(width, block, places):
    """Return the buffers that `levels_of` takes for rows of a width: codes, and wide for rotations that need it.

    block: a kernel's words; places: those of its `Encoder`.
    """
    wide = block[places.rotation] > _MOST_SHORT or block[places.factors] != 0
    return np.zeros(-(-width // LANES) * LANES, np.int32), np.empty((2, width + LANES if wide else 0), np.float64)


@intrinsic
def _signed_sums(typing_context: Any, x: Any, pitch: Any, signs: Any, order: Any, output: Any) -> tuple[Any, Any]:
    """Set _ROWS rows of LANES doubles at `output` to signed sums of `order` rows of LANES doubles at `x`.

    x, output  addresses of rows that lie `pitch` bytes apart
    signs      address of ±1, float64, `order` per row of the output
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, pitch, signs, order, output = arguments
        real, kind = ir.DoubleType(), ir.VectorType(ir.DoubleType(), LANES)

        def at(address: Any, of: Any) -> Any:
            return builder.inttoptr(address, of.as_pointer())

        before = builder.basic_block
        loop, after = builder.append_basic_block("terms"), builder.append_basic_block("summed")
        builder.branch(loop)
        builder.position_at_end(loop)
        term = builder.phi(LONG)
        term.add_incoming(LONG(0), before)
        sums = [builder.phi(kind) for _ in range(_ROWS)]
        value = builder.load(at(builder.add(x, builder.mul(term, pitch)), kind), align=8)
        everywhere = ir.Constant(ir.VectorType(WORD, LANES), [0] * LANES)
        for row, total in enumerate(sums):
            place = builder.shl(builder.add(builder.mul(order, LONG(row)), term), LONG(3))
            sign = builder.load(at(builder.add(signs, place), real), align=8)
            one = builder.insert_element(ir.Constant(kind, ir.Undefined), sign, WORD(0))
            sign = builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), everywhere)
            # All numbers are whole and below 2^53: a fused product and sum gives the same.
            more = builder.fadd(total, builder.fmul(value, sign, flags=("contract",)), flags=("contract",))
            total.add_incoming(ir.Constant(kind, None), before)
            total.add_incoming(more, loop)
            sums[row] = more
        following = builder.add(term, LONG(1))
        term.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, order), loop, after)
        builder.position_at_end(after)
        for row, total in enumerate(sums):
            builder.store(total, at(builder.add(output, builder.mul(pitch, LONG(row))), kind), align=8)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), generate


@compiled
def _rotate_factor(x, output, size, signs, order, right):
    """Set output (float64) to the product of each group of order·right elements of x by the signs (order, order).

    x, output, signs  addresses; x and output have LANES elements more than `size`
    right             how far elements that are multiplied together lie apart

    Whole vectors are written, in the order of the output: what lies beyond `right` elements is written again later.
    """
    pitch = 8 * right
    for start in range(0, size, order * right):
        for row in range(0, order, _ROWS):
            place = np.int64(0)
            while place < right:
                place = max(min(place, right - LANES), np.int64(0))
                here, there = x + 8 * (start + place), output + 8 * (start + row * right + place)
                _signed_sums(here, pitch, signs + 8 * row * order, order, there)
                place += LANES


@compiled
def _rotate_wide(codes, wide, size, dyadic, factors):
    """Rotate `size` codes (int32) into a row of wide, float64, exactly; return its number."""
    rotate(codes, size, min(dyadic, np.int64(_MOST_WHOLE)))
    for i in range(size):
        wide[0, i] = codes[i]
    _rotate_far(wide[0], size, np.int64(_MOST_WHOLE), dyadic)
    now = np.int64(0)
    place = factors
    while place != 0:
        order, right, signs = longs(place, 3)
        _rotate_factor(wide[now].ctypes.data, wide[1 - now].ctypes.data, size, signs, order, right)
        now, place = 1 - now, place + 24
        if longs(place, 1)[0] == 0:
            place = np.int64(0)
    return now


@compiled
def _largest_wide(wide):
    """Return the largest |wide| of whole float64, int64."""
    largest = np.int64(0)
    for i in range(wide.size):
        largest = max(largest, as_integer(abs(wide[i])))
    return np.int64(as_double(largest))


@compiled
def _narrow(wide, codes, shift):
    """Set codes (int32) to wide·2^shift, whole numbers below 2^53, rounded, halves away from 0."""
    factor = power_of_two(shift)
    for i in range(wide.size):
        value = wide[i] * factor
        codes[i] = np.int32(value + np.copysign(0.5, value))


@compiled
def _receive(x, codes, exponent):
    """Set codes (int32) to x·2^-exponent, cut to the integer nearer to 0."""
    if exponent >= _LEAST:
        scale = np.float32(power_of_two(-exponent))
        for i in range(x.size):
            codes[i] = np.int32(np.float32(x[i] * scale))
        return
    wide = power_of_two(-exponent)
    for i in range(x.size):
        codes[i] = np.int32(np.float64(x[i]) * wide)


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
def _divide(codes, left, half, right, step, factor):
    """Set codes to round(normalised code / step)·factor, halves away from 0; step < 2^21, quotients below 2^16.

    The quotient plus 1/2 is a multiple of 1/(2·step) > 2^-22, computed in doubles to 2^-34: 2^-24 more makes it exact.
    """
    inverse = 1 / np.float64(step) if step > 0 else 0.0
    for i in range(codes.size):
        size = np.float64(_normalised(codes[i], left, half, right))
        count = np.int32(size * inverse + (0.5 + 2.0**-24))
        codes[i] = with_sign(count * factor, codes[i])


@compiled
def levels_of(x, bits, codes, wide, levels, block, shares, places, rotation, dyadic, factors):
    """Set codes to the levels of a row x; return (step, exponent): x ≈ codes·step·2^exponent.

    x      float32 (d,); bits: the same memory as int32
    codes  int32 (d padded to a multiple of LANES,), zero beyond d
    wide   float64 (2, d + LANES), or (2, 0) where no rotation needs it: see `room_of`
    step   UNDEFINED for a row with NaN or infinities, whose codes are not set

    The other arguments are those of `Encoder`.
    """
    magnitude = largest_magnitude(bits)
    if magnitude >= INFINITE:
        return np.int64(UNDEFINED), np.int64(0)
    if magnitude == 0:
        exponent, largest = np.int64(LOWEST_EXPONENT), np.int64(0)
        codes[:] = 0
    else:
        # As many bits as a normalised magnitude has, and one to round: with fewer, small elements would lose their last
        # ones. A rotation takes RECEIVED_BITS.
        received = np.int64(RECEIVED_BITS) if rotation > 0 else max(np.int64(RECEIVED_BITS), places + 1)
        exponent = exponent_of(np.int64(magnitude)) - received
        _receive(x, codes, exponent)
        largest = np.int64(np.float64(as_float(magnitude)) * power_of_two(-exponent))
    now = np.int64(0)
    if rotation > 0:
        exponent -= (bit_length(rotation) - 1) >> 1
        if wide.shape[1] == 0:
            rotate(codes, x.size, rotation)
            largest = np.int64(_largest(codes))
        else:
            now = _rotate_wide(codes, wide, x.size, dyadic, factors)
            largest = _largest_wide(wide[now, : x.size])
    shift = places - bit_length(largest)
    exponent -= shift
    if wide.shape[1] > 0:
        _narrow(wide[now, : x.size], codes, shift)
        largest = np.int64(np.float64(largest) * power_of_two(shift) + 0.5)
        shift = np.int64(0)
    left, right = np.int32(max(shift, 0)), np.int32(max(-shift, 0))
    half = np.int32((np.int64(1) << np.int64(right)) >> 1)
    top = np.int64(_normalised(np.int32(largest), left, half, right))
    unit = levels << shares
    step = (top + unit - 1) // unit
    values = codes[: x.size]
    if block == 0:
        if levels <= 127:
            _divide_few(values, left, half, right, step)
        else:
            _divide(values, left, half, right, step, np.int32(1))
        return step, exponent
    for start in range(0, x.size, block):
        own = values[start : min(start + block, x.size)]
        most = np.int64(_normalised(_largest(own), left, half, right))
        number = max((most + levels * step - 1) // (levels * step), np.int64(1)) if step > 0 else np.int64(1)
        _divide(own, left, half, right, step * number, np.int32(number))
    return step, exponent
