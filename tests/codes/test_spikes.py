"""Spike codes are lossless, and what one cannot carry is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikeplug import codes
from spikeplug.errors import SpikeplugError


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_count_code_is_lossless(steps: int, levels: int, data: st.DataObject) -> None:
    values = torch.tensor(data.draw(st.lists(st.integers(0, steps * levels), min_size=1, max_size=5)))
    spikes = codes.count_code(values, steps, levels)
    assert spikes.shape == (steps, len(values))
    assert int(spikes.min()) >= 0
    assert int(spikes.max()) <= levels
    assert torch.equal(codes.count_decode(spikes), values)


@pytest.mark.parametrize("steps", [1, 8, 12])
def test_phase_code_is_lossless_for_every_value(steps: int) -> None:
    values = torch.arange(1 << steps)
    spikes = codes.phase_code(values, steps)
    assert spikes.shape == (steps, 1 << steps)
    assert set(spikes.unique().tolist()) <= {0, 1}
    assert torch.equal(codes.phase_decode(spikes), values)
    narrow = [step.clone() for step in codes.phases(values, steps, torch.int32)]
    assert all(step.dtype == torch.int32 for step in narrow)
    assert torch.equal(torch.stack(narrow), spikes)


def test_population_code_is_lossless_and_ordered() -> None:
    values = torch.arange(17)
    spikes = codes.population_code(values, 16)
    assert torch.equal(codes.population_decode(spikes), values)
    assert bool((spikes.diff(dim=0) <= 0).all()), "neuron i fires only if neuron i - 1 does"


@pytest.mark.parametrize(
    "call",
    [
        lambda: codes.count_code(torch.tensor([1]), 0, 4),
        lambda: codes.count_code(torch.tensor([1]), 4, -1),
        lambda: codes.count_code(torch.tensor([17]), 4, 4),
        lambda: codes.count_code(torch.tensor([0.5]), 4, 4),
        lambda: codes.phase_code(torch.tensor([8]), 3),
        lambda: codes.phase_code(torch.tensor([-1]), 3),
        lambda: codes.phase_code(torch.tensor([1]), 0),
        lambda: codes.population_code(torch.tensor([1]), 0),
        lambda: codes.population_code(torch.tensor([5]), 4),
    ],
)
def test_what_a_code_cannot_carry_is_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SpikeplugError):
        call()


@pytest.mark.parametrize("schedule", ["bits", "signed_digits", "count", "rate"])
@pytest.mark.parametrize("bits", [1, 4, 7, 8])
def test_every_schedule_sends_every_level(schedule: Any, bits: int) -> None:
    values = torch.arange(1 - (1 << bits), 1 << bits)
    membrane, before = torch.zeros_like(values), torch.zeros_like(values)
    for spikes, leak in codes.scheduled(values, bits, schedule):
        membrane = (membrane << leak) + spikes
        if schedule == "signed_digits":
            assert not bool((spikes * before).any())  # no two in a row
        assert int(spikes.abs().max()) <= (1 << bits // 2 if schedule == "count" else 1)
        before = spikes
    assert torch.equal(membrane, values)
