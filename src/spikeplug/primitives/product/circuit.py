"""Build products by gating: a phase-coded spike train opens the synapse of the other operand, bit by bit."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.circuit import Place, StageBuilder, Traced, held, numbers_of
from spikeplug.errors import SpikeplugError
from spikeplug.realisation import Schedule


def gate(spikes: Tensor, value: Tensor, bits: int, scope: Place) -> Tensor:
    """Return spikes · value, elementwise, int64, for integers 0 <= spikes < 2^bits."""
    if bits == 0:
        return torch.zeros(torch.broadcast_shapes(spikes.shape, value.shape), dtype=torch.int64)
    return scope.each(lambda stage, spikes, value: multiplied(stage, spikes, value, bits), spikes, value)


def multiplied(stage: StageBuilder, spikes: int, value: int, bits: int) -> int:
    """Return the signal of spikes · value, for signals of which the first lies in [0, 2^bits)."""
    builder = stage.builder
    (low, high), (lowest, highest) = builder.bounds(spikes), builder.bounds(value)
    ends = [a * b for a in (low, high) for b in (lowest, highest)]
    product = stage.neuron("", "accumulator", bits + max(-lowest, highest).bit_length() + 1, leak=1)
    stage.synapse(product, held(value), stage.train("operand", spikes, "bits", bits))
    return stage.settled(product, bits, min(ends), max(ends))


def accumulate(weight: Tensor, bits: int, scope: Place) -> Tensor:
    """Return the sum along the last dimension, kept with size 1, int64, for integers 0 <= weight < 2^bits."""

    def build(stage: StageBuilder, row: list[int]) -> int:
        total = stage.neuron("", "accumulator", bits + max(1, len(row)).bit_length() + 1, leak=1)
        for number in row:
            stage.synapse(total, 1, stage.train("operand", number, "bits", bits))
        low, high = (sum(ends) for ends in zip(*map(scope.bounds, row), strict=True))
        return stage.settled(total, bits, low, high)

    return scope.rows(build, weight, dtype=torch.int64)


def dot(weight: Tensor, value: Tensor, bits: int, scope: Place) -> Tensor:
    """Return weight (..., m, k) @ value (..., k, n), int64, for integers 0 <= weight < 2^bits sent bit by bit."""
    return signed_dot(weight, value, bits, scope)


def signed_dot(
    a: Tensor, b: Tensor, bits: int, scope: Place, schedule: Schedule = "bits", constant: bool = False
) -> Tensor:
    """Return a (..., m, k) @ b (..., k, n), int64, for integers |a| < 2^bits.

    Each row of a drives a neuron per column of b, by spikes of a's sign through synapses of weight b.
    constant: whether b holds constants, which it tells by itself.
    Errors: SpikeplugError for another schedule than bits.
    """
    if schedule != "bits":
        raise SpikeplugError(f"a circuit sends levels bit by bit, not as {schedule!r}: use schedule='bits'.")
    builder = scope.builder
    rows, columns = numbers_of(a, builder), numbers_of(b, builder)
    batch = torch.broadcast_shapes(rows.shape[:-2], columns.shape[:-2])
    rows, columns = rows.expand(*batch, *rows.shape[-2:]), columns.expand(*batch, *columns.shape[-2:])
    flat_rows, flat_columns = rows.reshape(-1, *rows.shape[-2:]), columns.reshape(-1, *columns.shape[-2:])
    found = [
        [[_dotted(scope.stage(), row, column, bits) for column in zip(*matrix, strict=True)] for row in left]
        for left, matrix in zip(flat_rows.tolist(), flat_columns.tolist(), strict=True)
    ]
    shape = (*batch, rows.shape[-2], columns.shape[-1])
    return Traced(torch.tensor(found, dtype=torch.int64).view(shape), builder, torch.int64)


def _dotted(stage: StageBuilder, row: list[int], column: tuple[int, ...], bits: int) -> int:
    bounds = stage.builder.bounds
    value_bits = max((max(-low, high).bit_length() for low, high in map(bounds, column)), default=0)
    total = stage.neuron("", "accumulator", bits + value_bits + max(1, len(row)).bit_length() + 1, leak=1)
    low = high = 0
    for a, b in zip(row, column, strict=True):
        weight = bounds(b)[0] if bounds(b)[0] == bounds(b)[1] else held(b)
        stage.synapse(total, weight, stage.train("operand", a, "bits", bits))
        ends = [x * y for x in bounds(a) for y in bounds(b)]
        low, high = low + min(ends), high + max(ends)
    return stage.settled(total, bits, low, high)
