"""Contract: an exported graph, read from its file and run by NIR's equations, gives the integers of its circuit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch
from hardware.euler import executed
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeplug import SpikeplugError, circuit_of
from spikeplug.circuit import Circuit, Port, run
from spikeplug.circuit.run import _value
from spikeplug.hardware.nir import Reset, equal, read, to_nir, write
from spikeplug.hardware.rasters import decode, encode, unary
from spikeplug.hardware.verbs import VERBS, circuit_of_verb

PAIRS = np.stack(np.meshgrid(np.arange(16), np.arange(16), indexing="ij"), -1).reshape(-1, 2)


def by_file(graph: Any, folder: Path) -> Any:
    """Return the graph, written and read again."""
    write(graph, folder / "graph.nir")
    found = read(folder / "graph.nir")
    assert equal(graph, found)
    assert [path.name for path in folder.iterdir()] == ["graph.nir"]
    return found


def check(circuit: Circuit, free: dict[str, Any], parameters: dict[str, int], reset: Reset, folder: Path) -> None:
    """Compare the graph with the circuit, for integers (batch,) of the free operands."""
    graph = by_file(to_nir(circuit, parameters, reset=reset), folder)
    operands = {name: torch.as_tensor(np.asarray(x)).unsqueeze(-1) for name, x in free.items()}
    batch = len(next(iter(operands.values())))
    held = {name: torch.full((batch, 1), value) for name, value in parameters.items()}
    wanted = run(circuit, {**operands, **held})["result"][:, 0].numpy()
    found = decode(graph, executed(graph, encode(graph, free), subtract=reset == "neuron"))
    np.testing.assert_array_equal(found, wanted)


def test_ordered_group_of_four_bits(tmp_path: Path) -> None:
    free = {"numerator": PAIRS[:, 0], "denominator": PAIRS[:, 1]}
    check(circuit_of_verb("divide", 4, "ordered"), free, {}, "synapse", tmp_path)


@pytest.mark.parametrize("reset", ["synapse", "neuron"])
def test_restoring_neuron_of_four_bits(reset: Reset, tmp_path: Path) -> None:
    circuit = circuit_of_verb("divide", 4)
    for denominator in range(16):
        check(circuit, {"numerator": np.arange(16)}, {"denominator": denominator}, reset, tmp_path)


@pytest.mark.parametrize("bits", [1, 4, 6])
def test_ordered_root(bits: int, tmp_path: Path) -> None:
    check(circuit_of_verb("root", bits, "ordered"), {"square": np.arange(1 << 2 * bits)}, {}, "synapse", tmp_path)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), bits=st.integers(1, 10), verb=st.sampled_from(["divide", "add", "gate", "reaches"]))
def test_any_width(tmp_path_factory: Any, data: Any, bits: int, verb: str) -> None:
    circuit = circuit_of_verb(verb, bits)
    held = {"divide": "denominator", "gate": "value", "reaches": "threshold", "add": None}[verb]
    bounds = {name: circuit.signals[numbers[0]] for name, numbers in circuit.ports.items()}
    one = {name: st.integers(signal.low, signal.high) for name, signal in bounds.items()}
    free = {name: data.draw(st.lists(one[name], min_size=5, max_size=5)) for name in one if name != held}
    parameters = {} if held is None else {held: data.draw(one[held])}
    reset = data.draw(st.sampled_from(["synapse", "neuron"])) if verb == "divide" else "synapse"
    check(circuit, free, parameters, reset, tmp_path_factory.mktemp("graph"))


def settled(circuit: Circuit, batch: int) -> list[torch.Tensor]:
    """Return every signal of a circuit, (batch,), for random operands within the bounds of its ports."""
    generator = torch.Generator().manual_seed(0)
    columns = {
        name: torch.stack(
            [
                torch.randint(circuit.signals[n].low, circuit.signals[n].high + 1, (batch,), generator=generator)
                for n in numbers
            ],
            -1,
        )
        for name, numbers in circuit.ports.items()
    }
    values: list[torch.Tensor] = []
    for signal in circuit.signals:
        values.append(_value(signal, values, columns))
    return values


@pytest.mark.parametrize("operator", ["softmax", "silu", "rms_norm", "divide", "sqrt", "cos"])
def test_each_stage_of_an_operator_is_exported_or_refused_in_words(operator: str) -> None:
    circuit = circuit_of(operator, 1, "narrow")
    values, exported, refused = settled(circuit, 6), 0, list[str]()
    seen = [(number, stage.name) for number, stage in circuit.stages]
    places = {number: sum(name == other for n, other in seen if n <= number) for number, name in seen}
    for number, stage in circuit.stages:
        names = {train.signal: train.population for train in stage.trains}
        try:
            graph = to_nir(circuit, population=f"{stage.name}#{places[number]}")
        except SpikeplugError as error:
            refused.append(str(error))
            continue
        free = {}
        for signal, value in enumerate(values):
            node = circuit.signals[signal].node
            name = node.name if isinstance(node, Port) else names.get(signal, f"signal {signal}")
            free[name] = value.numpy()
        wanted = {channel["operand"] for channel in graph.metadata["spikeplug"]["inputs"].values()} - {""}
        raster = encode(graph, {name: free[name] for name in wanted})
        np.testing.assert_array_equal(decode(graph, executed(graph, raster)), values[number].numpy())
        exported += 1
    assert exported
    for reason in refused:
        assert reason.count(". ") == 0
        assert "has no NIR form: " in reason or "give it as a parameter" in reason


def test_a_file_says_what_nir_has_no_field_for(tmp_path: Path) -> None:
    graph = by_file(to_nir(circuit_of_verb("divide", 4), {"denominator": 5}, reset="neuron"), tmp_path)
    about = graph.metadata["spikeplug"]
    assert (about["steps"], about["time_step"], about["reset"]) == (8, 1.0, "subtract")
    assert about["comparison"] == "v >= threshold of integers, written as v + 1/2 > threshold"
    assert about["parameters"]["denominator"].tolist() == [5]
    assert graph.nodes["n_divide"].metadata == {"population": "divide", "width": 6}


def test_graphs_that_differ_are_not_equal() -> None:
    circuit = circuit_of_verb("divide", 4)
    five, six = (to_nir(circuit, {"denominator": value}) for value in (5, 6))
    assert equal(five, to_nir(circuit, {"denominator": 5}))
    assert not equal(five, six)
    five.metadata["spikeplug"]["steps"] = 9
    assert not equal(five, to_nir(circuit, {"denominator": 5}))


def test_one_spike_per_step_adds_up() -> None:
    raster = np.array([[[3, 0], [1, 2]], [[0, 0], [0, 1]]])
    spread = unary(raster)
    assert spread.shape == (4, 2, 2)
    assert set(np.unique(spread)) == {0, 1}
    np.testing.assert_array_equal(spread.sum(0), raster.sum(0))
    with pytest.raises(SpikeplugError, match="either sign"):
        unary(-raster)


DIVIDE, SOFTMAX = circuit_of_verb("divide", 4), circuit_of("softmax", 2, "narrow")


@pytest.mark.parametrize(
    ("circuit", "options", "message"),
    [
        (DIVIDE, {}, r"the threshold of divide is the operand 'denominator'.*such as denominator=15"),
        (DIVIDE, {"parameters": {"nonsense": 1}}, r"no operand 'nonsense': choose one of numerator, denominator"),
        (DIVIDE, {"parameters": {"denominator": 16}}, r"must lie in \[0, 15\]"),
        (DIVIDE, {"parameters": {"denominator": 1.5}}, "as many integers"),
        (DIVIDE, {"parameters": {"denominator": 3}, "reset": "hard"}, "reset is 'hard'"),
        (DIVIDE, {"population": "nonsense"}, "no stage 'nonsense': choose one of divide"),
        (circuit_of_verb("root", 4), {}, "root has no NIR form: its threshold is the membrane of root/root"),
        (circuit_of_verb("divide", 12), {"parameters": {"denominator": 3}}, None),
        (circuit_of_verb("divide", 24), {"parameters": {"denominator": 3}}, None),
        (
            circuit_of("layer_norm", 1),
            {"population": "layer_norm/leading_one"},
            "61 bits, and a float64 holds 51 exactly",
        ),
        (SOFTMAX, {"population": "softmax/decay#9"}, "choose one by its number, such as softmax/decay#1"),
        (SOFTMAX, {}, r"softmax has no NIR form: it has \d+ stages"),
        (SOFTMAX, {"population": "softmax/decay"}, "2 stages softmax/decay: choose one by its number"),
        (circuit_of("softmax", 1, "narrow"), {"population": "softmax/decay"}, "it rounds when it leaks"),
    ],
)
def test_refusals(circuit: Circuit, options: dict[str, Any], message: str | None) -> None:
    if message is None:
        assert isinstance(to_nir(circuit, **options), nir.NIRGraph)
        return
    with pytest.raises(SpikeplugError, match=message) as refused:
        to_nir(circuit, **options)
    assert str(refused.value).count(". ") == 0


def test_a_missing_package_is_said_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nir", None)
    with pytest.raises(SpikeplugError, match=r"nir cannot be imported .*: install it with `pip install nir`"):
        to_nir(DIVIDE, {"denominator": 5})


def test_files_that_are_not_there(tmp_path: Path) -> None:
    graph = to_nir(DIVIDE, {"denominator": 5})
    (tmp_path / "file").write_text("text")
    with pytest.raises(SpikeplugError, match="cannot be written"):
        write(graph, tmp_path / "file" / "graph.nir")
    for name in ("missing.nir", "file"):
        with pytest.raises(SpikeplugError, match="no readable NIR file"):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("operands", "message"),
    [
        ({}, "takes the operands"),
        ({"x": [1]}, "takes the operands"),
        ({"numerator": [16]}, r"must lie in \[0, 15\]"),
        ({"numerator": [1.5]}, "no array of integers"),
        ({"numerator": 1}, "no array of integers"),
        ({"numerator": np.zeros((2, 0), int)}, "more than 0 elements"),
    ],
)
def test_operands(operands: dict[str, Any], message: str) -> None:
    with pytest.raises(SpikeplugError, match=message):
        encode(to_nir(DIVIDE, {"denominator": 5}), operands)


def test_a_batch_of_nothing() -> None:
    graph = to_nir(DIVIDE, {"denominator": 5})
    raster = encode(graph, {"numerator": np.zeros(0, np.int64)})
    assert raster.shape == (8, 0, 1)
    assert decode(graph, executed(graph, raster)).shape == (0,)


def test_batches_of_several_sizes() -> None:
    with pytest.raises(SpikeplugError, match="several sizes"):
        encode(to_nir(circuit_of_verb("divide", 4, "ordered")), {"numerator": [1, 2], "denominator": [1]})


def test_a_graph_from_elsewhere_is_refused() -> None:
    graph = nir.NIRGraph.from_list(nir.Affine(np.ones((2, 3)), np.zeros(2)))
    with pytest.raises(SpikeplugError, match="does not say how its operands are sent"):
        encode(graph, {})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("nonsense", 4), "unknown verb"), (("divide", 0), "between 1 and 24"), (("divide", 4, "x"), "unknown neurons")],
)
def test_verbs(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(SpikeplugError, match=message):
        circuit_of_verb(*arguments)
    assert "divide" in VERBS
