"""RMSNorm and LayerNorm: encode, sum of squares, root, divide, in passes over a row in cache."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from spikeplug.config import SpikeConfig
from spikeplug.kernels.cpu.launch import kernel
from spikeplug.kernels.cpu.memory import leave, next_rows, reals, words
from spikeplug.kernels.cpu.rows import PARAMETERS, by_rows, rows_of
from spikeplug.kernels.cpu.verbs import (
    INFINITE,
    absolute,
    as_bits,
    as_double,
    as_integer,
    bit_length,
    compiled,
    decode,
    floor,
    largest_magnitude,
    power_of_two,
    quotient_of,
    rint,
    scale_exponent,
    square_root,
    with_sign,
)
from spikeplug.operators.rms_norm import SQRT_BITS, check_norm, length_bits


@compiled
def encode(x, mantissas, scale):
    """mantissas <- round(x·scale); (their sum, the sum of their squares)."""
    total, squares = np.int64(0), np.int64(0)
    for i in range(x.size):
        mantissa = np.int32(rint(x[i] * scale))
        mantissas[i] = mantissa
        total += np.int64(mantissa)
        squares += np.int64(mantissa) * np.int64(mantissa)
    return total, squares


@compiled
def largest_centred(mantissas, total):
    """The largest |d·mantissa - total|; all are below 2^53, hence exact as doubles."""
    dimension, total, largest = np.float64(mantissas.size), np.float64(total), np.int64(0)
    for i in range(mantissas.size):
        largest = max(largest, as_integer(abs(np.float64(mantissas[i]) * dimension - total)))
    return as_double(largest)


@compiled
def centre(mantissas, total, extension, width):
    """mantissas <- d·mantissas - total, shifted with the extension to `width` bits, rounded half up in magnitude;
    (extension, the sum of squares)."""
    largest = max(np.float64(extension), largest_centred(mantissas, total))
    lift = power_of_two(np.int64(width - bit_length(np.int64(largest))))
    dimension, total = np.float64(mantissas.size), np.float64(total)
    squares = np.int64(0)
    for i in range(mantissas.size):
        centred = (np.float64(mantissas[i]) * dimension - total) * lift
        mantissa = np.int32(np.copysign(floor(abs(centred) + 0.5), centred))
        mantissas[i] = mantissa
        squares += np.int64(mantissa) * np.int64(mantissa)
    return np.int64(np.float64(extension) * lift + 0.5), squares


@compiled
def divide(mantissas, output, length, root_dimension, bits, width):
    """output <- mantissas·sqrt(d) over the length, n = bits of the row's largest: `Ratio.scaled`, decoded.

    mantissas <- the quotients.
    """
    largest = np.int32(0)
    for i in range(mantissas.size):
        largest = np.int32(max(largest, absolute(mantissas[i])))
    lift = np.int64(width - bit_length(np.int64(largest) * root_dimension))
    drop = np.int64(width - bit_length(length))
    denominator = length << drop if drop >= 0 else length >> -drop
    numerators = np.float64(root_dimension) * power_of_two(lift)
    factor = np.float64(1 << bits) / np.float64(max(denominator, 1))
    for i in range(mantissas.size):
        quotient = quotient_of(floor(np.float64(absolute(mantissas[i])) * numerators), factor)
        mantissas[i] = with_sign(quotient, mantissas[i])
    decode(mantissas, output, np.int64(drop - lift - SQRT_BITS - bits))


CENTRED, ROOT, N, P, EXTENDED = range(PARAMETERS, PARAMETERS + 5)


@kernel
def norm_kernel(address):
    """Whether it is to be CENTRED, ROOT: floor(sqrt(d)·2^SQRT_BITS), N, P, EXTENDED: sqrt(eps·d)."""
    block = words(address)
    x, codes, output = rows_of(block)
    centred, root_dimension, bits, width = block[CENTRED] != 0, block[ROOT], block[N], block[P]
    extended = reals(block)[EXTENDED]
    least = np.float32(extended)
    mantissas = np.empty(x.shape[1], np.int32)
    least_code = as_bits(least)
    first, last = next_rows(block, 0)
    while first < last:
        for row in range(first, last):
            magnitude = largest_magnitude(codes[row])
            if magnitude >= INFINITE:
                leave(block)
                continue
            exponent = np.int64(scale_exponent(max(magnitude, least_code), width))
            scale = np.float32(power_of_two(max(-exponent, -126)))
            total, squares = encode(x[row], mantissas, scale)
            if centred:
                # At the scale of the centred integers, d times finer; in double, as the operator has it.
                extension = np.int64(rint(extended * np.float64(x.shape[1]) * power_of_two(-exponent)))
                extension, squares = centre(mantissas, total, extension, width - 1)
            else:
                extension = np.int64(rint(np.float32(least * scale)))
            length = square_root(squares + extension * extension)
            divide(mantissas, output[row], length, root_dimension, bits, width)
        first, last = next_rows(block, last - first)


def _normed(x: Tensor, eps: float, centred: bool, config: SpikeConfig) -> Tensor | None:
    dimension = x.shape[-1]
    length_bits(dimension, config, "layer_norm" if centred else "rms_norm")
    words = (int(centred), math.isqrt(dimension << 2 * SQRT_BITS), config.bits, config.working_bits)
    return by_rows(norm_kernel, x, *words, math.sqrt(eps * dimension))


def rms_norm(x: Tensor, eps: float = 1e-6, *, config: SpikeConfig) -> Tensor | None:
    """`operators.rms_norm` without a weight, bit for bit."""
    check_norm("rms_norm", x, eps)
    return _normed(x, eps, False, config)


def layer_norm(x: Tensor, eps: float = 1e-5, *, config: SpikeConfig) -> Tensor | None:
    """`operators.layer_norm` without weight and bias, bit for bit."""
    check_norm("layer_norm", x, eps)
    return _normed(x, eps, True, config)
