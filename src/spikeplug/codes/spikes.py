"""Turn integers into spikes and back: count (rate), phase (binary) and population codes of T steps and L levels.

Time is the first dimension.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from spikeplug.errors import SpikeplugError
from spikeplug.realisation import Schedule


def count_code(values: Tensor, steps: int, levels: int) -> Tensor:
    """Return the rate code of integers in [0, T·L]: spike counts (T, ...), each at most L, spread evenly over time.

    T is `steps`, L `levels`. Step t of the value q has floor((t+1)·q/T) - floor(t·q/T) spikes.
    Errors: SpikeplugError if T or L is below 1, or a value lies outside [0, T·L].
    """
    _check_positive(steps=steps, levels=levels)
    _check_values(values, steps * levels, f"T·L = {steps * levels}")
    return torch.stack(list(counts(values.to(torch.int64), steps)))


def counts(values: Tensor, steps: int) -> Iterator[Tensor]:
    """Yield the spikes of integers >= 0 spread evenly over `steps` time steps, one tensor in the values' dtype each."""
    before = torch.zeros_like(values)
    for time in range(1, steps + 1):
        sent = time * values // steps
        yield sent - before
        before = sent


def count_decode(spikes: Tensor) -> Tensor:
    """Return the integers that a count code (T, ...) carries: the sum of its spikes over time, the first dimension."""
    return spikes.sum(0)


def phase_code(values: Tensor, steps: int) -> Tensor:
    """Return the binary code of integers in [0, 2^steps): bits (steps, ...), most significant first.

    Errors: SpikeplugError if steps < 1 or a value is out of range.
    """
    return torch.stack([bit.clone() for bit in phases(values, steps)])


def phases(values: Tensor, steps: int, dtype: torch.dtype | None = None) -> Iterator[Tensor]:
    """Yield the bits of integers in [0, 2^steps), the most significant first: one tensor of 0 and 1 per time step.

    Each tensor has the shape of `values`. The next step overwrites it; copy it to keep it.
    dtype: the dtype of these tensors, wide enough for the values; default: that of `values`.
    """
    _check_positive(steps=steps)
    _check_values(values, (1 << steps) - 1, f"2^T - 1 = {(1 << steps) - 1}")
    values = values if dtype is None else values.to(dtype)
    bit = torch.empty_like(values)
    for place in range(steps - 1, -1, -1):
        yield torch.bitwise_right_shift(values, place, out=bit).bitwise_and_(1)


def scheduled(values: Tensor, bits: int, schedule: Schedule) -> Iterator[tuple[Tensor, int]]:
    """Yield the spikes of integers |value| < 2^bits, step by step: (spikes, leak), signed, in the values' dtype.

    The receiver scales its membrane by 2^leak before it adds the spikes; after all steps it holds the values.
    schedule: see `Realisation`. A negative spike is one of a second population.
    """
    size, sign = values.abs(), values.sign()
    if schedule == "bits":
        for place in range(bits - 1, -1, -1):
            yield (size >> place & 1) * sign, 1
    elif schedule == "signed_digits":
        # Non-adjacent form: the digits of 3·size that size does not have, less those of size that 3·size does not have.
        plus, minus = (3 * size & ~size) >> 1, (size & ~(3 * size)) >> 1
        for place in range(bits, -1, -1):
            yield ((plus >> place & 1) - (minus >> place & 1)) * sign, 1
    else:
        steps = 1 << (bits if schedule == "rate" else (bits + 1) // 2)
        for spikes in counts(size, steps):
            yield spikes * sign, 0


def phase_decode(spikes: Tensor) -> Tensor:
    """Return the integers, int64, that a phase code (T, ...) of 0 and 1 carries as bits, the most significant first."""
    total = torch.zeros_like(spikes[0], dtype=torch.int64)
    for spike in spikes:
        total = 2 * total + spike
    return total


def population_code(values: Tensor, neurons: int) -> Tensor:
    """Return the thermometer code of integers in [0, neurons]: 0 and 1, of shape (neurons, ...).

    For a value q, the first q neurons fire. Errors: SpikeplugError for a value out of range, and for neurons < 1.
    """
    _check_positive(neurons=neurons)
    _check_values(values, neurons, f"N = {neurons}")
    order = torch.arange(1, neurons + 1, device=values.device).view(-1, *[1] * values.dim())
    return (values >= order).to(torch.int64)


def population_decode(spikes: Tensor) -> Tensor:
    """Return the integers that a thermometer code (neurons, ...) carries: how many neurons fire for each value."""
    return spikes.sum(0)


def _check_positive(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise SpikeplugError(f"{name} is {count}; it must be at least 1.")


def _check_values(values: Tensor, high: int, name: str) -> None:
    if values.dtype.is_floating_point:
        raise SpikeplugError(f"a spike code carries integers, not {values.dtype}; encode the values first.")
    if values.numel() and (int(values.min()) < 0 or int(values.max()) > high):
        raise SpikeplugError(f"a value lies outside [0, {name}]; use more steps or levels, or saturate first.")
