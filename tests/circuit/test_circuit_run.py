"""What a circuit refuses to run, and what it says of itself."""

from __future__ import annotations

import pytest
import torch

from spikeplug import SpikeplugError, circuit_of
from spikeplug.circuit import Builder, Output, StageBuilder, Traced, Wiring, held, run

DIVIDE = circuit_of("relu_squared", 2, "narrow")


def counter(width: int) -> object:
    builder = Builder("counter")
    x = builder.port("x", 0, 0, 100)
    stage = StageBuilder(builder, "counter/sum")
    neuron = stage.neuron("", "accumulator", width, start=(held(x),))
    stage.synapse(neuron, 10)
    return builder.built([Output("y", (1,), (stage.settled(neuron, 3, 0, 200),))])


@pytest.mark.parametrize(
    ("operands", "message"),
    [
        ({}, "takes the operands 'exponent', 'x', not none"),
        ({"x": torch.zeros(4, 2), "exponent": torch.zeros(4, 1, dtype=torch.int64)}, "give integers"),
        ({"x": torch.zeros(4, 3, dtype=torch.int64), "exponent": torch.zeros(4, 1, dtype=torch.int64)}, "2 elements"),
        ({"x": torch.zeros(4, 2, dtype=torch.int64), "exponent": torch.zeros(3, 1, dtype=torch.int64)}, "batch sizes"),
        ({"x": torch.full((1, 2), 1 << 40), "exponent": torch.zeros(1, 1, dtype=torch.int64)}, "has left"),
    ],
)
def test_operands(operands: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(SpikeplugError, match=message):
        run(DIVIDE, operands)


def test_a_membrane_that_leaves_its_width_is_a_fault() -> None:
    operands = {"x": torch.tensor([[100]])}
    assert run(counter(9), operands)["y"].tolist() == [[130]]  # type: ignore[arg-type]
    with pytest.raises(SpikeplugError, match="the membrane of counter/sum has left"):
        run(counter(8), operands)  # type: ignore[arg-type]


def test_a_membrane_that_starts_beyond_its_width_is_a_fault() -> None:
    builder = Builder("counter")
    stage = StageBuilder(builder, "counter/sum")
    neuron = stage.neuron("", "accumulator", 5, leak=-1, start=(held(builder.port("x", 0, 0, 100)),))
    circuit = builder.built([Output("y", (1,), (stage.settled(neuron, 3, 0, 12),))])
    assert run(circuit, {"x": torch.tensor([[15]])})["y"].tolist() == [[1]]
    with pytest.raises(SpikeplugError, match="the membrane of counter/sum has left"):
        run(circuit, {"x": torch.tensor([[16]])})


def test_wirings_take_no_neuron_and_keep_bounds() -> None:
    builder = Builder("wires")
    x = Traced(torch.tensor([[builder.port("x", 0, -5, 9)]]), builder, torch.int64)
    y = ((-x + 3) << 2) >> 1
    assert builder.bounds(int(y.signals)) == (-12, 16)
    assert int((x + 0).signals) == int(x.signals)
    assert int((-x).signals) == int((-x).signals), "equal wirings are one signal"
    circuit = builder.built([Output("y", (1,), tuple(y.signals.flatten().tolist()))])
    values = torch.arange(-5, 10).unsqueeze(-1)
    assert torch.equal(run(circuit, {"x": values})["y"], ((-values + 3) << 2) >> 1)
    assert not circuit.populations


def test_what_is_no_wiring_is_refused() -> None:
    builder = Builder("products")
    x = Traced(torch.tensor([[builder.port("x", 0, -5, 9)]]), builder, torch.int64)
    with pytest.raises(SpikeplugError, match=r"products has no circuit form: it computes aten\.mul"):
        x * x
    with pytest.raises(SpikeplugError, match="compares integers outside of its neurons"):
        builder.wire(int((x > 3).signals), Wiring(0))
