"""Gated inputs x·σ(g(x)), and the sigmoid itself: encode, open the gate, divide, in passes over a row in cache."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from spikeplug.config import SpikeConfig
from spikeplug.kernels.cpu.launch import kernel
from spikeplug.kernels.cpu.memory import integers, leave, next_rows, reals, words
from spikeplug.kernels.cpu.rows import by_rows, rows_of
from spikeplug.kernels.cpu.verbs import (
    INFINITE,
    MAGNITUDE,
    absolute,
    as_bits,
    as_double,
    as_integer,
    bit_length,
    compiled,
    decode,
    exponent_of,
    inlined,
    largest_magnitude,
    look_up,
    power_of_two,
    rint,
    scale_exponent,
    shift_left,
    shift_right,
    with_sign,
)
from spikeplug.operators.gates import CURVE_END, OCTAVES, SIGMOID, SILU, Gate, curve_table, gelu_gate
from spikeplug.operators.scores import natural_unit, shift_exponential
from spikeplug.primitives.exponential import power_of_half
from spikeplug.primitives.interpolation import interpolate, whole_table


@compiled
def encode(x, amplitudes, openings, scale, unit, limit):
    """The amplitude round(x·scale), and what the gate opens by, round(x·unit) within ±limit."""
    for i in range(x.size):
        amplitudes[i] = np.int32(rint(x[i] * scale))
        openings[i] = np.int32(rint(min(max(np.float32(x[i] * unit), -limit), limit)))


@compiled
def magnitudes(openings, indices, mask):
    """|opening|, or its fraction: the index of t, or of t's mantissa."""
    for i in range(openings.size):
        indices[i] = absolute(openings[i]) & mask


@compiled
def decay(openings, falls, fraction_bits):
    """t = 2^-|g|: mantissas >> octaves, which are at most 31."""
    places = np.int32(fraction_bits)
    for i in range(openings.size):
        falls[i] = shift_right(falls[i], shift_right(absolute(openings[i]), places))


@inlined
def factor_of(opening, fall, one):
    """What the gate lets through, in Q(P): all where the opening is not negative, else t."""
    return fall if opening < 0 else one


@compiled
def share_bits(amplitudes, openings, falls, one):
    """Bits of the largest |x|·factor, below 2^48.

    A float32 product rounds to nearest, so its exponent is that of the exact one unless it was rounded up to a power of
    two; then doubles, which hold the product, decide.
    """
    largest = np.int32(0)
    for i in range(amplitudes.size):
        share = np.float32(absolute(amplitudes[i])) * np.float32(factor_of(openings[i], falls[i], one))
        largest = np.int32(max(largest, as_bits(share)))
    if largest & np.int32(0x7FFFFF):
        return np.int64(exponent_of(largest))
    exact = np.int64(0)
    for i in range(amplitudes.size):
        factor = np.float64(factor_of(openings[i], falls[i], one))
        exact = max(exact, as_integer(np.float64(absolute(amplitudes[i])) * factor))
    return bit_length(np.int64(as_double(exact)))


@compiled
def divide(amplitudes, openings, falls, one, places, bits):
    """amplitudes <- |x|·factor·2^places over 1 + t, n = bits of the row's largest, with the sign of x: `Ratio.scaled`.

    floor(2^(n+1)·A/B) with A < 2^P <= 2^24 and B = 1 + t <= 2^25 is estimated in float32: two operands and a quotient
    rounded are off by less than 3·2^-24 of 2^(n+1) <= 2^21, so the estimate, cut, by at most 1. The remainder
    A·2^(n+1) - q·B then lies in (-B, 2B), which 32 bits tell apart although its terms wrap around.
    """
    lift, levels, more = power_of_two(places), np.float32(2 << bits), np.int32(bits + 1)
    for i in range(amplitudes.size):
        factor = np.float64(factor_of(openings[i], falls[i], one))
        numerator = np.int32(np.float64(absolute(amplitudes[i])) * factor * lift)
        denominator = np.int32(falls[i] + one)
        quotient = np.int32(np.float32(numerator) * levels / np.float32(denominator))
        rest = np.int32(shift_left(numerator, more) - np.int32(quotient * denominator))
        quotient = np.int32(quotient + np.int32(rest >= denominator) - np.int32(rest < 0))
        amplitudes[i] = with_sign(shift_right(np.int32(quotient + 1), np.int32(1)), amplitudes[i])


@kernel
def gate_kernel(address):
    """Words after those of `by_rows`: table, its size, whether it holds t itself, whether the amplitude is x (else 1),
    F, n, P, the openings' unit and their limit."""
    block = words(address)
    x, codes, output = rows_of(block)
    table, curved, weighted = integers(block[8], 1, block[9])[0], block[10] != 0, block[11] != 0
    fraction_bits, bits, width = block[12], block[13], block[14]
    unit, limit = np.float32(reals(block)[15]), np.float32(reals(block)[16])
    one, mask = np.int32(1 << width), MAGNITUDE if curved else np.int32((1 << fraction_bits) - 1)
    amplitudes, openings = np.empty(x.shape[1], np.int32), np.empty(x.shape[1], np.int32)
    falls = np.empty(x.shape[1], np.int32)
    first, last = next_rows(block, 0)
    while first < last:
        for row in range(first, last):
            magnitude = largest_magnitude(codes[row])
            if magnitude >= INFINITE:
                leave(block)
                continue
            exponent = np.int64(scale_exponent(magnitude, width))
            scale = np.float32(power_of_two(max(-exponent, -126)))
            encode(x[row], amplitudes, openings, scale, unit, limit)
            if not weighted:
                amplitudes[:] = 1
                exponent = np.int64(0)
            magnitudes(openings, falls, mask)
            look_up(falls, table)
            if not curved:
                decay(openings, falls, fraction_bits)
            places = width - share_bits(amplitudes, openings, falls, one)
            divide(amplitudes, openings, falls, one, places, bits)
            decode(amplitudes, output[row], exponent - places - bits)
        first, last = next_rows(block, last - first)


@lru_cache(maxsize=16)
def _falls(gate: Gate, config: SpikeConfig) -> Tensor:
    """t = 2^-g(x) of every x >= 0 up to CURVE_END, int32."""
    inputs = torch.arange((CURVE_END << config.fraction_bits) + 1, dtype=torch.int32)
    curve = curve_table(gate, natural_unit(config), config.fraction_bits)
    return power_of_half(interpolate(inputs, curve), shift_exponential(config)).to(torch.int32)


def _gated(x: Tensor, gate: Gate, config: SpikeConfig) -> Tensor | None:
    curved, weighted = gate.curve is not None, gate is not SIGMOID
    if curved:
        table, unit, limit = _falls(gate, config), 1.0, CURVE_END
    else:
        table = whole_table(shift_exponential(config).table, x.device)
        unit, limit = gate.slope * natural_unit(config), OCTAVES
    one = 1 << config.fraction_bits
    words = (table.numel(), int(curved), int(weighted), config.fraction_bits, config.bits, config.working_bits)
    # Times 2^F is exact, so that one product does for the operator's two.
    unit = float(np.float32(unit)) * one
    return by_rows(gate_kernel, x, table, *words, unit, float(limit * one))


def silu(x: Tensor, *, config: SpikeConfig) -> Tensor | None:
    """`operators.silu`, bit for bit."""
    return _gated(x, SILU, config)


def gelu(x: Tensor, approximate: str = "none", *, config: SpikeConfig) -> Tensor | None:
    """`operators.gelu`, bit for bit."""
    return _gated(x, gelu_gate(approximate), config)


def sigmoid(x: Tensor, *, config: SpikeConfig) -> Tensor | None:
    """`operators.sigmoid`, bit for bit."""
    return _gated(x, SIGMOID, config)
