"""Contract: Counted predicts what Simulated counts. Every field of every population is equal, on any integers of any
width and shape, for every verb, realisation and schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from adversarial import integers
from counting import cases, same_events
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from primitives.cases import CASES, OF_TWO, ORDERED, signed
from torch import Tensor

from spikeplug.errors import SpikeplugError
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.presets import PRESETS
from spikeplug.primitives.arithmetic import Arithmetic, Counted, Simulated
from spikeplug.primitives.divide import DivideSpec
from spikeplug.primitives.exponential import PiecewiseExponential, ShiftExponential
from spikeplug.primitives.interpolation import Interpolation
from spikeplug.primitives.norm import RootSpec
from spikeplug.realisation import Realisation

Case = Callable[[Arithmetic], Tensor]
REALISATIONS = [
    Realisation(),
    PRESETS["paper"].realisation,
    Realisation(division="ordered", norm="ordered"),
    *(Realisation(division="ordered", code="count", steps=1 << k) for k in (0, 1, 3, 7)),
    Realisation(code="population"),
]


def check(run: Case, realisation: Realisation | None = None, numerics: Numerics | None = None) -> Events:
    numerics = Numerics() if numerics is None else numerics
    simulated, counted = Events(realisation), Events(realisation, predicted=True)
    expected, found = run(Simulated(numerics, "test", simulated)), run(Counted(numerics, "test", counted))
    assert expected.dtype == found.dtype
    assert torch.equal(expected, found)
    same_events(counted, simulated)
    return counted


@pytest.mark.parametrize("verb", CASES)
def test_every_verb_is_predicted(verb: str) -> None:
    assert check(CASES[verb]).populations


@pytest.mark.parametrize("realisation", REALISATIONS, ids=str)
@pytest.mark.parametrize("verb", ORDERED)
def test_every_realisation_is_predicted(verb: str, realisation: Realisation) -> None:
    check(ORDERED[verb], realisation, Numerics(bits=8))


def numbers(data: st.DataObject, shape: tuple[int, ...], bits: int, *, sign: bool = True) -> Tensor:
    """Return integers of any magnitude below 2^bits, often 0 or at an end of their range."""
    count, seed = torch.Size(shape).numel(), data.draw(st.integers(0, 10**6))
    x = (signed if sign else integers)(max(count, 400), bits, seed)[:count].view(shape)
    dtypes = [torch.int64, torch.int32] if bits <= 23 else [torch.int64]
    return x.to(data.draw(st.sampled_from(dtypes))) * data.draw(st.sampled_from([1, 1, 1, 0]))


def shapes(data: st.DataObject) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return two shapes that broadcast to one another."""
    rows, columns = data.draw(st.integers(0, 4)), data.draw(st.integers(1, 6))
    whole = (2, rows, columns)
    return data.draw(
        st.sampled_from(
            [(whole, whole), (whole, (rows, columns)), ((rows, 1), (1, columns)), (whole, ()), (whole, (1,))]
        )
    )


def of_two(data: st.DataObject, verb: str) -> Case:
    run, widest = OF_TWO[verb]
    bits, (first, second) = data.draw(st.integers(1, widest)), shapes(data)
    a, b = numbers(data, first, bits), numbers(data, second, bits)
    return lambda on: run(on, a, b, bits)


def constant(data: st.DataObject) -> Case:
    bits = data.draw(st.integers(1, 40))
    x, number = numbers(data, (3, 5), bits), data.draw(st.integers(1 - (1 << bits), (1 << bits) - 1))
    other = data.draw(st.sampled_from([number, -number, 0, 1]))
    factor = numbers(data, data.draw(st.sampled_from([(5,), (3, 1), (3, 5), ()])), 20)
    run: Case = data.draw(
        st.sampled_from(
            [
                lambda on: on.add(x, number, bits),
                lambda on: on.scale(x, number % 1000 - 500, bits),
                lambda on: on.scale(x, factor, bits),
                lambda on: on.reaches(x, number, bits),
                lambda on: on.select(x > 0, x, number, bits),
                lambda on: on.select(x > 0, number, x, bits),
                lambda on: on.select(x > 0, number, other, bits),
                lambda on: on.clamp(x, number, None, bits),
                lambda on: on.clamp(x, None, number, bits),
                lambda on: on.clamp(x, min(number, other), max(number, other), bits),
            ]
        )
    )
    return run


def table(data: st.DataObject) -> Case:
    kind = data.draw(st.sampled_from(["any", "mantissa", "piecewise"]))
    shape = data.draw(st.sampled_from([(0,), (1,), (3, 7), (40,)]))
    if kind == "any":
        knots = data.draw(st.lists(st.integers(-(1 << 20), 1 << 20) | st.just(0), min_size=2, max_size=9))
        spec = Interpolation(tuple(knots), data.draw(st.integers(0, 18)))
        x = numbers(data, shape, 31, sign=False) % (spec.domain + 1)
        return lambda on: on.interpolate(x, spec)
    if kind == "mantissa":
        fraction_bits = data.draw(st.integers(0, 16))
        segments = 1 << data.draw(st.integers(0, min(7, fraction_bits)))
        power = ShiftExponential(fraction_bits, segments, data.draw(st.integers(2, 30)))
        distance = numbers(data, shape, 31, sign=False).to(torch.int32)
        return lambda on: on.mantissa(distance, power)
    half_range, fraction_bits = data.draw(st.sampled_from([1.0, 5.0, 10.0])), data.draw(st.integers(6, 16))
    chords = PiecewiseExponential(half_range, data.draw(st.sampled_from([8, 64])), fraction_bits, 22)
    y = numbers(data, shape, fraction_bits + 5)
    return lambda on: on.piecewise(y, chords)


def matrix(data: st.DataObject) -> Case:
    m, k, n = (data.draw(st.integers(0, 5)) for _ in range(3))
    batch, other = data.draw(st.sampled_from([((), ()), ((2,), (2,)), ((2,), ()), ((), (2,)), ((3, 1), (2,))]))
    bits = data.draw(st.integers(1, 12))
    a, b = numbers(data, (*batch, m, k), bits), numbers(data, (*other, k, n), data.draw(st.integers(1, 16)))
    levels, values = data.draw(st.booleans()), data.draw(st.booleans())
    if values:
        return lambda on: on.dot(a.abs(), b, bits, 16)
    return lambda on: on.signed_dot(a, b, bits, 16, levels)


def division(data: st.DataObject) -> Case:
    """Narrow operands and few quotients, for populations of one neuron per quotient; and roots and squares."""
    bits = data.draw(st.integers(1, 8))
    a, b = (numbers(data, shape, bits, sign=False) for shape in shapes(data))
    limit = data.draw(st.none() | st.integers(1, 40))
    spec = DivideSpec(bits, bits, data.draw(st.integers(0, 3)), limit)
    run: Case = data.draw(
        st.sampled_from(
            [
                lambda on: on.divide(a, b, spec),
                lambda on: on.square_sum(a, bits),
                lambda on: on.root(a, RootSpec((bits + 1) // 2)),
            ]
        )
    )
    return run


#: Every verb is in one of these.
DRAWN: dict[str, Callable[[st.DataObject], Case]] = {
    **{verb: partial(of_two, verb=verb) for verb in OF_TWO},
    "constants": constant,
    "tables": table,
    "matrices": matrix,
    "ordered populations": division,
}
SCHEDULES: list[Any] = ["bits", "signed_digits", "count", "rate"]


@pytest.mark.parametrize("kind", DRAWN)
@given(data=st.data())
@settings(max_examples=cases(30), deadline=None, suppress_health_check=list(HealthCheck))
def test_any_integers_of_any_width_and_shape(kind: str, data: st.DataObject) -> None:
    run, realisation = DRAWN[kind](data), Realisation()
    if kind == "matrices":
        realisation = Realisation(schedule=data.draw(st.sampled_from(SCHEDULES)))
    if kind == "ordered populations":
        realisation = data.draw(st.sampled_from(REALISATIONS))
    check(run, realisation, Numerics(bits=8))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("levels", [1, 3, 7, 100, 127, 255, 1000])
def test_levels_of_a_layer_in_every_schedule(levels: int, schedule: Any) -> None:
    bits = levels.bit_length() + 1  # as a layer says it
    x = signed(6 * 40, bits).view(6, 40).clamp(-levels, levels)
    x[0], x[1, 1:], x[2] = 0, 0, levels
    check(lambda on: on.signed_dot(x, signed(40 * 9, 7).view(40, 9), bits, 7, True), Realisation(schedule=schedule))


def test_populations_too_large_to_simulate_are_predicted() -> None:
    """A group of 2^18 neurons per quotient, and roots of one neuron per level."""
    numerics, realisation = Numerics(), Realisation(division="ordered", norm="ordered")
    events = Events(realisation, predicted=True)
    on, spec = Counted(numerics, "test", events), DivideSpec(24, 24, 17, limit=4 << 16)
    quotient = on.divide(torch.full((1000,), 1 << 23), torch.full((1000,), (1 << 24) - 1), spec)
    assert events.populations["test/divide"].neurons == 1000 << 18
    assert events.populations["test/divide"].spikes == int(quotient.sum())
    root = on.root(torch.full((10,), (1 << 50) + 1), RootSpec(26))
    assert events.populations["test/root"].spikes == int(root.sum()) == 10 << 25
    with pytest.raises(SpikeplugError, match="more than the"):
        Simulated(numerics, "test", Events(realisation)).root(torch.ones(1, dtype=torch.int64), RootSpec(26))


def test_a_prediction_has_no_steps_to_watch() -> None:
    with pytest.raises(SpikeplugError, match="which a prediction does not run: simulate instead"):
        Events(predicted=True, observer=lambda *_: None)


def test_events_of_both_ways_compare_and_add_up() -> None:
    counted = check(CASES["add"])
    assert counted == replace(counted, predicted=False)
    assert (counted + counted).spikes == 2 * counted.spikes
