"""Energies: exactly linear in the counts, exactly the sum of their parts, and those of hand-computed cases."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import tiny_model

import spikeplug
from spikeplug import Events, SpikeplugError, functional
from spikeplug.hardware import energy, table_names
from spikeplug.hardware.pricing import joules
from spikeplug.neurons import COUNTS, Population

COUNT = st.integers(0, 10**12)


@st.composite
def populations(draw) -> list[Population]:
    """A few populations with any counts; driven updates are at most all updates."""
    found = []
    for number in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["input", "threshold", "accumulator", "table"]))
        counts = {name: draw(COUNT) for name in COUNTS}
        counts["driven_updates"] = min(counts["driven_updates"], counts["membrane_updates"])
        counts["spikes"] += 1  # some event, so that there is something to price
        width, neurons = draw(st.integers(1, 64)), draw(st.integers(1, 10**6))
        found.append(Population(f"op/{number}", kind, width, neurons, **counts))
    return found


def events_of(*found: Population) -> Events:
    return Events(populations={population.name: population for population in found})


def times(factor: int, found: Population) -> Population:
    values = found.to_dict() | {name: factor * getattr(found, name) for name in COUNTS}
    return Population(**values)


@pytest.mark.parametrize("name", table_names())
@given(found=populations(), factor=st.integers(1, 1000))
def test_energy_is_linear_in_the_counts(name: str, found: list[Population], factor: int) -> None:
    one = energy(events_of(*found), name)
    many = energy(events_of(*(times(factor, population) for population in found)), name)
    assert many.priced == factor * one.priced
    assert many.unpriced == {term: factor * count for term, count in one.unpriced.items()}
    assert many.steps == factor * one.steps


@pytest.mark.parametrize("name", table_names())
@given(found=populations())
def test_the_total_is_the_sum_over_populations_and_over_terms(name: str, found: list[Population]) -> None:
    together = energy(events_of(*found), name)
    apart = [energy(events_of(population), name) for population in found]
    assert together.priced == sum((one.priced for one in apart), Fraction())
    assert together.priced == sum(together.terms.values()) == sum(together.by("population").values())


SIMPLE = Population("op", "threshold", 24, 10, spikes=7, synops=100, membrane_updates=22, driven_updates=12, compares=5)


@pytest.mark.parametrize(
    ("name", "pj"),
    [
        ("loihi1-davies", 100 * 23.6 + 12 * 81 + 10 * 52 + 7 * 1.7),
        ("loihi1-sanafe", 22 * 72.8 + 7 * 69.3 + 7 * 111 + 100 * 35.5),
        ("truenorth", 100 * 26),
        ("odin", 100 * 12.7),
        ("tianjic", 100 * 1.54),
        # Weights: 100 reads of 8 bits; membranes of one word: 2 accesses per operation and update; 7 events.
        ("digital45", 100 * 0.1 + 5 * 0.1 + 100 * 10 / 4 + 2 * (100 + 22) * 10 + 2 * 7 * 10),
    ],
)
def test_a_case_computed_by_hand(name: str, pj: float) -> None:
    found = energy(events_of(SIMPLE), name)
    assert found.total == Fraction(f"{pj:.6f}")
    assert found.joules == pytest.approx(pj * 1e-12, rel=1e-12)


def test_memory_has_the_price_of_the_size_that_holds_the_population() -> None:
    # 1,024 inputs of fan-out 528 read weights of 528 KiB: half-way between 32 and 1,024 KiB.
    inputs = Population("op/operand", "input", 1, 1024, spikes=10, synops=5280)
    sums = Population("op", "accumulator", 40, 2560, membrane_updates=50)  # two words each: 20 KiB, half-way
    terms = energy(events_of(inputs, sums), "digital45").terms
    assert terms["weight traffic"] == Fraction(5280, 4) * 60
    assert terms["membrane traffic"] == 2 * (5280 + 50) * 2 * 15
    assert terms["event traffic"] == 2 * 10 * 10
    assert energy(events_of(inputs, sums)).moved == 5280 + 4 * 2 * 2 * (5280 + 50) + 4 * 2 * 10


@pytest.mark.parametrize(("steps", "spikes", "nanojoules"), [(22, 7, "3.11 nJ"), (24, 8, "3.47 nJ")])
def test_sana_fes_closed_form(steps: int, spikes: int, nanojoules: str) -> None:
    """200 / 201 on 8 bits: a restoring neuron and its read-out, as SANA-FE 2.2.9 simulated them on one core."""
    counts = {"spikes": spikes, "synops": spikes, "membrane_updates": steps, "driven_updates": spikes}
    found = energy(events_of(Population("divide", "threshold", 10, 1, **counts)), "loihi1-sanafe")
    closed = Fraction("72.8") * steps + (Fraction("69.3") + 111 + Fraction("35.5")) * spikes
    assert found.total == closed
    assert joules(found.total) == nanojoules


def test_hops_are_priced_where_a_marginal_table_has_a_price() -> None:
    assert energy(events_of(SIMPLE), hops=3).total - energy(events_of(SIMPLE)).total == 7 * 3 * 4
    assert energy(events_of(SIMPLE), "truenorth", hops=3).total == energy(events_of(SIMPLE), "truenorth").total
    assert energy(events_of(SIMPLE), "loihi1-sanafe", hops=3).unpriced == {"hops": 21}


def test_a_counted_term_without_a_price_refuses_the_total() -> None:
    found = energy(events_of(SIMPLE), "darwin3")
    assert found.terms == {"synops": 547}
    assert found.priced == 547
    assert set(found.unpriced) == {"spikes", "messages", "driven_updates", "idle_updates", "compares"}
    for total in (lambda: found.total, lambda: found.joules):
        with pytest.raises(SpikeplugError, match=r"no total by darwin3: it has no price for spikes \(7\), messages"):
            total()
    assert found.to_dict()["total"] is None
    assert "refused" in _shown(found)
    assert "unpriced" in _shown(found)


def test_loihis_second_table_is_shown_beside_the_first() -> None:
    found = energy(events_of(SIMPLE))
    assert [one.table.name for one in (found, *found.beside)] == ["loihi1-davies", "loihi1-sanafe"]
    assert str(found).count("Loihi 1") == 2
    assert "Loihi 1, regressed" in _shown(found)


def test_the_least_latency_is_that_of_the_steps_one_after_the_other() -> None:
    steps = Population("op", "accumulator", 8, 1, membrane_updates=10, steps=10)
    assert energy(events_of(steps), "truenorth").seconds == pytest.approx(10e-3)
    assert energy(events_of(steps), "odin").seconds is None


@torch.inference_mode()
def test_a_model_is_priced_by_module_operator_and_population() -> None:
    model = tiny_model()
    spikeplug.convert(model)
    with spikeplug.count(model) as counted:
        model(torch.arange(8)[None])
    found = spikeplug.energy(counted, table="loihi1-sanafe")
    assert set(found.by("operator")) == {"attention", "silu", "rms_norm", "cos", "sin"}
    assert "model.layers.1.mlp.act_fn" in found.by("path")
    assert "silu/divide" in found.by("population")
    for key in ("operator", "path", "population"):
        assert sum(found.by(key).values()) == found.total
    assert found.total == energy(counted.total, "loihi1-sanafe").total


def test_an_operator_is_priced_by_what_it_counted() -> None:
    events = Events()
    functional.softmax(torch.randn(2, 8), events=events)
    assert 0 < spikeplug.energy(events).total < spikeplug.energy(events, table="loihi1-sanafe").total


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(SpikeplugError, match="no events were counted"):
        energy(Events())
    with pytest.raises(SpikeplugError, match="energy takes events, not a Linear: count them"):
        energy(torch.nn.Linear(2, 2))  # type: ignore[arg-type]
    with pytest.raises(SpikeplugError, match="hops is -1: give a whole number"):
        energy(events_of(SIMPLE), hops=-1)
    with pytest.raises(SpikeplugError, match=r"table is 3: give one of darwin3"):
        energy(events_of(SIMPLE), 3)  # type: ignore[arg-type]
    with pytest.raises(SpikeplugError, match="is not converted"), spikeplug.count(torch.nn.Linear(2, 2)):
        pass


def _shown(found) -> str:
    from rich.console import Console

    console = Console(width=160)
    with console.capture() as capture:
        console.print(found.rich_table())
    return capture.get()
