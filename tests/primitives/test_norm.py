"""Contract: gated squares, root neuron, populations and CORDIC tree equal their closed forms; proven bounds hold."""

from __future__ import annotations

import math

import pytest
import torch
from adversarial import all_pairs, edges, integers
from primitives.cases import scope
from watching import Watching

from spikeplug.errors import SpikeplugError
from spikeplug.primitives import norm
from spikeplug.primitives.norm import CordicSpec, RootSpec, simulate


def test_root_of_all_16_bit_inputs() -> None:
    square = torch.arange(1 << 16)
    expected = torch.tensor([math.isqrt(value) for value in range(1 << 16)])
    spec = RootSpec(8)
    assert torch.equal(norm.root(square, spec), expected)
    assert torch.equal(simulate.root(square, spec, scope()), expected)
    for part, root in zip(square.split(1 << 13), expected.split(1 << 13), strict=True):
        assert torch.equal(simulate.root_population(part, 255, scope()), root)


def test_root_of_wide_inputs_and_the_neighbours_of_squares() -> None:
    spec = RootSpec(30)
    root = torch.cat([integers(40_000, 30), torch.tensor(edges(30))])
    square = root * root
    square = torch.cat([square, (square - 1).clamp(min=0), square + 1, integers(60_000, 60)])
    assert len(square) > 100_000
    expected = torch.tensor([math.isqrt(value) for value in square.tolist()])
    assert torch.equal(norm.root(square, spec), expected)
    assert torch.equal(simulate.root(square, spec, scope()), expected)


def test_squares_of_all_8_bit_inputs() -> None:
    x = torch.arange(256)
    assert torch.equal(simulate.square_population(x, 255, scope()), x * x)
    assert torch.equal(simulate.square_sum(x.unsqueeze(-1), 8, scope()), norm.square_sum(x.unsqueeze(-1)))


def test_square_sums_of_wide_vectors() -> None:
    x = integers(120_000, 21).view(-1, 60)
    x = torch.where(torch.arange(60) % 3 == 0, -x, x)
    assert torch.equal(simulate.square_sum(x, 21, scope()), norm.square_sum(x))


def test_cordic_of_all_pairs_at_8_bits() -> None:
    a, b = all_pairs(8)
    pairs = torch.stack([a, b], -1)
    spec = CordicSpec(8, 8)
    value = norm.cordic(pairs, spec)
    assert torch.equal(simulate.cordic(pairs, spec, scope()), value)
    _check_cordic_bound(pairs, value, spec)


@pytest.mark.parametrize("iterations", [1, 2, 4, 8, 12, 20])
@pytest.mark.parametrize("dimension", [1, 2, 3, 5, 8, 577])
def test_cordic_of_wide_vectors(iterations: int, dimension: int) -> None:
    vectors = integers(60_000 // dimension * dimension, 22, seed=iterations).view(-1, dimension)
    spec = CordicSpec(iterations, 22)
    value = norm.cordic(vectors, spec)
    assert torch.equal(simulate.cordic(vectors, spec, scope()), value)
    _check_cordic_bound(vectors, value, spec)


@pytest.mark.parametrize("dimension", [2, 3, 4, 8, 9, 577, 4096])
def test_every_neuron_of_the_tree_holds_the_longest_vector_there_is(dimension: int) -> None:
    """Its norm is sqrt(d) times the largest element's: the phases of the gain's train grow with the tree."""
    longest, events = torch.full((1, dimension), (1 << 22) - 1), Watching()
    spec = CordicSpec(8, 22)
    assert torch.equal(simulate.cordic(longest, spec, scope(events)), norm.cordic(longest, spec))
    events.check()


def test_square_sums_hold_the_longest_vector_there_is() -> None:
    longest, events = torch.full((1, 1024), -(1 << 21) + 1), Watching()
    assert torch.equal(simulate.square_sum(longest, 21, scope(events)), norm.square_sum(longest))
    events.check()


def test_ordered_norms_are_the_restoring_ones() -> None:
    x = torch.arange(-127, 128).view(-1, 5)
    square = norm.square_sum(x)
    assert torch.equal(simulate.square_sum_ordered(x, 7, scope()), square)
    assert torch.equal(simulate.root_ordered(square, RootSpec(9), scope()), norm.root(square, RootSpec(9)))
    with pytest.raises(SpikeplugError, match="more than the 65,536 that can be simulated"):
        simulate.square_sum_ordered(x, 22, scope())
    with pytest.raises(SpikeplugError, match="norm='restoring'"):
        simulate.root_ordered(square, RootSpec(17), scope())


def _check_cordic_bound(x: torch.Tensor, value: torch.Tensor, spec: CordicSpec) -> None:
    exact = x.double().norm(dim=-1, keepdim=True)
    levels = max(x.shape[-1] - 1, 0).bit_length()
    angle = 2.0 ** (1 - 2 * spec.iterations)
    rounding = 0.5 + spec.iterations * 2.0 ** (1 - spec.guard_bits)
    constant = 2.0**-spec.gain_bits
    low = exact * (1 - (1 - angle - constant) ** levels) + 3.5 * rounding * 2 ** (levels / 2) * (levels > 0)
    high = exact * ((1 + constant) ** levels - 1) + 3.5 * rounding * 2 ** (levels / 2) * (levels > 0)
    error = value.double() - exact
    assert bool((error <= high + 1e-6).all())
    assert bool((error >= -low - 1e-6).all())


def test_the_gain_is_no_power_of_two() -> None:
    assert (1 << 22) / CordicSpec(8, 8).inverse_gain == pytest.approx(1.6467, abs=1e-4)


@pytest.mark.parametrize("fields", [(0, 8), (25, 8), (8, 0), (8, 40)])
def test_impossible_cordic_specs_are_refused(fields: tuple[int, int]) -> None:
    with pytest.raises(SpikeplugError):
        CordicSpec(*fields)


@pytest.mark.parametrize("bits", [0, 32])
def test_impossible_root_specs_are_refused(bits: int) -> None:
    with pytest.raises(SpikeplugError):
        RootSpec(bits)
