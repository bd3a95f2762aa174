"""RMSNorm and LayerNorm: encode, sum of squares, root, divide, in passes over a row in cache."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from spikeplug.coding import affine
from spikeplug.kernels.cpu.launch import kernel
from spikeplug.kernels.cpu.memory import floats, leave, next_rows, reals, words
from spikeplug.kernels.cpu.rows import PARAMETERS, by_rows, rows_of
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
from spikeplug.numerics import Numerics
from spikeplug.operators.rms_norm import SQRT_BITS, check_norm, length_bits


@compiled
def encode(x, mantissas, scale):
    """mantissas <- round(x·scale); the sum of their squares."""
    squares = np.int64(0)
    for i in range(x.size):
        mantissa = np.int32(rint(x[i] * scale))
        mantissas[i] = mantissa
        squares += np.int64(mantissa) * np.int64(mantissa)
    return squares


@compiled
def encode_to_centre(x, mantissas, scale):
    """mantissas <- round(x·scale); (their sum, the least, the largest)."""
    total, least, largest = np.int64(0), MAGNITUDE, np.int32(-MAGNITUDE)
    for i in range(x.size):
        mantissa = np.int32(rint(x[i] * scale))
        mantissas[i] = mantissa
        total += np.int64(mantissa)
        least, largest = np.int32(min(least, mantissa)), np.int32(max(largest, mantissa))
    return np.float64(total), np.float64(least), np.float64(largest)


@inlined
def rounded(x):
    """x rounded half up in magnitude, int32; x + 1/2 exact."""
    return np.int32(x + np.copysign(0.5, x))


@compiled
def centre(mantissas, dimension, total):
    """mantissas <- mantissas·dimension - total, rounded half up in magnitude; the sum of their squares.

    dimension and total times one power of two: every product and difference is exact, below 2^53 of its units.
    """
    squares = np.int64(0)
    for i in range(mantissas.size):
        mantissa = rounded(np.float64(mantissas[i]) * dimension - total)
        mantissas[i] = mantissa
        squares += np.int64(mantissa) * np.int64(mantissa)
    return squares


@compiled
def divide(mantissas, output, weight, bias, numerators, factor, exponent):
    """output <- round(2^n·floor(|mantissa|·numerators)/B) with the mantissa's sign, ·2^exponent, times weight, plus
    bias (of no elements: none); factor = 2^n/B. `Ratio.scaled`, decoded as `decode` does it."""
    plain, unit, wide = steps_of(exponent)
    for i in range(mantissas.size):
        quotient = quotient_of(floor(abs(np.float64(mantissas[i])) * numerators), factor)
        value = decoded(with_sign(quotient, mantissas[i]), plain, unit, wide)
        if weight.size:
            value = value * weight[i]
        output[i] = value + bias[i] if bias.size else value


WEIGHT, BIAS, CENTRED, ROOT, N, P, EXTENDED = range(PARAMETERS, PARAMETERS + 7)


@kernel
def norm_kernel(address):
    """WEIGHT and BIAS or 0; whether it is to be CENTRED, ROOT: floor(sqrt(d)·2^SQRT_BITS), N, P, EXTENDED:
    sqrt(eps·d)."""
    block = words(address)
    x, codes, output = rows_of(block)
    centred, root_dimension, bits, width = block[CENTRED] != 0, block[ROOT], block[N], block[P]
    extended, dimension = reals(block)[EXTENDED], np.float64(x.shape[1])
    weight = floats(block[WEIGHT], 1, x.shape[1] if block[WEIGHT] else 0)[0]
    bias = floats(block[BIAS], 1, x.shape[1] if block[BIAS] else 0)[0]
    least = np.float32(extended)
    mantissas = np.empty(x.shape[1], np.int32)
    first, last = next_rows(block, 0)
    while first < last:
        for row in range(first, last):
            magnitude = largest_magnitude(codes[row])
            if magnitude >= INFINITE:
                leave(block)
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


def _normed(
    x: Tensor, eps: float, weight: Tensor | None, bias: Tensor | None, centred: bool, numerics: Numerics
) -> Tensor | None:
    operator, dimension = "layer_norm" if centred else "rms_norm", x.shape[-1]
    check_norm(operator, x, eps, weight=weight, bias=bias)
    length_bits(dimension, numerics, operator)
    numbers = (math.isqrt(dimension << 2 * SQRT_BITS), numerics.bits, numerics.working_bits, math.sqrt(eps * dimension))
    parameters = [value for value in (weight, bias) if value is not None]
    if not all(value.dtype == x.dtype == torch.float32 for value in parameters):  # rounded more than once
        output = by_rows(norm_kernel, x, 0, 0, int(centred), *numbers)
        return None if output is None else affine(output, weight, bias)
    held = [0 if value is None else value.contiguous() for value in (weight, bias)]
    return by_rows(norm_kernel, x, *held, int(centred), *numbers)


def rms_norm(x: Tensor, eps: float = 1e-6, *, weight: Tensor | None = None, numerics: Numerics) -> Tensor | None:
    """`operators.rms_norm`, bit for bit."""
    return _normed(x, eps, weight, None, False, numerics)


def layer_norm(
    x: Tensor, eps: float = 1e-5, *, weight: Tensor | None = None, bias: Tensor | None = None, numerics: Numerics
) -> Tensor | None:
    """`operators.layer_norm`, bit for bit."""
    return _normed(x, eps, weight, bias, True, numerics)
