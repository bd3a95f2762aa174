"""Run a pipeline's neuron: how many spikes each number sends, times its threshold, element by element.

Integers below 2^53 are kept in doubles. A quotient a/b of integers that is no integer is at least 1/b away from every
integer, so where |a| + b < 2^53, the double nearest to it has the same floor.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from spikeplug.codes import power_of_two
from spikeplug.kernels.cpu.compile import kernel
from spikeplug.kernels.cpu.memory import add_at, borrowed, doubles, keep, leave, next_rows, reals, words
from spikeplug.kernels.cpu.rows import CHUNK, Settings, by_rows, own_places, rows_of
from spikeplug.kernels.cpu.verbs import compiled, floor, rint
from spikeplug.kernels.protocol import NO_AFFINE, Call, with_settings
from spikeplug.operators.linear.neuron import RECORD, beyond_event, neuron_of
from spikeplug.saturation import counter

#: Bits of the integers that doubles hold, and the largest exponent of a unit, either sign, that kernels scale by.
_BITS, _MOST_UNIT = 53, 500


class Words(NamedTuple):
    """Hold the 64-bit words of the kernel. Membranes and firing thresholds are doubled, and paced, as in closed form.

    thresholds  address of θ, 2^unit and 2^-unit of each channel, float64 (3, width)
    most        double: the largest magnitude that is received
    low, high   doubles: the least and the greatest sum of spikes
    bounded     1 for one neuron that sends spikes of both signs, else 0
    signed      1 if negative numbers may be sent, else 0
    pace        double: the factor of all membranes
    start       double: the membrane at first, in units of θ
    strict      double: what the membrane lacks at first, 1 if a neuron fires above its threshold only, else 0
    runs        address of the weight and the greatest sum of spikes of each run of time steps, float64 (count, 2)
    count       how many runs there are
    beyond      address of the count of numbers beyond the last level
    """

    thresholds: Any
    most: Any
    low: Any
    high: Any
    bounded: Any
    signed: Any
    pace: Any
    start: Any
    strict: Any
    runs: Any
    count: Any
    beyond: Any


AT = own_places(Words)


@compiled
def _receive(x, inverse, most, received):
    """Set `received` to x in units of 2^unit, rounded to nearest and held within ±most; NaN becomes 0."""
    for i in range(x.size):
        value = rint(min(max(np.float64(x[i]) * inverse[i], -most), most))
        received[i] = value if x[i] == x[i] else 0.0


@compiled
def _refused(received, theta, start):
    """Return whether a number is negative that no population sends, even after rounding."""
    least = 0.0
    for i in range(received.size):
        least = min(least, 2.0 * received[i] + start * theta[i])
    return least < 0.0


@compiled
def _beyond(received, theta, low, high):
    """Return how many numbers lie more than half a level beyond the least or the greatest sum of spikes."""
    found = np.int64(0)
    for i in range(received.size):
        twice = 2.0 * received[i]
        found += np.int64(twice > (2.0 * high + 1.0) * theta[i]) + np.int64(twice < (2.0 * low - 1.0) * theta[i])
    return found


@compiled
def _settle(received, theta, start, strict, low, high, spikes):
    """Set `spikes` to the sums of those of one neuron that sends both signs."""
    for i in range(received.size):
        membrane = 2.0 * received[i] + start * theta[i] - strict
        spikes[i] = min(max(floor(membrane / (2.0 * theta[i])), low), high)


@compiled
def _fire(received, theta, pace, start, strict, runs, left, spikes):
    """Set `spikes` to the sums of the spikes of all runs, with the sign of what was received. left: for membranes."""
    for i in range(received.size):
        left[i] = 2.0 * pace * abs(received[i]) + pace * start * theta[i] - strict
        spikes[i] = 0.0
    for run in range(runs.shape[0]):
        weight, most = runs[run, 0], runs[run, 1]
        if most == 1.0:
            for i in range(received.size):
                unit = 2.0 * pace * weight * theta[i]
                fires = left[i] >= unit
                left[i] -= unit if fires else 0.0
                spikes[i] += weight if fires else 0.0
        else:
            for i in range(received.size):
                unit = 2.0 * pace * weight * theta[i]
                sent = min(max(floor(left[i] / unit), 0.0), most)
                left[i] -= sent * unit
                spikes[i] += weight * sent
    for i in range(received.size):
        spikes[i] = -spikes[i] if received[i] < 0.0 else spikes[i]


@kernel
def neuron_kernel(address):
    """Compute each row; rows with negative numbers that no population sends are left to the closed form.

    address: of the arguments, a block of words (`memory.py`).
    """
    block = words(address)
    x, _, output = rows_of(block)
    width, numbers = x.shape[1], reals(block)
    table, runs = doubles(block[AT.thresholds], 3, width), doubles(block[AT.runs], block[AT.count], 2)
    most, low, high = numbers[AT.most], numbers[AT.low], numbers[AT.high]
    pace, start, strict = numbers[AT.pace], numbers[AT.start], numbers[AT.strict]
    owned = np.empty((3, CHUNK), np.float64)
    room = borrowed(owned)
    first, last = next_rows(block, 0)
    while first < last:
        beyond = 0
        for row in range(first, last):
            refused = False
            if not block[AT.signed]:
                for begin in range(0, width, CHUNK):
                    end = min(begin + CHUNK, width)
                    received = room[0, : end - begin]
                    _receive(x[row, begin:end], table[2, begin:end], most, received)
                    refused |= _refused(received, table[0, begin:end], start)
            if refused:
                leave(block, row)
                continue
            for begin in range(0, width, CHUNK):
                end = min(begin + CHUNK, width)
                size, theta = end - begin, table[0, begin:end]
                received, left, spikes = room[0, :size], room[1, :size], room[2, :size]
                _receive(x[row, begin:end], table[2, begin:end], most, received)
                beyond += _beyond(received, theta, low, high)
                if block[AT.bounded]:
                    _settle(received, theta, start, strict, low, high, spikes)
                else:
                    _fire(received, theta, pace, start, strict, runs, left, spikes)
                for i in range(size):
                    value = x[row, begin + i]
                    product = np.float32((spikes[i] * theta[i] + 0.0) * table[1, begin + i])
                    output[row, begin + i] = product if value == value else value
        add_at(block[AT.beyond], beyond)
        first, last = next_rows(block, last - first)
    keep(owned)


@lru_cache(maxsize=256)
def _own(kind: str) -> tuple[Any, ...]:
    """Return the words of a kind of neuron between the thresholds and the count of what lies beyond."""
    spec = neuron_of(kind)
    runs = torch.tensor([(weight, spec.levels * steps) for weight, steps in spec.runs], dtype=torch.float64)
    start = float(min(spec.weights)) if spec.rounds else 0.0
    levels = (float((1 << spec.bits) - 1), float(spec.lowest), float(spec.highest))
    signs = (int(spec.bounds is not None), int(spec.signed or spec.bounds is not None))
    return (*levels, *signs, float(spec.pace), start, float(spec.strict), runs, len(runs))


class Neuron:
    """Compute what the spikes of a neuron add up to, times its threshold."""

    def supports(self, call: Call) -> str | None:
        if call.weight is not None or call.bias is not None:
            return NO_AFFINE
        x, threshold, unit, kind = _given(call)
        spec = neuron_of(kind)
        if spec.width >= _BITS:
            return f"the membranes of {kind} have {spec.width} bits"
        for given in (threshold, unit):
            if given.dtype != torch.int32 or (given.dim() and given.shape != x.shape[-1:]):
                return "thresholds and units must be int32, () or (channels,)"
        if int(threshold.min()) < 1 or int(threshold.max()) >> spec.threshold_bits:
            return f"thresholds must lie in [1, 2^{spec.threshold_bits})"
        if int(unit.abs().max()) > _MOST_UNIT:
            return f"units lie beyond 2^±{_MOST_UNIT}"
        return None

    def run(self, call: Call) -> tuple[Tensor, Tensor | None]:
        x, threshold, unit, kind = _given(call)
        table = torch.empty(3, x.shape[-1], dtype=torch.float64)
        table[0], table[1] = threshold, power_of_two(unit, torch.float64)
        torch.reciprocal(table[1], out=table[2])
        with counter(beyond_event(call.operator), x.device) as beyond:
            return by_rows(neuron_kernel, x, Settings.of((table, *_own(kind), beyond)))


def _given(call: Call) -> tuple[Any, ...]:
    """Return x, threshold, unit and kind of a call."""
    return (*call.arguments[:3], *with_settings(call.arguments[3:], RECORD.settings))
