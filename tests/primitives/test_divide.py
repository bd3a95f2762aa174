"""Contract: ordered group = restoring neuron = closed form = floor(2^n·A/B), integer for integer."""

from __future__ import annotations

import pytest
import torch
from adversarial import all_pairs, edge_pairs
from primitives.cases import scope
from torch import Tensor

from spikeplug.errors import SpikeplugError
from spikeplug.neurons import Events, Population
from spikeplug.primitives.divide import DivideSpec, divide
from spikeplug.primitives.divide.simulate import ordered_group, restoring_neuron


def test_all_pairs_at_8_bits() -> None:
    a, b = all_pairs(8)
    wide, group = DivideSpec(8, 8, 8), DivideSpec(8, 8, 8, limit=256)
    expected = torch.tensor([0 if y == 0 else (x << 8) // y for x, y in zip(a.tolist(), b.tolist(), strict=True)])
    assert torch.equal(divide(a, b, wide), expected)
    assert torch.equal(restoring_neuron(a, b, wide, scope()), expected)
    assert torch.equal(restoring_neuron(a, b, group, scope()), expected.clamp(max=256))
    for part_a, part_b, part in zip(a.split(8192), b.split(8192), expected.split(8192), strict=True):
        assert torch.equal(ordered_group(part_a, part_b, group, scope()), part.clamp(max=256))


def test_ordered_group_without_a_limit() -> None:
    a, b = all_pairs(4)
    spec = DivideSpec(4, 4, 4)
    assert torch.equal(ordered_group(a, b, spec, scope()), divide(a, b, spec))


@pytest.mark.parametrize("steps", [1, 2, 7, 32])
def test_ordered_group_does_not_depend_on_how_the_operands_are_spread_in_time(steps: int) -> None:
    a, b = edge_pairs(500, 16, 16)
    spec = DivideSpec(16, 16, 8, limit=256)
    assert torch.equal(ordered_group(a, b, spec, scope(), steps=steps), divide(a, b, spec))


def test_wide_adversarial_pairs() -> None:
    a, b = edge_pairs(120_000, 38, 30)
    spec = DivideSpec(38, 30, 17)
    quotient = divide(a, b, spec)
    assert torch.equal(restoring_neuron(a, b, spec, scope()), quotient)
    # The bound, in integers: q·B <= 2^n·A < (q + 1)·B, so the quotient is low by less than one LSB.
    for x, y, q in zip(a.tolist(), b.tolist(), quotient.tolist(), strict=True):
        assert (y == 0 and q == 0) or q * y <= x << 17 < (q + 1) * y


def test_wide_adversarial_pairs_ordered() -> None:
    a, b = edge_pairs(100_000, 30, 30, seed=7)
    spec = DivideSpec(30, 30, 6, limit=64)
    for x, y in zip(a.split(20_000), b.split(20_000), strict=True):
        assert torch.equal(ordered_group(x, y, spec, scope()), divide(x, y, spec))


def test_membrane_of_the_restoring_neuron_stays_below_twice_the_denominator() -> None:
    a, b = edge_pairs(2000, 12, 12)
    steps = []

    def watch(population: Population, membrane: Tensor, spikes: Tensor | None) -> None:
        if spikes is not None:
            steps.append(bool((membrane < (2 * b).clamp(min=2)).all()))

    restoring_neuron(a, b, DivideSpec(12, 12, 8), scope(Events(observer=watch)))
    assert steps == [True] * 20


def test_a_read_out_that_saturates_needs_no_more_bits_than_its_limit() -> None:
    a, b = edge_pairs(2000, 12, 12)
    spec, widest = DivideSpec(12, 12, 8, limit=255), 0

    def watch(population: Population, membrane: Tensor, spikes: Tensor | None) -> None:
        nonlocal widest
        if spikes is None:
            widest = max(widest, int(membrane.max()))

    events = Events(observer=watch)
    assert torch.equal(restoring_neuron(a, b, spec, scope(events)), divide(a, b, spec))
    assert widest == 2 * 255 + 1
    assert events.populations["test/quotient"].width == 10


def test_idle_is_silent() -> None:
    zero = torch.zeros(5, dtype=torch.int64)
    for run in (ordered_group, restoring_neuron):
        events = Events()
        assert not run(zero, zero, DivideSpec(4, 4, 4, limit=16), scope(events)).any()
        assert events.spikes == 0
        assert events.synops == 0


def test_no_denominator_gives_zero_whatever_the_numerator() -> None:
    a, b = torch.arange(16), torch.zeros(16, dtype=torch.int64)
    spec = DivideSpec(4, 4, 4)
    assert not divide(a, b, spec).any()
    assert not restoring_neuron(a, b, spec, scope()).any()
    assert not ordered_group(a, b, spec, scope()).any()


def test_events_of_one_division_are_those_counted_by_hand() -> None:
    # 11/16 at n = 4: numerator 1011b, so 3 input spikes; quotient 11 = 00001011b, so 3 output spikes; 4 + 4 steps.
    events = Events()
    one = torch.tensor([11]), torch.tensor([16])
    assert restoring_neuron(*one, DivideSpec(4, 5, 4), scope(events)).item() == 11
    assert (events.spikes, events.compares, events.steps) == (6, 8, 8)
    # The group: graded operands 11 and 16 and one go spike reach 16 neurons, 11 of which fire once.
    events = Events()
    assert ordered_group(*one, DivideSpec(4, 5, 4, limit=16), scope(events)).item() == 11
    assert (events.spikes, events.synops, events.compares, events.steps) == (11 + 16 + 1 + 11, 28 * 16 + 11, 16, 2)


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (torch.tensor([-1]), torch.tensor([1]), "numerator must lie"),
        (torch.tensor([16]), torch.tensor([1]), "numerator must lie"),
        (torch.tensor([1]), torch.tensor([-3]), "denominator must lie"),
        (torch.tensor([1.0]), torch.tensor([1]), "int64"),
    ],
)
def test_operands_outside_the_widths_are_refused(a: torch.Tensor, b: torch.Tensor, words: str) -> None:
    spec = DivideSpec(4, 4, 4)
    for run in (ordered_group, restoring_neuron):
        with pytest.raises(SpikeplugError, match=words):
            run(a, b, spec, scope())


@pytest.mark.parametrize("fields", [(0, 4, 4), (4, 61, 4), (4, 4, -1), (40, 4, 30), (4, 4, 4, 0)])
def test_impossible_specs_are_refused(fields: tuple[int, ...]) -> None:
    with pytest.raises(SpikeplugError):
        DivideSpec(*fields)


def test_empty_operands() -> None:
    empty = torch.zeros(0, 3, dtype=torch.int64)
    spec = DivideSpec(4, 4, 4)
    assert divide(empty, empty, spec).shape == (0, 3)
    assert restoring_neuron(empty, empty, spec, scope()).shape == (0, 3)
    assert ordered_group(empty, empty, spec, scope()).shape == (0, 3)
