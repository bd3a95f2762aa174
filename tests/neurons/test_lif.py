"""One LIF step, against the equation written with Python integers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from spikeplug.neurons import Events, Population, Scope, blocks, integrate, lif, lif_step, row_blocks, ternary_step

value = st.integers(-(2**30), 2**30)


def scope(events: Events | None = None) -> Scope:
    return Scope(Events() if events is None else events, "test")


@given(value, value, st.integers(0, 2**30), st.integers(-8, 8), st.booleans(), st.booleans())
def test_one_step(membrane: int, current: int, threshold: int, leak: int, enabled: bool, constant: bool) -> None:
    before = (membrane << leak if leak >= 0 else membrane >> -leak) + current
    fires = before >= threshold and enabled
    given = threshold if constant else torch.tensor([threshold])
    spikes, after = lif_step(
        torch.tensor([membrane]), torch.tensor([current]), given, scope(), leak=leak, enabled=enabled
    )
    assert spikes.tolist() == [fires]
    assert after.tolist() == [before - threshold if fires else before]


@given(value, value, st.integers(1, 2**20), st.integers(1, 9), st.booleans())
def test_neurons_that_share_a_membrane(membrane: int, current: int, threshold: int, levels: int, enabled: bool) -> None:
    before, events = membrane + current, Events()
    fired = sum(before >= neuron * threshold for neuron in range(1, levels + 1)) * enabled
    seen: list[tuple[list[int], list[bool]]] = []
    watched = Events(observer=lambda population, v, spikes: seen.append((v.tolist()[0], spikes.tolist()[0])))
    for each in (events, watched):
        spikes, after = lif_step(
            torch.tensor([membrane]), torch.tensor([current]), threshold, scope(each), levels=levels, enabled=enabled
        )
        assert spikes.tolist() == [fired]
        assert after.tolist() == [before - fired * threshold]
    first = [neuron < fired for neuron in range(levels)]
    assert seen == [(before, first[0])] if levels == 1 else [([before] * levels, first)]
    assert events.totals() == watched.totals()
    assert (events.spikes, events.membrane_updates, events.compares) == (fired, levels, levels)
    assert events.driven_updates == (levels if current else 0)


@given(value, value, st.integers(1, 2**30), st.booleans(), st.booleans())
def test_spikes_of_both_signs(membrane: int, current: int, threshold: int, rising: bool, falling: bool) -> None:
    before, events = membrane + current, Events()
    spike = 1 if before >= threshold and rising else -1 if before < 0 and falling else 0
    spikes, after = ternary_step(
        torch.tensor([membrane]),
        torch.tensor([current]),
        threshold,
        scope(events),
        rising=torch.tensor([rising]),
        falling=torch.tensor([falling]),
    )
    assert spikes.tolist() == [spike]
    assert after.tolist() == [before - spike * threshold]
    assert (events.spikes, events.membrane_updates, events.compares) == (abs(spike), 1, 2)
    assert events.driven_updates == (current != 0)


@given(value, value, st.sampled_from([-1, 1]), st.booleans())
def test_only_neurons_that_leak_do(membrane: int, current: int, leak: int, leaking: bool) -> None:
    leaked = (membrane << 1 if leak == 1 else membrane >> 1) if leaking else membrane
    found = integrate(
        torch.tensor([membrane]), torch.tensor([current]), scope(), leak=leak, leaking=torch.tensor([int(leaking)])
    )
    assert found.tolist() == [leaked + current]


def test_events_are_counted_by_population() -> None:
    events = Events()
    neurons, sums = scope(events) / "neurons", scope(events) / "sums"
    lif_step(torch.zeros(4, dtype=torch.int64), torch.tensor([0, 1, 2, 3]), 2, neurons, fan_out=5)
    counts = {"spikes": 2, "synops": 10, "membrane_updates": 4, "driven_updates": 3, "compares": 4}
    assert events.populations == {"test/neurons": Population("test/neurons", "threshold", **counts)}
    integrate(torch.zeros(3, dtype=torch.int64), 1, sums)
    assert events.populations["test/sums"] == Population("test/sums", "accumulator", membrane_updates=3)
    assert (events.membrane_updates, events.driven_updates, events.idle_updates) == (7, 3, 4)


def test_an_update_is_driven_where_an_input_arrives() -> None:
    """A current drives where it is not 0, and a bias nowhere; inputs that cancel are counted by the caller."""
    events, membrane = Events(), torch.zeros(2, 3, dtype=torch.int64)
    for current, driven in ((torch.tensor([[0], [-4]]), 3), (torch.tensor([5, 0, 0]), 2), (7, 0), (torch.tensor(0), 0)):
        before = events.driven_updates
        integrate(membrane, current, scope(events) / "sums")
        lif_step(membrane, current, 2, scope(events) / "neurons")
        assert events.driven_updates - before == 2 * driven
    integrate(membrane, torch.zeros_like(membrane), scope(events) / "sums", driven=6)
    assert events.populations["test/sums"].driven_updates == 5 + 6
    assert events.populations["test/sums"].idle_updates == 5 * 6 - 11


def test_a_population_broadcasts() -> None:
    events = Events()
    spikes, _ = lif_step(
        torch.zeros(2, 3, dtype=torch.int64), torch.tensor([[2], [3]]), torch.tensor([1, 2, 3]), scope(events)
    )
    assert spikes.tolist() == [[True, True, False], [True, True, True]]
    assert events.membrane_updates == 6


def test_an_observer_sees_membranes_before_the_reset() -> None:
    seen: list[tuple[str, list[int], list[bool] | None]] = []

    def watch(population: Population, membrane: Tensor, spikes: Tensor | None) -> None:
        seen.append((population.name, membrane.tolist(), None if spikes is None else spikes.tolist()))

    events = Events(observer=watch)
    lif_step(torch.tensor([1, 5]), 2, 4, scope(events) / "a", leak=1)
    integrate(torch.tensor([3]), 1, scope(events) / "b", leak=-1)
    assert seen == [("test/a", [4, 12], [True, True]), ("test/b", [2], None)]


@pytest.mark.parametrize("watched", [False, True])
def test_blocks_are_views_of_all_neurons(watched: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lif, "_BLOCK", 7)
    events = Events(observer=(lambda *step: None) if watched else None)
    x, target = torch.arange(30).view(5, 6), torch.zeros(5, 6, dtype=torch.int64)
    parts = [part for part, into in blocks(scope(events), x, target) for part in [part, into.copy_(part)][:1]]
    assert torch.equal(target, x)
    assert len(parts) == (1 if watched else 5)
    largest = torch.zeros(5, 1, dtype=torch.int64)
    rows = [row for row, _ in row_blocks(scope(events), x, largest)]
    assert [row.shape[-1] for row in rows] == [6] * (1 if watched else 5), "no row is cut"
