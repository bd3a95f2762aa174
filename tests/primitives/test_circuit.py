"""Contract: the circuit of every verb, run step by step, gives the integers of the closed form, within its widths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spikeplug.circuit import Builder, Circuit, Output, Traced, numbers_of, run
from spikeplug.errors import SpikeplugError
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.primitives.arithmetic import Arithmetic, Closed, Recorded, Simulated
from spikeplug.primitives.divide import DivideSpec
from spikeplug.primitives.exponential import PiecewiseExponential, ShiftExponential
from spikeplug.primitives.interpolation import Interpolation
from spikeplug.primitives.norm import CordicSpec, RootSpec
from spikeplug.primitives.quantise import few_spikes, gif, qcfs, st_bif
from spikeplug.realisation import Realisation

#: (name, elements, low, high) of an operand.
Port = tuple[str, int, int, int]
Case = Callable[..., Tensor]
WEIGHT = torch.tensor([[3, -127], [0, 64], [-5, 1]])


def port(builder: Builder, name: str, elements: int, low: int, high: int) -> Tensor:
    numbers = [[builder.port(name, place, low, high) for place in range(elements)]]
    return Traced(torch.tensor(numbers), builder, torch.int64)


def recorded(case: Case, ports: tuple[Port, ...], realisation: Realisation | None = None) -> Circuit:
    """Return the circuit of case(on, *operands), whose result is a row."""
    builder = Builder("test")
    on = Recorded(Numerics(), "test", Events(realisation), builder)
    signals = numbers_of(case(on, *(port(builder, *p) for p in ports)), builder)
    return builder.built([Output("y", tuple(signals.shape[1:]), tuple(signals.flatten().tolist()))])


def drawn(data: Any, ports: tuple[Port, ...], batch: int = 16) -> dict[str, Tensor]:
    """Draw operands: numbers of every size within the bounds, and the bounds."""

    def number(low: int, high: int) -> st.SearchStrategy[int]:
        sizes = st.integers(0, max(-low, high).bit_length()).flatmap(lambda b: st.integers(-(1 << b), 1 << b))
        return st.one_of(st.sampled_from([low, high]), sizes.map(lambda x: min(max(x, low), high)))

    def rows(elements: int, low: int, high: int) -> Tensor:
        size = batch * elements
        return torch.tensor(data.draw(st.lists(number(low, high), min_size=size, max_size=size))).view(batch, elements)

    return {name: rows(*sizes) for name, *sizes in ports}


def check(case: Case, ports: tuple[Port, ...], operands: dict[str, Tensor], realisation: Realisation | None) -> None:
    found = run(recorded(case, ports, realisation), operands)["y"]
    wanted = case(Closed(), *operands.values())
    assert torch.equal(found, wanted.to(torch.int64))


A, B = ("a", 3, -255, 255), ("b", 3, -255, 255)
WHOLE = ("a", 3, 0, 255)
CASES: dict[str, tuple[Case, tuple[Port, ...]]] = {
    "divide": (lambda on, a, b: on.divide(a, b, DivideSpec(8, 8, 8)), (WHOLE, ("b", 3, 0, 255))),
    "divide, saturating": (lambda on, a, b: on.divide(a, b, DivideSpec(8, 8, 8, 999)), (WHOLE, ("b", 3, 0, 255))),
    "divide, no zero": (lambda on, a, b: on.divide(a, b, DivideSpec(8, 8, 8)), (WHOLE, ("b", 3, 1, 255))),
    "interpolate": (lambda on, a: on.interpolate(a, Interpolation((5, -90, 7, 7, 1 << 20), 8)), (("a", 3, 0, 1024),)),
    "mantissa": (lambda on, a: on.mantissa(a, ShiftExponential(12, 32, 22)), (("a", 3, 0, 1 << 31),)),
    "decay": (lambda on, a, b: on.decay(a, b), (("a", 3, 0, 1 << 24), ("b", 3, 0, 31))),
    "piecewise": (lambda on, a: on.piecewise(a, PiecewiseExponential(5.0, 64, 12, 22)), (("a", 2, -30000, 30000),)),
    "piecewise, left": (lambda on, a: on.piecewise(a, PiecewiseExponential(10.0, 64, 6, 22)), (("a", 2, -900, 900),)),
    "square_sum": (lambda on, a: on.square_sum(a, 8), (A,)),
    "root": (lambda on, a: on.root(a, RootSpec(8)), (("a", 3, 0, (1 << 16) - 1),)),
    "cordic": (lambda on, a: on.cordic(a, CordicSpec(8, 8)), (("a", 5, 0, 255),)),
    "gate": (lambda on, a, b: on.gate(a, b, 8), (WHOLE, B)),
    "gate, no bits": (lambda on, a, b: on.gate(a, b, 0), (("a", 3, 0, 0), B)),
    "accumulate": (lambda on, a: on.accumulate(a, 8), (("a", 5, 0, 255),)),
    "dot": (lambda on, a, b: on.dot(a.unsqueeze(-2), b.unsqueeze(-1), 8, 8).squeeze(-2), (WHOLE, B)),
    "signed_dot": (lambda on, a: on.signed_dot(a.unsqueeze(-2), WEIGHT, 8, 7).squeeze(-2), (A,)),
    "maximum": (lambda on, a: on.maximum(a, 8), (("a", 5, -256, 256),)),
    "maximum of one": (lambda on, a: on.maximum(a, 8), (("a", 1, -256, 256),)),
    "leading_one": (lambda on, a: on.leading_one(a, 8), (WHOLE,)),
    "reaches": (lambda on, a, b: on.reaches(a, b, 8), (A, B)),
    "reaches a constant": (lambda on, a: on.reaches(a, -3, 8), (A,)),
    "add": (lambda on, a, b: on.add(a, b, 8), (A, B)),
    "add a constant": (lambda on, a: on.add(a, -255, 8), (A,)),
    "scale": (lambda on, a: on.scale(a, -1_000_003, 8), (A,)),
    "scale by a tensor": (lambda on, a: on.scale(a, torch.tensor([3, 0, -7]), 8), (A,)),
    "select": (lambda on, a, b: on.select(on.reaches(a, b, 8), a, b, 8), (A, B)),
    "select a constant": (lambda on, a: on.select(on.reaches(a, 5, 8), -9, a, 8), (A,)),
    "select constants": (lambda on, a: on.select(on.reaches(a, 5, 8), 3, -9, 8), (A,)),
    "magnitude": (lambda on, a: on.magnitude(a, 8), (A,)),
    "signed": (lambda on, a, b: on.signed(a, b, 8), (WHOLE, B)),
    "shift": (lambda on, a, b: on.shift(a, b, 8, 6), (WHOLE, ("b", 3, -12, 6))),
    "round_half": (lambda on, a: on.round_half(a, 8), (A,)),
    "clamp": (lambda on, a: on.clamp(a, -10, 30, 8), (A,)),
}
for kind, spec in {
    "quantise, st_bif": st_bif(8, 5, -7, 8),
    "quantise, st_bif of both": st_bif(8, 5, -3, 3, steps=9),
    "quantise, qcfs": qcfs(8, 5, 7),
    "quantise, if": qcfs(8, 5, 8, signed=False),
}.items():
    quantised: Case = lambda on, a, b, spec=spec: on.quantise(a, b, spec)  # noqa: E731
    CASES[kind] = quantised, (("a", 3, -255 if spec.lowest else 0, 255), ("b", 3, 1, 31))
ORDERED: dict[str, tuple[Case, tuple[Port, ...]]] = {
    "divide": (lambda on, a, b: on.divide(a, b, DivideSpec(4, 4, 4, 64)), (("a", 2, 0, 15), ("b", 2, 0, 15))),
    "square_sum": (lambda on, a: on.square_sum(a, 5), (("a", 3, -31, 31),)),
    "root": (lambda on, a: on.root(a, RootSpec(6)), (("a", 2, 0, 4095),)),
}


def test_every_verb_has_a_case() -> None:
    named = {name.split(",")[0].split(" ")[0] for name in CASES}
    assert named == {name for name in dir(Arithmetic) if name[0] != "_" and callable(getattr(Arithmetic, name))}


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_a_circuit_gives_the_integers_of_the_closed_form(name: str, data: Any) -> None:
    case, ports = CASES[name]
    check(case, ports, drawn(data, ports), None)


@pytest.mark.parametrize("name", ORDERED)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_ordered_populations_give_the_same(name: str, data: Any) -> None:
    case, ports = ORDERED[name]
    check(case, ports, drawn(data, ports), Realisation(division="ordered", norm="ordered"))


@pytest.mark.parametrize("spec", [few_spikes(8, 5, 4), gif(8, 5, 2, 1)])
def test_neurons_without_circuit_form(spec: Any) -> None:
    with pytest.raises(SpikeplugError, match="has no circuit form: use st_bif or qcfs"):
        recorded(lambda on, a, b: on.quantise(a, b, spec), (WHOLE, ("b", 3, 1, 31)))


def test_all_operands_of_four_bits() -> None:
    pairs = torch.cartesian_prod(torch.arange(16), torch.arange(16)).unsqueeze(-1)
    operands = {"a": pairs[:, 0], "b": pairs[:, 1]}
    ports = (("a", 1, 0, 15), ("b", 1, 0, 15))
    for division in ("restoring", "ordered"):
        check(lambda on, a, b: on.divide(a, b, DivideSpec(4, 4, 4)), ports, operands, Realisation(division=division))


ANY_WIDTH: dict[str, Callable[[Arithmetic, Tensor, Tensor, int], Tensor]] = {
    "maximum": lambda on, a, b, bits: on.maximum(torch.cat([a, b], -1), bits),
    "leading_one": lambda on, a, b, bits: on.leading_one(on.magnitude(a, bits), bits),
    "reaches": lambda on, a, b, bits: on.reaches(a, b, bits),
    "add": lambda on, a, b, bits: on.add(a, b, bits),
    "select": lambda on, a, b, bits: on.select(on.reaches(a, b, bits), a, b, bits),
    "signed": lambda on, a, b, bits: on.signed(on.magnitude(a, bits), b, bits),
    "round_half": lambda on, a, b, bits: on.round_half(on.add(a, b, bits), bits + 1),
    "gate": lambda on, a, b, bits: on.gate(on.magnitude(a, bits), b, bits),
    "clamp": lambda on, a, b, bits: on.clamp(a, -3, 5, bits),
}


@pytest.mark.parametrize("name", ANY_WIDTH)
@settings(max_examples=8, deadline=None)
@given(bits=st.integers(1, 30), data=st.data())
def test_any_width(name: str, bits: int, data: Any) -> None:
    most = (1 << bits) - 1
    ports = (("a", 2, -most, most), ("b", 2, -most, most))
    check(lambda on, a, b: ANY_WIDTH[name](on, a, b, bits), ports, drawn(data, ports, 4), None)


@pytest.mark.parametrize("name", CASES)
def test_the_populations_are_those_of_the_simulation(name: str) -> None:
    """By name and kind, and as wide; a circuit has more: what a simulation does in passing is a population here."""
    case, ports = CASES[name]
    events = Events()
    operands = [torch.full((1, d), high) for _, d, _, high in ports]
    case(Simulated(Numerics(), "test", events), *operands)
    built = recorded(case, ports).populations
    for population in events.populations.values():
        assert population.name in built, population.name
        assert built[population.name].kind == population.kind
