"""Run gated inputs x·σ(g(x)), and the sigmoid itself: encode, open the gate, divide, in passes over a row in cache."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from spikeplug.codes import natural_unit
from spikeplug.codes.elements import OCTAVES
from spikeplug.kernels.cpu.compile import kernel
from spikeplug.kernels.cpu.memory import floats, integers, leave, next_rows, reals, words
from spikeplug.kernels.cpu.rows import CHUNK, ROWS, Settings, by_rows, own_places, rows_of
from spikeplug.kernels.cpu.verbs import (
    INFINITE,
    MAGNITUDE,
    absolute,
    as_double,
    as_float,
    as_integer,
    bit_length,
    compiled,
    decode,
    fetch,
    inlined,
    look_up,
    power_of_two,
    rint,
    scale_exponent,
    shift_left,
    shift_right,
    shifted_product,
    with_sign,
)
from spikeplug.kernels.protocol import Call
from spikeplug.numerics import Numerics
from spikeplug.operators.gates.gate import CURVE_END, Gate, curve_table
from spikeplug.operators.gates.gelu import gelu_gate
from spikeplug.operators.softmax.weights import shift_exponential
from spikeplug.primitives.exponential import power_of_half
from spikeplug.primitives.interpolation import interpolate, whole_table


@compiled
def extremes(bits):
    """Return (largest |x|, largest x) of a float32 row x, both as int32 bit patterns.

    bits: the row's memory as int32. If all of x is negative, the second is negative and says no more than that.
    """
    magnitude, largest = np.int32(0), np.int32(-MAGNITUDE)
    for i in range(bits.size):
        magnitude = np.int32(max(magnitude, np.int32(bits[i] & MAGNITUDE)))
        largest = np.int32(max(largest, bits[i]))
    return magnitude, largest


@compiled
def open_gates(x, indices, octaves, unit, limit, mask, places):
    """Split each gate's opening |g| = round(min(|x·unit|, limit)) into a table index and a shift.

    Sets indices (int32) to |g| & mask and octaves (int32) to |g| >> places. The opening is the gate's argument, as an
    integer.
    """
    for i in range(x.size):
        opening = np.int32(rint(min(abs(np.float32(x[i] * unit)), limit)))
        indices[i] = np.int32(opening & mask)
        octaves[i] = shift_right(opening, places)


@inlined
def amplitude_of(x, scale):
    """Return the integer that a gate multiplies: round(x·scale), or 1 for a scale of 0 (the sigmoid), int32."""
    return np.int32(rint(x * scale)) if scale > 0 else np.int32(1)


@compiled
def largest_share(x, falls, octaves, scale, one):
    """Return the largest |amplitude|·factor of a row, int64; amplitude = round(x·scale), or 1 for a scale of 0.

    The factor is `one` where x >= 0, else falls >> octaves, the mantissa of exp(-|g|) in units of 1/one.
    """
    largest = np.int64(0)
    for i in range(x.size):
        factor = np.float64(shift_right(falls[i], octaves[i]) if x[i] < 0 else one)
        # Below 2^48, hence exact; and a maximum of integers becomes a vector loop.
        largest = max(largest, as_integer(np.float64(absolute(amplitude_of(x[i], scale))) * factor))
    return np.int64(as_double(largest))


@compiled
def divide(x, falls, octaves, scale, one, lift, bits):
    """Divide each gate's numerator by 1 + t, t = exp(-|g|), and write the quotients over `falls`.

    The quotients are rounded to the bits of `Ratio.scaled`, and have the sign of x.

    x            float32, the values that are gated; times `scale`, the integer amplitudes
    falls        int32, the mantissas of t in units of 1/one; `octaves` is how far each is shifted right
    lift, bits   the numerator is |amplitude|·2^lift, times t where x < 0; the row's largest quotient has `bits` bits

    floor(2^(n+1)·A/B) with A < 2^P <= 2^24 and B = 1 + t <= 2^25 is estimated in float32: two operands and a quotient
    rounded are off by less than 3·2^-24 of 2^(n+1) <= 2^21, so the estimate, cut, by at most 1. The remainder
    A·2^(n+1) - q·B then lies in (-B, 2B), which 32 bits tell apart although its terms wrap around.
    """
    levels, more = np.float32(2 << bits), np.int32(bits + 1)
    up, down = np.int32(max(lift, 0)), np.int32(max(-lift, 0))
    for i in range(x.size):
        amplitude, fall = amplitude_of(x[i], scale), shift_right(falls[i], octaves[i])
        factor = fall if x[i] < 0 else one
        # What leaves 32 bits to the left has a factor of 0: the share itself would not fit.
        numerator = shifted_product(shift_left(absolute(amplitude), up), factor, down)
        denominator = np.int32(fall + one)
        quotient = np.int32(np.float32(numerator) * levels / np.float32(denominator))
        rest = np.int32(shift_left(numerator, more) - np.int32(quotient * denominator))
        quotient = np.int32(quotient + np.int32(rest >= denominator) - np.int32(rest < 0))
        falls[i] = with_sign(shift_right(np.int32(quotient + 1), np.int32(1)), amplitude)


@compiled
def multiply(x, weight):
    """Multiply x by a weight, in place."""
    for i in range(x.size):
        x[i] *= weight[i]


class Words(NamedTuple):
    """Hold the 64-bit words of the gate kernel, with t = exp(-|g|) for the gate's argument g.

    table     address of int32 values of t, or of mantissas that are shifted right by the opening >> places
    entries   length of the table
    weighted  whether the gate multiplies x, or 1 (the sigmoid)
    places    fraction bits of an opening: its low bits, which are the index into the table
    bits, working_bits  the fields of `Numerics` of the same names
    unit      a double: the opening, an integer that stands for |g|, is round(|x|·unit)
    limit     the largest opening, a double
    most      a bound on |x|·t, a double
    """

    table: Any
    entries: Any
    weighted: Any
    places: Any
    bits: Any
    working_bits: Any
    unit: Any
    limit: Any
    most: Any


AT = own_places(Words)


@kernel
def gate_kernel(address):
    """Compute x·σ(g(x)), or σ(g(x)), of each row, times a weight in the shape of x if there is one.

    address: of the arguments, a block of words (`memory.py`). Rows with NaN or infinities are left to the closed form.
    """
    block = words(address)
    x, codes, output = rows_of(block)
    count, channels = x.shape
    table, weighted = integers(block[AT.table], 1, block[AT.entries])[0], block[AT.weighted] != 0
    weight = floats(block[ROWS.weight], count, channels if block[ROWS.weight] else 0)
    places, bits, width = np.int32(block[AT.places]), block[AT.bits], block[AT.working_bits]
    unit, limit, most = np.float32(reals(block)[AT.unit]), np.float32(reals(block)[AT.limit]), reals(block)[AT.most]
    one, mask = np.int32(1 << width), np.int32((1 << block[AT.places]) - 1)
    indices, shifts = np.empty(CHUNK, np.int32), np.empty(CHUNK, np.int32)
    first, last = next_rows(block, 0)
    while first < last:
        for row in range(first, last):
            magnitude, largest = extremes(codes[row])
            if magnitude >= INFINITE:
                leave(block, row)
                continue
            exponent = np.int64(scale_exponent(magnitude, width)) if weighted else np.int64(0)
            scale = np.float32(power_of_two(max(-exponent, -126)) if weighted else 0.0)
            # A positive element lets all of itself through; where it exceeds what any negative one can, no share needs
            # to be computed.
            share = np.int64(amplitude_of(as_float(max(largest, np.int32(0))), scale)) << width
            if largest < 0 or np.float64(share) < (most * scale + 1) * one:
                share = np.int64(0)
                for start in range(0, channels, CHUNK):
                    end = min(start + CHUNK, channels)
                    falls, octaves = indices[: end - start], shifts[: end - start]
                    open_gates(x[row, start:end], falls, octaves, unit, limit, mask, places)
                    look_up(falls, table)
                    share = max(share, largest_share(x[row, start:end], falls, octaves, scale, one))
            lift = np.int64(width - bit_length(share))
            for start in range(0, channels, CHUNK):
                end = min(start + CHUNK, channels)
                falls, octaves, here = indices[: end - start], shifts[: end - start], x[row, start:end]
                if row + 1 < count:
                    fetch(x[row + 1, start:end])
                fetch(output[row, start:end])
                open_gates(here, falls, octaves, unit, limit, mask, places)
                look_up(falls, table)
                divide(here, falls, octaves, scale, one, lift, bits)
                decode(falls, output[row, start:end], exponent - lift - bits)
                if block[ROWS.weight]:
                    multiply(output[row, start:end], weight[row, start:end])
        first, last = next_rows(block, last - first)


@lru_cache(maxsize=64)
def _settings(gate: Gate, amplitude: bool, numerics: Numerics) -> Settings:
    """Return the kernel's words for a gate. amplitude: True to multiply x by the gate, False for the gate alone."""
    exponential, octave = shift_exponential(numerics), 1 << numerics.fraction_bits
    if gate.curve is None:
        table, places = whole_table(exponential.table, torch.device("cpu")), numerics.fraction_bits
        unit, end = gate.slope * natural_unit(numerics), OCTAVES
        openings = torch.arange(end * octave + 1)
        falls = table[openings & octave - 1] >> (openings >> places)
    else:
        unit, end, places = 1.0, CURVE_END, 31
        openings = torch.arange(end * octave + 1)
        curve = curve_table(gate, natural_unit(numerics), numerics.fraction_bits)
        falls = table = power_of_half(interpolate(openings.to(torch.int32), curve), exponential).to(torch.int32)
    # Times 2^F is exact, so that one product does for the operator's two.
    unit = float(np.float32(unit)) * octave
    return Settings.of(
        Words(
            table=table,
            entries=table.numel(),
            weighted=int(amplitude),
            places=places,
            bits=numerics.bits,
            working_bits=numerics.working_bits,
            unit=unit,
            limit=float(end * octave),
            # One more than the opening's rounding; at the end, whatever lies beyond, t is 0.
            most=float(((openings + 1).double() / unit * falls).max()) / (1 << numerics.working_bits),
        )
    )


class Gated:
    """Compute SiLU, sigmoid or GELU, times a weight in the shape of x if there is one.

    Rows with NaN or infinities are left to the closed form.
    """

    def __init__(self, gate: Gate | None, *, amplitude: bool = True) -> None:
        """Set the gate.

        gate: the gate, or None for GELU, whose second argument chooses it at each call.
        amplitude: True to multiply x by the gate (SiLU, GELU), False for the gate alone (sigmoid).
        """
        self._gate, self._amplitude = gate, amplitude

    def supports(self, call: Call) -> str | None:
        x, weight = call.arguments[0], call.weight
        if call.bias is not None:
            return "this kernel adds no bias"
        if weight is not None and not (weight.shape == x.shape and weight.dtype == x.dtype == torch.float32):
            return "this kernel multiplies only by a float32 tensor of the input's shape"
        return None

    def run(self, call: Call) -> tuple[Tensor, Tensor | None]:
        gate = self._gate or gelu_gate(call.arguments[1])
        return by_rows(gate_kernel, call.arguments[0], _settings(gate, self._amplitude, call.numerics), call.weight)
