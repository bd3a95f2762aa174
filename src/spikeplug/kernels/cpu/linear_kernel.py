"""Encode the rows of a linear layer, and scale and round its sums: what comes before and after the integer product."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from spikeplug.kernels.cpu.compile import kernel
from spikeplug.kernels.cpu.dots import TERMS, dots
from spikeplug.kernels.cpu.levels import UNDEFINED, Encoder, levels_of, room_of
from spikeplug.kernels.cpu.memory import (
    HEADER,
    borrowed,
    bytes_at,
    finished_rows,
    floats,
    halves,
    integers,
    keep,
    leave,
    longs,
    next_rows,
    places_of,
    taken_rows,
    words,
)
from spikeplug.kernels.cpu.panels import transpose
from spikeplug.kernels.cpu.product import COLUMNS, PANEL, PANELS_AT_ONCE, ROWS, product_of
from spikeplug.kernels.cpu.verbs import (
    INFINITE,
    LIFTED,
    ROUNDING,
    SHORT,
    as_bits,
    as_double,
    as_float,
    as_integer,
    bit_length,
    compiled,
    decoded,
    inlined,
    largest_magnitude,
    magnitude_of,
    power_of_two,
    rint,
    scale_exponent,
    shift_left,
    shift_right,
    steps_of,
    trunc,
)
from spikeplug.operators.linear.linear import THRESHOLD_BITS
from spikeplug.operators.linear.scaled import GUARD_BITS

#: The bits of NaN.
NAN = np.int32(0x7FC00000)
#: Exponents of an output beyond these give 0 or infinity, as these do.
_EXPONENTS = 1000
#: Octaves between two operands beyond which the smaller one is 0.
_APART = 100
#: Bits that the product has where a bias is added to it.
_SUMMED_BITS = 24


class Widths(NamedTuple):
    """Hold the 64-bit words that follow from a layer's settings and number of inputs.

    inputs   channels of x
    planes   int8 digits of a level: 1 or 2; 0: a level is one int16
    doubles  whether a sum times step and threshold is exact in a double
    """

    inputs: Any
    planes: Any
    doubles: Any


class Layer(NamedTuple):
    """Hold the 64-bit words of a linear layer's tensors.

    x          address of float32 (rows, inputs)
    output     address of float32 (rows, outputs), which holds int32 sums until they are scaled
    weight     address of int8 (outputs, inputs); stride: bytes from one of its rows to the next
    threshold  address of int32 (outputs,); unit: address of one int32
    bias       address of float32 (outputs,); 0: none
    bits       `Numerics.bits`
    """

    x: Any
    rows: Any
    output: Any
    outputs: Any
    weight: Any
    stride: Any
    threshold: Any
    unit: Any
    bias: Any
    bits: Any


class Buffers(NamedTuple):
    """Hold the 64-bit words of what lies between the kernels, where there are several.

    digits  address of int8 (planes, rows, inputs): the levels, or their high and low digits; without planes of int16
            (rows, inputs and one more if they are odd in number), 0 beyond the inputs
    scales  address of int64 (rows, 2): each row's step and exponent
    high    address of int32 (rows, outputs): the sums of the high digits; those of the others lie in the output
    """

    digits: Any
    scales: Any
    high: Any


ENCODER = places_of(Encoder, after=HEADER)
WIDTHS = places_of(Widths, after=ENCODER)
AT = places_of(Layer, after=WIDTHS)
BUFFERS = places_of(Buffers, after=AT)


@compiled
def _are_thresholds(threshold):
    """Return whether all of threshold (int32) lies in [0, 2^THRESHOLD_BITS)."""
    found = np.int32(0)
    for i in range(threshold.size):
        found = np.int32(found | threshold[i])
    return 0 <= found < 1 << THRESHOLD_BITS


@compiled
def _largest_product(sums, threshold):
    """Return the largest |sum·threshold|, int64; sums and thresholds are int32, the product is below 2^48."""
    largest = np.int64(0)
    for i in range(sums.size):
        largest = max(largest, as_integer(abs(np.float64(sums[i]) * np.float64(threshold[i]))))
    return np.int64(as_double(largest))


@compiled
def _product_width(sums, threshold, step):
    """Return the bits of the largest |sum·threshold·step|, int64: exact, though estimated in float32 first.

    An estimate has two roundings of 2^-24 each. Unless a power of two lies within 2^-22 of it, its bits are exact.
    """
    largest = np.int32(0)
    for i in range(sums.size):
        product = np.float32(np.float32(sums[i]) * np.float32(threshold[i]))
        largest = np.int32(max(largest, magnitude_of(as_bits(product))))
    estimate = np.float64(as_float(largest)) * np.float64(step)
    low = bit_length(np.int64(estimate * (1 - 2.0**-22)))
    if low == bit_length(np.int64(estimate * (1 + 2.0**-22))):
        return low
    return bit_length(_largest_product(sums, threshold) * step)


@compiled
def _scale_short(sums, thresholds, step, places, exponent):
    """Replace the sums (int32) by the bits of the float32 scaled sums times 2^exponent, for products below 2^SHORT.

    thresholds: float64. See LIFTED and ROUNDING.
    """
    factor = np.float64(step) * LIFTED * power_of_two(-places)
    plain, unit, wide = steps_of(exponent)
    for i in range(sums.size):
        value = (np.float64(sums[i]) * thresholds[i] * factor + ROUNDING) - ROUNDING
        sums[i] = as_bits(np.float32(value) * unit if plain else np.float32(value * wide))


@inlined
def _scaled(total, threshold, step, places, factor, doubles):
    """Return total·threshold·step·2^-places, rounded to an integer, halves away from 0, as a double.

    factor: step·2^-places, a double. doubles: whether the product of the integers is below 2^53.
    """
    if doubles:
        value = np.float64(total) * np.float64(threshold) * factor
        return trunc(value + np.copysign(0.5, value))
    whole = np.int64(total) * np.int64(threshold) * step
    size = abs(whole)
    size = (size + ((np.int64(1) << max(places, 0)) >> 1)) >> places if places >= 0 else size << -places
    return np.float64(-size if whole < 0 else size)


@compiled
def _scale(sums, threshold, step, places, exponent, doubles):
    """Replace the sums (int32) by the bits of the float32 scaled sums times 2^exponent."""
    factor = np.float64(step) * power_of_two(-places)
    plain, unit, wide = steps_of(exponent)
    for i in range(sums.size):
        value = np.int32(_scaled(sums[i], threshold[i], step, places, factor, doubles))
        sums[i] = as_bits(decoded(value, plain, unit, wide))


@inlined
def _summed(total, threshold, bias, step, places, factor, doubles, first, second):
    """Return the scaled sum times `first` plus bias times `second`, each cut to an integer; a double below 2^53."""
    return trunc(_scaled(total, threshold, step, places, factor, doubles) * first) + trunc(np.float64(bias) * second)


@compiled
def _largest_sum(sums, threshold, bias, step, places, doubles, first, second):
    """Return the largest |scaled sum + bias|, int64."""
    factor, largest = np.float64(step) * power_of_two(-places), np.int64(0)
    for i in range(sums.size):
        value = _summed(sums[i], threshold[i], bias[i], step, places, factor, doubles, first, second)
        largest = max(largest, as_integer(abs(value)))
    return np.int64(as_double(largest))


@compiled
def _scale_sum(sums, threshold, bias, step, places, doubles, first, second, down, exponent):
    """Replace the sums (int32) by the bits of float32 scaled sums plus bias, rounded to 2^down, times 2^exponent."""
    factor, last = np.float64(step) * power_of_two(-places), power_of_two(-down)
    plain, unit, wide = steps_of(exponent)
    for i in range(sums.size):
        value = last * _summed(sums[i], threshold[i], bias[i], step, places, factor, doubles, first, second)
        sums[i] = as_bits(decoded(np.int32(value + np.copysign(0.5, value)), plain, unit, wide))


@inlined
def _within(exponent):
    return min(max(exponent, np.int64(-_EXPONENTS)), np.int64(_EXPONENTS))


@compiled
def _finish(sums, threshold, thresholds, bias, bias_exponent, step, exponent, bits, doubles):
    """Replace the sums (int32) of a row by the bits of its float32 output.

    exponent: of the step and the thresholds together. thresholds: threshold (int32) as float64.
    bias: int32 in units of 2^bias_exponent, or without elements.
    """
    if step == UNDEFINED:
        sums[:] = NAN
        return
    width = _product_width(sums, threshold, step)
    if bias.size == 0:
        places = width - bits
        if width <= SHORT:
            _scale_short(sums, thresholds, step, places, _within(exponent + places))
            return
        _scale(sums, threshold, step, places, _within(exponent + places), doubles)
        return
    places = width - _SUMMED_BITS
    exponent += places
    top = max(exponent, bias_exponent)
    first = power_of_two(GUARD_BITS - min(top - exponent, np.int64(_APART)))
    second = power_of_two(GUARD_BITS - min(top - bias_exponent, np.int64(_APART)))
    most = _largest_sum(sums, threshold, bias, step, places, doubles, first, second)
    down = bit_length(most) - bits
    _scale_sum(sums, threshold, bias, step, places, doubles, first, second, down, _within(top - GUARD_BITS + down))


@compiled
def _encode_bias(x, bits, codes):
    """Set codes (int32) to x (float32) in units of a power of two; return the exponent, and whether x is finite."""
    magnitude = largest_magnitude(bits)
    if magnitude >= INFINITE:
        return np.int64(0), False
    exponent = np.int64(scale_exponent(magnitude, THRESHOLD_BITS + 1))
    scale = np.float32(power_of_two(-exponent))
    for i in range(x.size):
        codes[i] = np.int32(rint(np.float32(x[i] * scale)))
    return exponent, True


@inlined
def _constants(block):
    """Return a layer's thresholds (int32, float64), their unit, bias codes, their exponent, and if all is defined."""
    outputs = block[AT.outputs]
    threshold, unit = integers(block[AT.threshold], 1, outputs)[0], integers(block[AT.unit], 1, 1)[0, 0]
    given = outputs if block[AT.bias] else 0
    codes = np.empty(given, np.int32)
    exponent, finite = _encode_bias(floats(block[AT.bias], 1, given)[0], integers(block[AT.bias], 1, given)[0], codes)
    thresholds = np.empty(outputs, np.float64)
    for i in range(outputs):
        thresholds[i] = threshold[i]
    return threshold, thresholds, np.int64(unit), codes, exponent, finite and _are_thresholds(threshold)


@inlined
def _finish_row(block, row, sums, scales, constants):
    """Replace the sums of a row by its output; where a threshold or the bias is not defined, leave it."""
    threshold, thresholds, unit, bias, bias_exponent, defined = constants
    if defined:
        bits, doubles = block[AT.bits], block[WIDTHS.doubles] != 0
        step, exponent = scales[2 * row], scales[2 * row + 1] + unit
        _finish(sums[row], threshold, thresholds, bias, bias_exponent, step, exponent, bits, doubles)
    else:
        leave(block, 0)


@inlined
def _encode_row(block, row, codes, wide):
    x, inputs = block[AT.x], block[WIDTHS.inputs]
    return levels_of(
        floats(x, row + 1, inputs)[row],
        integers(x, row + 1, inputs)[row],
        codes,
        wide,
        block[ENCODER.levels],
        block[ENCODER.block],
        block[ENCODER.shares],
        block[ENCODER.places],
        block[ENCODER.rotation],
        block[ENCODER.dyadic],
        block[ENCODER.factors],
    )


@compiled
def _store(values, target):
    """Set integers of another width, such as int8 digits, to values that fit them."""
    for i in range(target.size):
        target[i] = values[i]


@compiled
def _store_digits(codes, high, low):
    """Set int8 digits so that 256·high + low are the codes (int32)."""
    eight = np.int32(8)
    for i in range(high.size):
        upper = shift_right(np.int32(codes[i] + 128), eight)
        high[i] = np.int8(upper)
        low[i] = np.int8(np.int32(codes[i] - shift_left(upper, eight)))


@kernel
def linear_encode_kernel(address):
    """Encode each row of x: set its digits and its scale."""
    block = words(address)
    rows, inputs, planes = block[HEADER.count], block[WIDTHS.inputs], block[WIDTHS.planes]
    digits, scales = bytes_at(block[BUFFERS.digits], planes * rows, inputs), longs(block[BUFFERS.scales], 2 * rows)
    whole = halves(block[BUFFERS.digits], rows, inputs + inputs % 2)
    codes, wide = room_of(inputs, block, ENCODER)
    first, last = next_rows(block, 0)
    while first < last:
        for row in range(first, last):
            step, exponent = _encode_row(block, row, codes, wide)
            if step == UNDEFINED:
                codes[:] = 0
            scales[2 * row], scales[2 * row + 1] = step, exponent
            if planes == 0:
                _store(codes, whole[row, :inputs])
            elif planes == 1:
                _store(codes, digits[row])
            else:
                _store_digits(codes, digits[row], digits[rows + row])
        first, last = next_rows(block, last - first)


@kernel
def linear_product_kernel(address):
    """Multiply int16 levels by the weight, into the output as int32; the units of work are COLUMNS rows of the weight.

    These rows become panels, which all rows of levels are multiplied with while they are in cache.
    """
    block = words(address)
    rows, inputs, outputs = block[AT.rows], block[WIDTHS.inputs], block[AT.outputs]
    width = inputs + inputs % 2
    pairs = width // 2
    own_members, own_panels = np.zeros((PANEL, width), np.int16), np.empty((PANELS_AT_ONCE, pairs * PANEL), np.int32)
    members, panels, rest = borrowed(own_members), borrowed(own_panels), np.empty((ROWS, COLUMNS), np.int32)
    first, last = next_rows(block, 0)
    while first < last:
        for unit in range(first, last):
            start = unit * COLUMNS
            present = min(COLUMNS, outputs - start)
            for member in range(COLUMNS):
                if member < present:
                    here = block[AT.weight] + (start + member) * block[AT.stride]
                    _store(bytes_at(here, 1, inputs)[0], members[member % PANEL, :inputs])
                else:
                    members[member % PANEL] = 0
                if member % PANEL == PANEL - 1:
                    transpose(members.view(np.int32), panels[member // PANEL])
            for row in range(0, rows, ROWS):
                count, target = min(ROWS, rows - row), block[AT.output] + 4 * (row * outputs + start)
                whole = present == COLUMNS
                sums, pitch = (target, outputs) if whole else (rest.ctypes.data, np.int64(COLUMNS))
                levels, panel = block[BUFFERS.digits] + 2 * width * row, panels.ctypes.data
                product_of(count, levels, width, panel, pairs, sums, pitch)
                if not whole:
                    output = integers(target, count, outputs)
                    for one in range(count):
                        for place in range(present):
                            output[one, place] = rest[one, place]
        first, last = next_rows(block, last - first)
    keep(own_members)
    keep(own_panels)


@compiled
def _join(high, low):
    """Set low (int32) to 256·high + low, which fit 32 bits."""
    eight = np.int32(8)
    for i in range(low.size):
        low[i] = np.int32(low[i] + shift_left(high[i], eight))


@kernel
def linear_scale_kernel(address):
    """Scale and round the sums of each row, and add the bias. The low sums, or the only ones, lie in the output."""
    block = words(address)
    rows, outputs, planes = block[HEADER.count], block[AT.outputs], block[WIDTHS.planes]
    sums = integers(block[AT.output], rows, outputs)
    high = integers(block[BUFFERS.high], rows, outputs if planes > 1 else 0)
    scales = longs(block[BUFFERS.scales], 2 * rows)
    constants = _constants(block)
    first, last = next_rows(block, 0)
    while first < last:
        for row in range(first, last):
            if planes > 1:
                _join(high[row], sums[row])
            _finish_row(block, row, sums, scales, constants)
        first, last = next_rows(block, last - first)


@kernel
def linear_few_kernel(address):
    """Compute all of a linear layer for at most FEW rows of x; the units of work are rows of the weight.

    Each thread encodes x for itself. The one that finishes last scales and rounds the sums.
    """
    block = words(address)
    rows, inputs, outputs = block[AT.rows], block[WIDTHS.inputs], block[AT.outputs]
    terms = inputs // TERMS * TERMS
    codes, wide = room_of(inputs, block, ENCODER)
    levels, scales = np.empty((rows, inputs), np.int16), np.empty(2 * rows, np.int64)
    for row in range(rows):
        step, exponent = _encode_row(block, row, codes, wide)
        scales[2 * row], scales[2 * row + 1] = step, exponent
        _store(codes, levels[row])
    sums = integers(block[AT.output], rows, outputs)
    weight, stride = block[AT.weight], block[AT.stride]
    finished = False
    first, last = taken_rows(block)
    while first < last:
        here = weight + first * stride
        if terms > 0:
            dots(
                rows,
                last - first,
                levels.ctypes.data,
                inputs,
                here,
                stride,
                terms,
                block[AT.output] + 4 * first,
                outputs,
            )
        else:
            sums[:, first:last] = 0
        if terms < inputs:
            rest = bytes_at(here, last - first, stride)
            for row in range(rows):
                for place in range(last - first):
                    total = np.int32(0)
                    for i in range(terms, inputs):
                        total = np.int32(total + np.int32(levels[row, i]) * np.int32(rest[place, i]))
                    sums[row, first + place] += total
        finished = finished_rows(block, last - first)
        first, last = taken_rows(block)
    if finished:
        constants = _constants(block)
        for row in range(rows):
            _finish_row(block, row, sums, scales, constants)
