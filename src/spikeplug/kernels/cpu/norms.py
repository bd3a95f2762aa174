"""Run RMSNorm and LayerNorm: encode, sum of squares, root, divide, in passes over a row in cache."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from spikeplug.kernels.cpu.compile import kernel
from spikeplug.kernels.cpu.memory import floats, leave, next_rows, reals, words
from spikeplug.kernels.cpu.rows import ROWS, Settings, by_rows, own_places, rows_of
from spikeplug.kernels.cpu.verbs import (
    INFINITE,
    MAGNITUDE,
    as_bits,
    as_float,
    bit_length,
    compiled,
    decoded,
    floor,
    inlined,
    largest_magnitude,
    power_of_two,
    quotient_of,
    rint,
    scale_exponent,
    square_root,
    steps_of,
    with_sign,
)
from spikeplug.kernels.protocol import Call
from spikeplug.numerics import Numerics
from spikeplug.operators.norms.length import length_places
from spikeplug.operators.norms.rms_norm import SQRT_BITS

#: As `check_norm` has it; what is beyond, it refuses.
_LARGEST_EPS = 1e30


@compiled
def encode(x, mantissas, scale):
    """Set mantissas (int32) to round(x·scale); return the sum of their squares, int64."""
    squares = np.int64(0)
    for i in range(x.size):
        mantissa = np.int32(rint(x[i] * scale))
        mantissas[i] = mantissa
        squares += np.int64(mantissa) * np.int64(mantissa)
    return squares


@compiled
def encode_to_centre(x, mantissas, scale):
    """Set mantissas (int32) to round(x·scale); return their sum, minimum and maximum, as doubles."""
    total, least, largest = np.int64(0), MAGNITUDE, np.int32(-MAGNITUDE)
    for i in range(x.size):
        mantissa = np.int32(rint(x[i] * scale))
        mantissas[i] = mantissa
        total += np.int64(mantissa)
        least, largest = np.int32(min(least, mantissa)), np.int32(max(largest, mantissa))
    return np.float64(total), np.float64(least), np.float64(largest)


@inlined
def rounded(x):
    """Return x (a double) rounded to the nearest integer, halves away from 0, int32. |x| + 1/2 must be exact."""
    return np.int32(x + np.copysign(0.5, x))


@compiled
def centre(mantissas, dimension, total):
    """Subtract the mean: set mantissas to mantissas·dimension - total, rounded; return the sum of their squares.

    dimension: the number of mantissas. total: their sum. Both are doubles, multiplied by the same power of two. Halves
    are rounded away from 0. Products and differences are exact in doubles.
    """
    squares = np.int64(0)
    for i in range(mantissas.size):
        mantissa = rounded(np.float64(mantissas[i]) * dimension - total)
        mantissas[i] = mantissa
        squares += np.int64(mantissa) * np.int64(mantissa)
    return squares


@compiled
def divide(mantissas, output, weight, bias, numerators, factor, exponent):
    """Set the output (float32) to round(floor(|mantissa|·numerators)·factor)·2^exponent, with the mantissa's sign.

    mantissas: int32. numerators: a double, the factor of all numerators. factor: a double, 2^bits over the denominator.
    The result is then multiplied by weight, and bias is added; either may have no elements, and is then not applied.
    """
    plain, unit, wide = steps_of(exponent)
    for i in range(mantissas.size):
        quotient = quotient_of(floor(abs(np.float64(mantissas[i])) * numerators), factor)
        value = decoded(with_sign(quotient, mantissas[i]), plain, unit, wide)
        if weight.size:
            value = value * weight[i]
        output[i] = value + bias[i] if bias.size else value


class Words(NamedTuple):
    """Hold the 64-bit words of the norm kernel, for rows of d channels.

    centred         whether the mean is subtracted first (LayerNorm)
    root_dimension  floor(sqrt(d)·2^SQRT_BITS)
    bits, working_bits  the fields of `Numerics` of the same names
    extended        sqrt(eps·d), a double: appended to the vector as one more element, it adds eps to the mean square
    """

    centred: Any
    root_dimension: Any
    bits: Any
    working_bits: Any
    extended: Any


AT = own_places(Words)


@kernel
def norm_kernel(address):
    """Normalise each row, then multiply by a weight and add a bias, if given, of one element per channel.

    address: of the arguments, a block of words (`memory.py`). Rows with NaN or infinities are left to the closed form.
    """
    block = words(address)
    x, codes, output = rows_of(block)
    centred, root_dimension = block[AT.centred] != 0, block[AT.root_dimension]
    bits, width = block[AT.bits], block[AT.working_bits]
    extended, dimension = reals(block)[AT.extended], np.float64(x.shape[1])
    weight = floats(block[ROWS.weight], 1, x.shape[1] if block[ROWS.weight] else 0)[0]
    bias = floats(block[ROWS.bias], 1, x.shape[1] if block[ROWS.bias] else 0)[0]
    least = np.float32(extended)
    mantissas = np.empty(x.shape[1], np.int32)
    first, last = next_rows(block, 0)
    while first < last:
        for row in range(first, last):
            magnitude = largest_magnitude(codes[row])
            if magnitude >= INFINITE:
                leave(block, row)
                continue
            exponent = np.int64(scale_exponent(max(magnitude, as_bits(least)), width))
            scale = np.float32(power_of_two(max(-exponent, -126)))
            # Rounding keeps order: the largest mantissa is that of the largest element.
            if centred:
                total, low, high = encode_to_centre(x[row], mantissas, scale)
                farthest = max(high * dimension - total, total - low * dimension)
                # At the scale of the centred integers, d times finer; in double, as the operator has it.
                fine = rint(extended * dimension * power_of_two(-exponent))
                lift = power_of_two(np.int64(width - 1 - bit_length(np.int64(max(fine, farthest)))))
                squares = centre(mantissas, dimension * lift, total * lift)
                most, extension = np.int64(rounded(farthest * lift)), np.int64(rounded(fine * lift))
            else:
                squares = encode(x[row], mantissas, scale)
                most = np.int64(rint(as_float(magnitude) * scale))
                extension = np.int64(rint(np.float32(least * scale)))
            length = square_root(squares + extension * extension)
            lift = np.int64(width - bit_length(most * root_dimension))
            drop = np.int64(width - bit_length(length))
            denominator = length << drop if drop >= 0 else length >> -drop
            numerators = np.float64(root_dimension) * power_of_two(lift)
            factor = np.float64(1 << bits) / np.float64(max(denominator, 1))
            divide(mantissas, output[row], weight, bias, numerators, factor, drop - lift - SQRT_BITS - bits)
        first, last = next_rows(block, last - first)


@lru_cache(maxsize=256)
def _settings(operator: str, dimension: int, eps: float, numerics: Numerics) -> Settings:
    """Return the kernel's words for "rms_norm" or "layer_norm" over vectors of `dimension` channels."""
    return Settings.of(
        Words(
            centred=int(operator == "layer_norm"),
            root_dimension=math.isqrt(dimension << 2 * SQRT_BITS),
            bits=numerics.bits,
            working_bits=numerics.working_bits,
            extended=math.sqrt(eps * dimension),
        )
    )


class Norm:
    """Compute RMSNorm or LayerNorm, with weight and bias. Rows with NaN or infinities are left to the closed form."""

    def supports(self, call: Call) -> str | None:
        x, eps = call.arguments
        if length_places(x.shape[-1], call.numerics, call.operator)[1]:
            return f"squares of {x.shape[-1]} elements are summed in parts"
        if not (isinstance(eps, (int, float)) and 0 <= eps <= _LARGEST_EPS):
            return f"eps is {eps!r}"
        for value in (call.weight, call.bias):
            if value is not None and not (value.dtype == x.dtype == torch.float32 and value.shape == x.shape[-1:]):
                return "this kernel takes weights and biases of float32, one per channel, and only with float32"
        return None

    def run(self, call: Call) -> tuple[Tensor, Tensor | None]:
        x, eps = call.arguments
        settings = _settings(call.operator, x.shape[-1], eps, call.numerics)
        return by_rows(norm_kernel, x, settings, call.weight, call.bias)
