"""Events are kept by named population; sums and JSON are those of the populations."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikeplug.errors import SpikeplugError
from spikeplug.neurons import COUNTS, Events, Population, Scope, total
from spikeplug.presets import PRESETS
from spikeplug.realisation import Realisation

counts = st.dictionaries(st.sampled_from(COUNTS), st.integers(0, 10**12))


def events(**populations: dict[str, int]) -> Events:
    found = Events()
    for name, values in populations.items():
        population = found.population(name, "threshold", width=values.pop("width", 3), neurons=values.pop("neurons", 2))
        for count, value in values.items():
            setattr(population, count, value)
    return found


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "c"]), counts), max_size=4))
def test_sums_are_population_by_population(calls: list[dict[str, dict[str, int]]]) -> None:
    parts = [events(**{name: dict(values) for name, values in call.items()}) for call in calls]
    found = total(parts)
    assert set(found.populations) == {name for call in calls for name in call}
    for count in COUNTS:
        assert getattr(found, count) == sum(values.get(count, 0) for call in calls for values in call.values())
        assert found.totals()[count] == getattr(found, count)
    for name, population in found.populations.items():
        for count in COUNTS:
            assert getattr(population, count) == sum(call.get(name, {}).get(count, 0) for call in calls)


def test_widths_and_neurons_are_the_most_of_any_call() -> None:
    first, second = events(a={"width": 5, "neurons": 1, "spikes": 1}), events(a={"width": 4, "neurons": 9, "spikes": 2})
    both = first + second
    assert both.populations["a"] == Population("a", "threshold", width=5, neurons=9, spikes=3)
    assert first.populations["a"].spikes == 1, "sums are new"
    first.add(second)
    assert first == both


def test_a_population_exists_from_its_first_mention_on() -> None:
    found = Events()
    scope = Scope(found, "softmax") / "divide" / "quotient"
    population = scope.population("accumulator", 7, 3)
    assert scope.population("accumulator") is population
    assert found.populations == {"softmax/divide/quotient": population}
    assert (population.name, population.kind, population.width, population.neurons) == (
        "softmax/divide/quotient",
        "accumulator",
        7,
        3,
    )


def test_spikes_are_delivered_to_their_fan_out() -> None:
    population = Population("a", "input")
    population.send(torch.tensor([0, 3, 4]), 5)
    population.send(torch.tensor([True, False, True]).to(torch.int32), graded=False)
    assert (population.spikes, population.synops) == (9, 37)
    population.send(torch.full((3,), 2**31 - 1, dtype=torch.int32))
    assert population.spikes == 9 + 3 * (2**31 - 1), "graded spikes are summed in 64 bits"


def test_events_as_json_and_as_words() -> None:
    found = events(a={"spikes": 1234, "synops": 2}, b={"steps": 5})
    values = json.loads(json.dumps(found.to_dict()))
    assert {name: values[name] for name in COUNTS} == found.totals()
    assert [Population(**each) for each in values["populations"]] == list(found.populations.values())
    assert (
        str(found) == "1,234 spikes, 2 synops, 0 membrane updates, 0 driven updates, 0 compares, 5 steps, 0 table reads"
    )
    assert Events().totals() == dict.fromkeys(COUNTS, 0)


def test_a_sum_keeps_the_realisation() -> None:
    realisation = Realisation(division="ordered")
    assert (Events(realisation) + Events()).realisation == realisation


def test_a_realisation_by_name() -> None:
    assert Events("paper").realisation == PRESETS["paper"].realisation  # type: ignore[arg-type]
    for other in ("papers", 3, [], float("nan")):
        with pytest.raises(SpikeplugError, match="preset"):
            Events(other)  # type: ignore[arg-type]


def test_an_observer_is_no_part_of_what_was_counted() -> None:
    assert Events(observer=print) == Events()
