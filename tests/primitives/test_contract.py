"""Contract: every verb of `Arithmetic` gives equal integers in closed form and simulated. The registries of cases must
cover every verb; a new verb without a case fails here."""

from __future__ import annotations

import inspect
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from primitives.cases import CASES, OF_TWO, ORDERED, signed
from torch import Tensor
from watching import Watching, thresholds_fit  # noqa: F401

from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.presets import PRESETS
from spikeplug.primitives.arithmetic import Arithmetic, Closed, Counted, Simulated
from spikeplug.primitives.interpolation import Interpolation
from spikeplug.realisation import Realisation

REALISATIONS = {
    "restoring": Realisation(),
    "ordered": Realisation(division="ordered"),
    "ordered, counted": PRESETS["paper"].realisation,
    "ordered norm": Realisation(norm="ordered", division="ordered"),
}
#: What has no pair of equal operands: a matrix, or a table.
BY_SHAPE = {"dot", "signed_dot", "interpolate", "mantissa", "piecewise"}


def verbs(implementation: type) -> set[str]:
    return {name for name in dir(implementation) if name[0] != "_" and callable(getattr(implementation, name))}


def equal(a: Tensor, b: Tensor) -> None:
    assert a.dtype == b.dtype
    assert torch.equal(a, b)


def test_the_registry_is_complete() -> None:
    assert verbs(Arithmetic) == verbs(Closed) == verbs(Simulated) == verbs(Counted) == set(CASES)
    assert set(CASES) == set(OF_TWO) | BY_SHAPE
    for name in CASES:
        protocol = inspect.signature(getattr(Arithmetic, name)).parameters
        assert list(protocol)[-1] == "name", "every verb names its population"
        for implementation in (Closed, Simulated):
            own = inspect.signature(getattr(implementation, name)).parameters
            assert [(p.name, p.default) for p in own.values()] == [(p.name, p.default) for p in protocol.values()], name


@pytest.mark.usefixtures("thresholds_fit")
@pytest.mark.parametrize("verb", CASES)
def test_simulated_equals_closed(verb: str) -> None:
    """And every membrane and threshold fits its width."""
    events = Watching()
    equal(CASES[verb](Closed()), CASES[verb](Simulated(events=events)))
    events.check()


@pytest.mark.usefixtures("thresholds_fit")
@pytest.mark.parametrize("realisation", REALISATIONS)
@pytest.mark.parametrize("verb", ORDERED)
def test_every_realisation_equals_closed(verb: str, realisation: str) -> None:
    numerics, events = replace(Numerics(), bits=8), Watching(REALISATIONS[realisation])
    equal(ORDERED[verb](Closed(numerics)), ORDERED[verb](Simulated(numerics, events=events)))
    events.check()


@pytest.mark.usefixtures("thresholds_fit")
@pytest.mark.parametrize("bits", [1, 8, 23, 30, 31, 32, 52, 61, 62])
@pytest.mark.parametrize("verb", OF_TWO)
def test_integers_that_break_arithmetic(verb: str, bits: int) -> None:
    """Powers of two and their neighbours, of both signs, at every width beside which the state changes its dtype."""
    run, widest = OF_TWO[verb]
    bits = min(bits, widest)
    a, b = signed(360, bits).view(12, 30), signed(360, bits, seed=1).view(12, 30)
    most = (1 << bits) - 1
    a[0, :4], b[0, :4] = torch.tensor([most, -most, most, -most]), torch.tensor([most, most, -most, -most])
    dtypes = (torch.int64, torch.int32) if bits <= 23 else (torch.int64,)
    for dtype in dtypes:
        events = Watching()
        equal(
            run(Closed(), a.to(dtype), b.to(dtype), bits), run(Simulated(events=events), a.to(dtype), b.to(dtype), bits)
        )
        events.check()


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_integers_of_any_width_and_shape(data: st.DataObject) -> None:
    verb = data.draw(st.sampled_from(sorted(OF_TWO)))
    run, widest = OF_TWO[verb]
    bits = data.draw(st.integers(1, widest))
    rows, columns = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    number = st.integers(-(1 << bits) + 1, (1 << bits) - 1)
    a, b = (
        torch.tensor(data.draw(st.lists(number, min_size=rows * columns, max_size=rows * columns))).view(rows, columns)
        for _ in range(2)
    )
    if data.draw(st.booleans()):
        b = b[:1]
    equal(run(Closed(), a, b, bits), run(Simulated(), a, b, bits))


@pytest.mark.parametrize(
    "shapes", [((5, 7), (7,)), ((5, 1), (1, 7)), ((2, 3, 4), (3, 1)), ((4, 6), ()), ((3, 0), (3, 1))]
)
@pytest.mark.parametrize("verb", OF_TWO)
def test_shapes_broadcast_and_may_be_empty(verb: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    run, _ = OF_TWO[verb]
    a, b = (signed(max(1, torch.Size(shape).numel()), 9)[: torch.Size(shape).numel()].view(shape) for shape in shapes)
    if verb == "maximum" and a.shape[-1] == 0:
        for on in (Closed(), Simulated()):
            with pytest.raises(IndexError):
                run(on, a, b, 9)
        return
    equal(run(Closed(), a, b, 9), run(Simulated(), a, b, 9))
    assert run(Closed(), a, b, 9).dtype in (torch.int64, torch.bool)


@pytest.mark.parametrize("verb", OF_TWO)
def test_a_single_number(verb: str) -> None:
    run, _ = OF_TWO[verb]
    for a in (-1, 0, 1, 255):
        one = torch.tensor([a])
        equal(run(Closed(), one, one, 8), run(Simulated(), one, one, 8))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 2), (2, 0, 3), (0, 4, 3)])
def test_matrices_of_any_shape(shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    weight, value = signed(m * k, 22).view(m, k), signed(k * n, 16, seed=3).view(k, n)
    equal(Closed().dot(weight.abs(), value, 22, 16), Simulated().dot(weight.abs(), value, 22, 16))
    equal(Closed().signed_dot(weight, value, 22, 16), Simulated().signed_dot(weight, value, 22, 16))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_constants_in_place_of_tensors(dtype: torch.dtype) -> None:
    x = signed(64, 12).to(dtype)
    for constant in (0, 1, -1, 4095, -4095):
        for run in (
            lambda on, c=constant: on.add(x, c, 12),
            lambda on, c=constant: on.scale(x, c, 12),
            lambda on, c=constant: on.reaches(x, c, 12),
            lambda on, c=constant: on.select(x > 0, x, c, 12),
            lambda on, c=constant: on.select(x > 0, c, x, 12),
            lambda on, c=constant: on.select(x > 0, c, -c, 12),
            lambda on, c=constant: on.clamp(x, c, None, 12),
            lambda on, c=constant: on.clamp(x, None, c, 12),
        ):
            equal(run(Closed()), run(Simulated()))


def test_a_step_is_kept_in_its_operands_dtype() -> None:
    """A mantissa of int32 stays one where its verb gives no wider answer; a sum has the wider of both dtypes."""
    a, b = signed(10, 20).to(torch.int32), signed(10, 20)
    for on in (Closed(), Simulated()):
        for answer in (on.add(a, a, 20), on.magnitude(a, 20), on.round_half(a, 20), on.clamp(a, -5, 5, 20)):
            assert answer.dtype == torch.int32
        assert on.add(a, b, 20).dtype == on.scale(a, 3, 20).dtype == on.leading_one(a.abs(), 20).dtype == torch.int64
        assert on.maximum(a, 20).dtype == on.signed(a.abs(), b, 20).dtype == torch.int32
        assert on.shift(a.abs(), b.clamp(-5, 0), 20, 0).dtype == torch.int32


def test_a_tables_end_is_an_input() -> None:
    """One more than the last threshold: the segment's population is wide enough for it."""
    spec, events = Interpolation((0, 4, 1, 1 << 20), 3), Watching()
    x = torch.arange(spec.domain + 1)
    equal(Closed().interpolate(x, spec), Simulated(events=events).interpolate(x, spec))
    events.check()


def test_names_are_the_operators_and_the_verbs() -> None:
    events = Events()
    on = Simulated(operator="gelu", events=events)
    on.add(torch.tensor([1]), torch.tensor([2]), 4, "total")
    on.magnitude(torch.tensor([1]), 4)
    assert list(events.populations) == [
        "gelu/total/operand 1",
        "gelu/total/operand 2",
        "gelu/total",
        "gelu/magnitude/operand",
        "gelu/magnitude",
    ]
