"""Contract: other people's simulators give the integers of the circuit, from the file; SANA-FE, the predicted energy.

Here run those that install in seconds. `make emulators` runs them all, on all operands.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from spikeplug import Events, SpikeplugError
from spikeplug.hardware import emulators
from spikeplug.hardware.emulators import EMULATORS
from spikeplug.hardware.emulators.layer import integer_layer, signed_bytes
from spikeplug.hardware.emulators.sanafe import predicted, simulated
from spikeplug.hardware.nir import read, to_nir, write
from spikeplug.hardware.rasters import Integers, encode
from spikeplug.hardware.tables import load_table
from spikeplug.hardware.verbs import VERBS, circuit_of_verb
from spikeplug.neurons import Scope
from spikeplug.numerics import Numerics
from spikeplug.primitives.arithmetic import Counted
from spikeplug.primitives.divide import DivideSpec
from spikeplug.primitives.divide.count import ordered_group
from spikeplug.realisation import Realisation

PAIRS = np.stack(np.meshgrid(np.arange(16), np.arange(16), indexing="ij"), -1).reshape(-1, 2)
A, B = PAIRS[:, 0], PAIRS[:, 1]
QUOTIENTS = np.where(B > 0, np.minimum((A << 4) // np.maximum(B, 1), 16), 0)
PRICES = {term: float(price) for term, price in load_table("loihi1-sanafe").prices.items()}


@pytest.mark.parametrize("name", ["nirtorch", "sanafe"])
def test_ordered_group_from_its_file(name: str, tmp_path: Path) -> None:
    write(to_nir(circuit_of_verb("divide", 4, "ordered")), tmp_path / "divide.nir")
    some = slice(None, None, 5 if name == "sanafe" else 1)
    found = emulators.run(name, read(tmp_path / "divide.nir"), {"numerator": A[some], "denominator": B[some]})
    np.testing.assert_array_equal(found, QUOTIENTS[some])


def test_restoring_neuron_in_nirtorch(tmp_path: Path) -> None:
    for denominator in range(16):
        write(to_nir(circuit_of_verb("divide", 4), {"denominator": denominator}), tmp_path / "divide.nir")
        found = emulators.run("nirtorch", read(tmp_path / "divide.nir"), {"numerator": np.arange(16)})
        np.testing.assert_array_equal(found, QUOTIENTS[denominator == B])


def test_membranes_are_read(tmp_path: Path) -> None:
    write(to_nir(circuit_of_verb("gate", 4), {"value": -11}), tmp_path / "gate.nir")
    for name in ("nirtorch", "sanafe"):
        found = emulators.run(name, read(tmp_path / "gate.nir"), {"spikes": np.arange(16)})
        np.testing.assert_array_equal(found, -11 * np.arange(16))


def test_energy_of_an_ordered_group() -> None:
    a, b, events = np.array([15, 3, 9]), np.array([2, 15, 0]), Events()
    spec = DivideSpec(4, 4, 4, 16)
    quotient = ordered_group(torch.from_numpy(a), torch.from_numpy(b), spec, Scope(events, "divide"), steps=15)
    graph = to_nir(circuit_of_verb("divide", 4, "ordered"))
    found = simulated(graph, encode(graph, {"numerator": a, "denominator": b}), cores=1, reader=True)
    np.testing.assert_array_equal(found.output.sum((0, 2)), quotient.numpy())
    assert found.energy * 1e12 == pytest.approx(predicted(events, "divide", PRICES, steps=2), rel=1e-12)


@pytest.mark.parametrize(
    ("verb", "neurons", "operand", "given", "held", "population"),
    [
        ("divide", "restoring", "numerator", [0, 7, 15], {"denominator": 5}, "divide"),
        ("root", "ordered", "square", [0, 99, 225], {}, "root"),
        ("exponential", "ordered", "distance", [0, 7, 15], {}, "exp/segment"),
    ],
)
def test_energy(verb: str, neurons: str, operand: str, given: list[int], held: dict[str, int], population: str) -> None:
    events = Events(Realisation(division=neurons, norm=neurons))  # type: ignore[arg-type]
    values = {operand: torch.tensor(given)} | {name: torch.full((3,), value) for name, value in held.items()}
    VERBS[verb](Counted(Numerics(), "", events), lambda name, low, high: values[name].unsqueeze(-1), 4)
    graph = to_nir(circuit_of_verb(verb, 4, neurons), held, population=population, reset="neuron")  # type: ignore[arg-type]
    found = simulated(graph, encode(graph, {operand: given}), cores=2, reader=True)
    steps = int(graph.metadata["spikeplug"]["steps"])
    assert found.counts["soma_spikes"] == events.populations[population].spikes
    assert found.energy * 1e12 == pytest.approx(predicted(events, population, PRICES, steps=steps), rel=1e-12)


def test_a_node_that_a_simulator_would_misread_is_refused() -> None:
    graph = to_nir(circuit_of_verb("divide", 4), {"denominator": 5}, reset="neuron")
    with pytest.raises(
        SpikeplugError, match=r"nirtorch cannot run the node n_divide \(CubaLIF\).*write it as a synapse"
    ):
        emulators.run("nirtorch", graph, {"numerator": [1]})
    graph = to_nir(circuit_of_verb("divide", 4), {"denominator": 5})
    with pytest.raises(SpikeplugError, match=r"sanafe cannot run the node n_divide \(Threshold\)"):
        emulators.run("sanafe", graph, {"numerator": [1]})
    with pytest.raises(SpikeplugError, match="unknown simulator 'nest': choose one of nirtorch, norse"):
        emulators.run("nest", graph, {"numerator": [1]})


@pytest.mark.parametrize("name", EMULATORS)
def test_a_missing_simulator_is_said_with_its_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, EMULATORS[name].module, None)
    graph = to_nir(circuit_of_verb("divide", 4, "ordered"))
    with pytest.raises(SpikeplugError, match=r"install it with `pip install nir .*`\.$") as refused:
        emulators.run(name, graph, {"numerator": A, "denominator": B})
    assert EMULATORS[name].install in str(refused.value)
    with pytest.raises(SpikeplugError, match="cannot be imported"):
        _ = EMULATORS[name].version


def test_versions_and_runners() -> None:
    assert EMULATORS["nirtorch"].version.startswith("2.")
    folder = Path(emulators.__file__).parent
    assert {path.stem for path in folder.glob("*.py")} - {"__init__", "layer", "modules"} == set(EMULATORS)


def test_a_layer_of_a_chip_fires_as_its_graph() -> None:
    """Run it in integers as Loihi does: v > threshold, and a reset to 0."""
    for verb, operands in (("divide", {"numerator": A, "denominator": B}), ("root", {"square": np.arange(256)})):
        graph = to_nir(circuit_of_verb(verb, 4, "ordered"))
        layer = integer_layer(graph, encode(graph, operands), 15, 12)
        parts = sum((sign * part << exponent for sign, exponent, part in signed_bytes(layer.weight)), 0)
        np.testing.assert_array_equal(parts, layer.weight if layer.weight.size else 0)
        v, fired = np.zeros_like(layer.bias), np.zeros(len(layer.bias), np.int64)
        for spikes in layer.spikes:
            v = v + spikes @ layer.weight.T + layer.bias
            fired += (v > layer.threshold).sum(-1)
            v[v > layer.threshold] = 0
        wanted: Integers = QUOTIENTS if verb == "divide" else np.sqrt(np.arange(256)).astype(np.int64)
        np.testing.assert_array_equal(fired, wanted)


def test_membranes_that_a_simulator_does_not_hold_are_refused() -> None:
    graph = to_nir(circuit_of_verb("divide", 21), {"denominator": 5})
    with pytest.raises(SpikeplugError, match="n_divide_state: its membrane has 23 bits, and those of nirtorch 22"):
        emulators.run("nirtorch", graph, {"numerator": [1]})
    most = (1 << 20) - 1  # 22 bits, the widest
    circuit = circuit_of_verb("divide", 20)
    numerators, denominators = [most, most - 1, 12345, 0], [most, most - 1, 7, 1]
    for denominator in denominators:
        graph = to_nir(circuit, {"denominator": denominator})
        found = emulators.run("nirtorch", graph, {"numerator": numerators})
        wanted = [min((a << 20) // denominator, 1 << 20) for a in numerators]
        np.testing.assert_array_equal(found, wanted)


def test_widths_beyond_a_chip() -> None:
    graph = to_nir(circuit_of_verb("divide", 8, "ordered"))
    raster = encode(graph, {"numerator": [1], "denominator": [1]})
    with pytest.raises(SpikeplugError, match="a weight of 130561 does not fit the 9 bits"):
        integer_layer(graph, raster, 9, 12)
    root = to_nir(circuit_of_verb("root", 8, "ordered"))
    with pytest.raises(SpikeplugError, match="a bias of 65535 does not fit the 12 bits"):
        integer_layer(root, encode(root, {"square": [65535]}), 9, 12)
