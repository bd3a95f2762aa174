"""Contract: products and sums by gated, phase-coded spikes equal integer products and sums."""

from __future__ import annotations

import pytest
import torch
from adversarial import all_pairs, edge_pairs, integers
from primitives.cases import scope

from spikeplug.neurons import Events
from spikeplug.primitives import product
from spikeplug.primitives.product import simulate


def test_gate_of_all_pairs_at_8_bits() -> None:
    a, b = all_pairs(8)
    assert torch.equal(simulate.gate(a, b, 8, scope()), product.gate(a, b))
    assert torch.equal(simulate.gate(a, -b, 8, scope()), -(a * b))


def test_gate_of_wide_pairs() -> None:
    a, b = edge_pairs(110_000, 24, 30)
    assert torch.equal(simulate.gate(a, b, 24, scope()), product.gate(a, b))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 2), (4, 123, 7), (2, 0, 3), (0, 4, 3)])
def test_dot(shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    weight = integers(2 * m * k, 22).view(2, m, k)
    value = (integers(2 * k * n, 16, seed=3) - (1 << 15)).view(2, k, n)
    expected = weight @ value
    assert torch.equal(product.dot(weight, value, 22, 15), expected)
    assert torch.equal(simulate.dot(weight, value, 23, scope()), expected)
    assert torch.equal(simulate.accumulate(weight, 22, scope()), product.accumulate(weight))


def test_synops_are_spikes_times_fan_out() -> None:
    events = Events()
    simulate.dot(torch.tensor([[5, 3]]), torch.ones(2, 7, dtype=torch.int64), 3, scope(events))
    assert (events.spikes, events.synops, events.steps) == (4, 28, 3)  # 101b and 011b
