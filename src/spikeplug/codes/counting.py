"""Count the spikes of codes without sending them: how many there are, and in how many time steps one is sent."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from spikeplug.realisation import Schedule

#: Bytes of the steps of many values that are held at once.
_BYTES = 1 << 22


def ones(x: Tensor) -> int:
    """Return the spikes of the phase codes of all |x|, integers: how many of their binary digits are 1."""
    return _ones(_array(x))


def steps_of_any(x: Tensor) -> int:
    """Return in how many steps of the phase codes of |x| (..., k) any of the k elements sends, summed over the rest."""
    return _ones(np.bitwise_or.reduce(np.abs(_array(x)), axis=-1))


def spikes_of(x: Tensor, schedule: Schedule) -> int:
    """Return all the spikes, of both signs, that the integers x send in a schedule; see `Realisation`."""
    if schedule in ("bits", "signed_digits"):
        return ones(x if schedule == "bits" else signed_digits(x))
    return int(x.abs().sum())  # a value is the number of its spikes


def steps_of_any_in(x: Tensor, bits: int, schedule: Schedule) -> int:
    """Return in how many time steps any of the k elements of x (..., k), |x| < 2^bits, sends, summed over the rest."""
    if schedule in ("bits", "signed_digits"):
        return steps_of_any(x if schedule == "bits" else signed_digits(x))
    return steps_of_any_count(x.abs(), time_steps(bits, schedule))


def time_steps(bits: int, schedule: Schedule) -> int:
    """Return the time steps in which a level of `bits` bits is sent."""
    if schedule in ("bits", "signed_digits"):
        return bits if schedule == "bits" else bits + 1
    return 1 << (bits if schedule == "rate" else (bits + 1) // 2)


def signed_digits(x: Tensor) -> Tensor:
    """Return integers with a binary digit 1 where the non-adjacent form of x has 1 or -1, shifted by one place."""
    size = x.abs()
    tripled: Tensor = 3 * size
    return tripled.bitwise_xor(size) >> 1


def steps_of_any_count(values: Tensor, steps: int) -> int:
    """Return in how many of `steps` steps any of the k counts (..., k) >= 0 sends, summed over the rest.

    A count q >= steps sends in all steps, one below it in q steps: in t = 1, 2, ... if t·q mod steps < q.
    """
    if not values.numel():
        return 0
    counts = _array(values).reshape(-1, values.shape[-1])
    largest, total = counts.max(-1), counts.sum(-1)
    full, alone = largest >= steps, largest == total
    several = ~(full | alone)
    found = int(full.sum()) * steps + int(largest[alone & ~full].sum())
    rows = counts[several]
    size = max(1, _BYTES // (rows.shape[-1] * -(-steps // 8)))
    return found + sum(_steps_of_any(rows[start : start + size], steps) for start in range(0, len(rows), size))


def _steps_of_any(rows: NDArray[np.int64], steps: int) -> int:
    """Return in how many steps any count of a row, all below `steps`, sends, summed over the rows (n, k)."""
    present = np.bincount(rows.ravel(), minlength=1) > 0
    table = np.stack([_steps_of(int(count), steps) for count in np.flatnonzero(present)])
    place = np.cumsum(present) - 1
    return _ones(np.bitwise_or.reduce(table[place[rows]], axis=-2))


@lru_cache(maxsize=4096)
def _steps_of(count: int, steps: int) -> NDArray[np.uint8]:
    """Return the steps in which a count below `steps` sends, a bit per step."""
    return np.packbits(np.arange(1, steps + 1) * count % steps < count)


def _ones(array: NDArray[np.integer]) -> int:
    # A 32-bit sum takes less than half of the time of a 64-bit one; no count exceeds 64.
    return int(np.bitwise_count(array).sum(dtype=np.uint32 if array.size < 1 << 26 else np.int64))


def _array(x: Tensor) -> NDArray[np.int64]:
    array: NDArray[np.int64] = x.numpy(force=True)
    return array
