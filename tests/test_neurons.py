"""One LIF step, against the equation written with Python integers."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from spikeplug.neurons import Events, integrate, lif_step

value = st.integers(-(2**30), 2**30)


@given(value, value, st.integers(0, 2**30), st.integers(-8, 8), st.booleans())
def test_one_step(membrane: int, current: int, threshold: int, leak: int, enabled: bool) -> None:
    before = (membrane << leak if leak >= 0 else membrane >> -leak) + current
    fires = before >= threshold and enabled
    spikes, after = lif_step(
        torch.tensor([membrane]), torch.tensor([current]), threshold, Events(), leak=leak, enabled=enabled
    )
    assert spikes.tolist() == [fires]
    assert after.tolist() == [before - threshold if fires else before]


def test_events_are_counted() -> None:
    events = Events()
    lif_step(torch.zeros(4, dtype=torch.int64), torch.tensor([0, 1, 2, 3]), 2, events, fan_out=5)
    assert events == Events(spikes=2, synops=10, membrane_updates=4, compares=4)
    integrate(torch.zeros(3, dtype=torch.int64), 1, events)
    assert events.membrane_updates == 7
    assert (events + Events(steps=3)).steps == 3


def test_a_population_broadcasts() -> None:
    events = Events()
    spikes, _ = lif_step(
        torch.zeros(2, 3, dtype=torch.int64), torch.tensor([[2], [3]]), torch.tensor([1, 2, 3]), events
    )
    assert spikes.tolist() == [[True, True, False], [True, True, True]]
    assert events.membrane_updates == 6
