"""Contract: a prediction says of every population what its neurons need, and a simulation needs no more."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from primitives.cases import CASES, ORDERED, Case
from primitives.test_circuit import CASES as RECORDED
from primitives.test_circuit import recorded
from torch import Tensor

from spikeplug.circuit import Circuit, Constant, Held, Neuron, Stage
from spikeplug.neurons import Events, Needs, Scope, lif
from spikeplug.neurons.needs import LEAKS
from spikeplug.numerics import Numerics
from spikeplug.primitives.arithmetic import Arithmetic, Counted, Simulated
from spikeplug.primitives.compare import simulate as compare
from spikeplug.primitives.divide import DivideSpec
from spikeplug.primitives.divide import simulate as divide
from spikeplug.primitives.exponential import simulate as exponential
from spikeplug.primitives.interpolation import simulate as interpolation
from spikeplug.primitives.norm import simulate as norm
from spikeplug.primitives.product import simulate as product
from spikeplug.primitives.quantise import simulate as quantise
from spikeplug.primitives.relay import simulate as relay
from spikeplug.realisation import Realisation

MODULES: tuple[ModuleType, ...] = (compare, divide, exponential, interpolation, norm, product, quantise, relay)
OF_ORDER = Realisation(division="ordered", norm="ordered")
RUNS: dict[str, tuple[Case, Realisation | None]] = {name: (run, None) for name, run in CASES.items()}
RUNS |= {f"{name}, ordered": (run, OF_ORDER) for name, run in ORDERED.items()}
#: The populations that go on from what a spike leaves of their membrane.
SOFT_RESET = {"test/divide", "test/quantise", "test/root"}

#: Where a circuit has a synapse for each sign, or for each step, and a simulation one whose weight changes.
WRITTEN_OUT = {"test/table/chord", "test/exp/chord", "test/cordic/x", "test/cordic/y"}
#: A product whose constants are written down as data; a neuron of both signs made of several neurons.
OTHERWISE = ("signed_dot", "quantise, st_bif")


def predicted(run: Case, realisation: Realisation | None = None) -> Events:
    events = Events(realisation, predicted=True)
    run(Counted(Numerics(), "test", events))
    return events


@pytest.fixture
def stepped(monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, set[float]], dict[str, int]]:
    """Collect, by population, the leaks of all steps of a simulation, and the bits of the largest threshold."""
    leaks: dict[str, set[float]] = {}
    thresholds: dict[str, int] = {}

    def note(scope: Scope, leak: int, largest: int | None) -> None:
        leaks.setdefault(scope.name, set()).add(2.0**leak)
        if largest is not None:
            thresholds[scope.name] = max(thresholds.get(scope.name, 0), largest.bit_length())

    def integrate(membrane: Tensor, current: Any, scope: Scope, **how: Any) -> Tensor:
        note(scope, how.get("leak", 0), None)
        return lif.integrate(membrane, current, scope, **how)

    def lif_step(membrane: Tensor, current: Any, threshold: Any, scope: Scope, **how: Any) -> Any:
        largest = abs(threshold) if isinstance(threshold, int) else int(threshold.abs().max())
        note(scope, how.get("leak", 0), largest)
        return lif.lif_step(membrane, current, threshold, scope, **how)

    def ternary_step(membrane: Tensor, current: Any, threshold: Tensor, scope: Scope, **how: Any) -> Any:
        note(scope, 0, int(threshold.abs().max()))
        return lif.ternary_step(membrane, current, threshold, scope, **how)

    def population_step(current: Tensor, thresholds: Any, scope: Scope) -> Tensor:
        note(scope, 0, max(map(abs, thresholds)))
        return lif.population_step(current, thresholds, scope)

    for module in MODULES:
        for wrapped in (integrate, lif_step, ternary_step, population_step):
            if hasattr(module, wrapped.__name__):
                monkeypatch.setattr(module, wrapped.__name__, wrapped)
    return leaks, thresholds


@pytest.mark.parametrize("name", RUNS)
def test_every_population_says_what_it_needs_and_a_simulation_needs_no_more(
    name: str, stepped: tuple[dict[str, set[float]], dict[str, int]]
) -> None:
    run, realisation = RUNS[name]
    events = predicted(run, realisation)
    run(Simulated(Numerics(), "test", Events(realisation)))
    leaks, thresholds = stepped
    for population in events.populations.values():
        if population.kind not in ("threshold", "accumulator"):
            assert population.needs is None
            continue
        needs, where = population.needs, population.name
        assert needs is not None, where
        # A neuron that forgets is simulated as one that starts anew.
        seen = max(leaks[where], key=LEAKS.index)
        assert (needs.leak or 1.0) == seen, where
        assert (needs.threshold != "none") == (where in thresholds) == (population.kind == "threshold"), where
        assert thresholds.get(where, 0) <= needs.threshold_bits <= population.width, where
        assert needs.soft_reset == (where in SOFT_RESET and realisation is None), where


def constant(threshold: int | Held, circuit: Circuit) -> bool:
    """Return whether a summand of a threshold is a constant, written down or held."""
    if isinstance(threshold, int):
        return True
    return not threshold.state and isinstance(circuit.signals[threshold.source].node, Constant)


def kind(neuron: Neuron, circuit: Circuit) -> set[str]:
    if neuron.threshold is None:
        return {"none"}
    return {"constant"} if all(constant(each, circuit) for each in neuron.threshold) else {"operand", "moving"}


@pytest.mark.parametrize("name", [name for name in RECORDED if not name.startswith(OTHERWISE)])
def test_a_circuit_needs_no_more(name: str) -> None:
    """Populations that only circuits have are left out: they settle what a simulation leaves to its reader."""
    run, ports = RECORDED[name]
    circuit, events = recorded(run, ports), Events(predicted=True)
    operands = [torch.tensor([[high] * count, [low] * count]) for _, count, low, high in ports]
    run(Counted(Numerics(), "test", events), *operands)
    for stage in (signal.node for signal in circuit.signals if isinstance(signal.node, Stage)):
        for neuron in stage.neurons:
            found = events.populations.get(neuron.population)
            if found is None:
                continue
            needs, synapses = found.needs, [term for term in neuron.current if term.gates]
            assert needs is not None
            leak = 0.0 if neuron.leak is None else 2.0**neuron.leak
            assert leak == needs.leak or stage.steps == 1  # in one step, nothing is carried over
            assert needs.threshold in kind(neuron, circuit)
            weights = [term.weight for term in synapses if isinstance(term.weight, int)]
            assert max((abs(each).bit_length() for each in weights), default=0) <= needs.weight_bits
            if neuron.population in WRITTEN_OUT:
                continue
            assert len(synapses) <= needs.fan_in
            # A number that is handed over whole is the weight of its one spike.
            held = any(isinstance(term.weight, Held) or len(term.gates) > 1 for term in synapses)
            assert needs.gated or needs.arriving_bits > 1 or not held


def needs_of(run: Case, name: str, realisation: Realisation | None = None) -> Needs:
    found = predicted(run, realisation).populations[name].needs
    assert found is not None
    return found


@pytest.mark.parametrize("least", [0, 1])
def test_a_restoring_neuron_doubles_against_an_operand_and_is_gated_if_that_may_be_0(least: int) -> None:
    numbers = torch.arange(least, 100)
    needs = needs_of(lambda on: on.divide(numbers, numbers, DivideSpec(7, 7, 8)), "test/divide")
    assert needs == Needs(leak=2.0, threshold="operand", threshold_bits=7, soft_reset=True, gated=least == 0)


def test_an_ordered_group_has_three_weights() -> None:
    needs = needs_of(CASES["divide"], "test/divide", OF_ORDER)
    assert (needs.leak, needs.threshold, needs.threshold_bits, needs.soft_reset) == (1.0, "constant", 1, False)
    assert (needs.fan_in, needs.weights) == (3, 3)
    assert needs.weight_bits == 10  # 2·2^8 and 2·256


@pytest.mark.parametrize("constant", [False, True])
def test_a_product_with_data_is_gated_and_one_with_constants_is_not(constant: bool) -> None:
    a, b = torch.tensor([[1, -2, 3]]), torch.tensor([[100], [-128], [3]])

    def run(on: Arithmetic) -> Tensor:
        return on.signed_dot(a, b, 2, 8, name="rows", constant=constant)

    needs = needs_of(run, "test/rows")
    assert (needs.gated, needs.fan_in, needs.weight_bits) == (not constant, 6, 8)


def test_a_population_of_several_calls_has_the_largest_need() -> None:
    events = Events(predicted=True)
    on = Counted(Numerics(), "test", events)
    for factor in (3, 1000, 5):
        on.scale(torch.tensor([1, 2]), factor, 4)
    for limit in (5, torch.tensor([3, 4])):
        on.reaches(torch.tensor([1, 2]), limit, 4)
    assert events.populations["test/scale"].needs == Needs(leak=2.0, weight_bits=10, weights=2)
    needs = Needs(threshold="operand", threshold_bits=5, arriving_bits=5)
    assert (events + events).populations["test/threshold"].needs == needs
