"""Every operator as a circuit: run step by step, it gives the integers of the closed form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import spikeplug
from spikeplug import SpikeplugError
from spikeplug.circuit import Circuit, run
from spikeplug.evidence.operands import drawn
from spikeplug.operators import LINEAR, RECORDS
from spikeplug.operators.operands import Operands
from spikeplug.operators.recording import integers_of
from spikeplug.presets import as_numerics
from spikeplug.primitives.arithmetic import Closed
from spikeplug.saturation import counting

ALL = {**RECORDS, **LINEAR}
ABLE = [name for name, record in ALL.items() if record.integers is not None and name != "linear"]
ELEMENTS, BATCH = 4, 64
WEIGHT = torch.randint(-127, 128, (3, ELEMENTS), dtype=torch.int8, generator=torch.Generator().manual_seed(0))
#: The published groups of these have 2^18 neurons and more.
TOO_LARGE = {"silu", "gelu", "mish", "quantise"}


def check(name: str, circuit: Circuit, numerics: str, weight: Tensor | None = None) -> None:
    operands: dict[str, Tensor] = {}
    given = Operands(ELEMENTS, as_numerics(numerics), drawn(operands, BATCH), weight)
    wanted = integers_of(name, given, Closed(as_numerics(numerics), name))
    found = run(circuit, operands)
    assert found.keys() == wanted.keys()
    for part, integers in wanted.items():
        x = integers.to(torch.int64)
        assert torch.equal(found[part].flatten(1), x.expand(BATCH, *x.shape[1:]).reshape(BATCH, -1)), part


@pytest.mark.parametrize("numerics", ["default", "narrow", "paper"])
@pytest.mark.parametrize("name", ABLE)
def test_a_circuit_gives_the_integers_of_the_closed_form(name: str, numerics: str) -> None:
    if numerics == "paper" and name in TOO_LARGE:
        with pytest.raises(SpikeplugError, match="use division='restoring'"):
            spikeplug.circuit_of(name, ELEMENTS, numerics)
        realisation = "default"
    else:
        realisation = None
    check(name, spikeplug.circuit_of(name, ELEMENTS, numerics, realisation), numerics)


def test_a_linear_layer_holds_its_weight() -> None:
    check("linear", spikeplug.circuit_of("linear", ELEMENTS, weight=WEIGHT), "default", WEIGHT)


def test_a_softmax_of_eight() -> None:
    circuit = spikeplug.circuit_of("softmax", 8, "narrow")
    assert circuit.ports.keys() == {"scores"}
    assert [output.name for output in circuit.outputs] == ["mantissa", "exponent"]
    assert circuit.populations["softmax/divide"].neurons == 8


def test_recording_counts_no_saturation_and_is_deterministic() -> None:
    with counting() as saturations:
        first, second = (spikeplug.circuit_of("exp", 2, "paper") for _ in range(2))
    assert not saturations
    assert first == second


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("softmin",), "unknown operator 'softmin': choose one of softmax"),
        (("attention",), "attention has no circuit form of its own"),
        (("softmax", 0), "elements=0"),
        (("softmax", 2.5), "elements=2.5"),
        (("linear", 3), "needs weight"),
        (("softmax", 3, "wide"), "unknown preset 'wide'"),
    ],
)
def test_bad_input(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(SpikeplugError, match=message):
        spikeplug.circuit_of(*arguments)  # type: ignore[arg-type]
