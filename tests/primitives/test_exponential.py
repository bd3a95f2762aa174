"""Contract: simulate = closed for every 16-bit input; against real numbers, the bounds proven in the README."""

from __future__ import annotations

import math

import pytest
import torch
from adversarial import integers
from primitives.cases import scope

from spikeplug.errors import SpikeplugError
from spikeplug.primitives import exponential
from spikeplug.primitives.exponential import PiecewiseExponential, ShiftExponential, piecewise, power_of_half, simulate

SHIFTS = [
    ShiftExponential(12, 32, 22),
    ShiftExponential(12, 1, 22),
    ShiftExponential(5, 32, 8),
    ShiftExponential(16, 256, 24),
]
PAPER = PiecewiseExponential(5.0, 64, 12, 22)
PIECEWISE = [
    PAPER,
    PiecewiseExponential(3.0, 16, 8, 12),
    PiecewiseExponential(8.0, 3, 12, 16),
    PiecewiseExponential(0.5, 1, 4, 2),
]


@pytest.mark.parametrize("spec", SHIFTS, ids=str)
def test_shift_form_on_all_16_bit_inputs(spec: ShiftExponential) -> None:
    distance = torch.arange(1 << 16, dtype=torch.int32)
    value = power_of_half(distance, spec)
    for part in distance.split(1 << 14):
        simulated = simulate.power_of_half(part, spec, scope())
        assert torch.equal(simulated, value[int(part[0]) : int(part[-1]) + 1])
    _check_shift_bound(distance, value, spec)
    assert bool((value.diff() <= 0).all()), "2^-x must not rise"


@pytest.mark.parametrize("spec", SHIFTS[:1], ids=str)
def test_shift_form_on_wide_inputs(spec: ShiftExponential) -> None:
    distance = integers(110_000, 31).to(torch.int32)
    value = power_of_half(distance, spec)
    for part, expected in zip(distance.split(1 << 15), value.split(1 << 15), strict=True):
        assert torch.equal(simulate.power_of_half(part, spec, scope()), expected)
    _check_shift_bound(distance, value, spec)


def _check_shift_bound(distance: torch.Tensor, value: torch.Tensor, spec: ShiftExponential) -> None:
    octaves = distance.double() / 2**spec.fraction_bits
    error = value.double() - torch.exp2(spec.weight_bits - octaves)
    scale = torch.exp2(-octaves.floor())
    chord = 2**spec.weight_bits * (math.log(2) / spec.segments) ** 2 / 8
    slack = 1e-6  # float64 reference
    assert bool((error <= (chord + 1.5) * scale + slack).all())
    assert bool((error >= -1 - 0.5 * scale - slack).all())


def test_whole_octaves_are_exact() -> None:
    spec = SHIFTS[0]
    octaves = torch.arange(31, dtype=torch.int32)
    assert power_of_half(octaves << 12, spec).tolist() == [(1 << 22) >> k for k in range(31)]


@pytest.mark.parametrize("spec", PIECEWISE, ids=str)
def test_piecewise_form_on_all_16_bit_inputs(spec: PiecewiseExponential) -> None:
    x = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32)
    value = piecewise(x, spec)
    for part, expected in zip(x.split(1 << 13), value.split(1 << 13), strict=True):
        assert torch.equal(simulate.piecewise(part, spec, scope()), expected)
    _check_piecewise_bound(x, value, spec)


def test_piecewise_form_on_wide_inputs() -> None:
    x = integers(110_000, 31)
    x = torch.where(torch.arange(len(x)) % 2 == 0, x, -x).to(torch.int32)
    value = piecewise(x, PAPER)
    for part, expected in zip(x.split(1 << 14), value.split(1 << 14), strict=True):
        assert torch.equal(simulate.piecewise(part, PAPER, scope()), expected)
    _check_piecewise_bound(x, value, PAPER)


def _check_piecewise_bound(x: torch.Tensor, value: torch.Tensor, spec: PiecewiseExponential) -> None:
    unit, one = 1 << spec.fraction_bits, 1 << spec.output_bits
    knots = torch.tensor(spec.knots)
    assert not value[x < knots[0]].any(), "below -H: 0"
    assert bool((value[x >= knots[-1]] == spec.intercepts[-1]).all()), "from H on: exp(H)"
    inside = (x >= knots[0]) & (x < knots[-1])
    x, value = x[inside].to(torch.int64), value[inside]
    segment = torch.bucketize(x, knots, right=True) - 1
    left, right = knots[segment].double() / unit, knots[segment + 1].double() / unit
    width = right - left
    rise = right.exp() - left.exp()
    chord = one * width**2 / 8 * right.exp()
    intercept = one * left.exp() * 2.0**-spec.intercept_bits + 0.5
    slope = one * rise * 2.0**-spec.slope_bits
    error = value.double() - one * torch.exp(x.double() / unit)
    slack = 1e-6
    assert bool((error <= chord + intercept + slope + slack).all())
    assert bool((error >= -(intercept + slope + 1) - slack).all())


def test_published_relative_error() -> None:
    """H = 5, K = 64: about 3.1e-3 with exact slopes; 8-bit slopes may add (e^h - 1)·2^-8 = 6.6e-4."""
    x = torch.arange(PAPER.knots[0], PAPER.knots[-1])
    exact = torch.exp(x.double() / 4096)
    relative = (piecewise(x, PAPER).double() / 2**22 / exact - 1).abs().max().item()
    assert 3.0e-3 < relative < 3.1e-3 + 6.6e-4


def test_tables_are_small() -> None:
    assert SHIFTS[0].table_bytes < 100
    assert PAPER.table_bytes < 300


@pytest.mark.parametrize("fields", [(12, 0, 22), (12, 3, 22), (2, 8, 22), (-1, 1, 22), (12, 32, 31)])
def test_impossible_shift_specs_are_refused(fields: tuple[int, int, int]) -> None:
    with pytest.raises(SpikeplugError):
        ShiftExponential(*fields)


@pytest.mark.parametrize(
    "fields", [(0.0, 64, 12, 22), (-5.0, 64, 12, 22), (5.0, 0, 12, 22), (5.0, 64, 0, 22), (17.0, 4, 4, 4)]
)
def test_impossible_piecewise_specs_are_refused(fields: tuple[float, int, int, int]) -> None:
    with pytest.raises(SpikeplugError):
        PiecewiseExponential(*fields)


def test_empty_inputs() -> None:
    empty = torch.zeros(0, 4, dtype=torch.int32)
    assert exponential.power_of_half(empty, SHIFTS[0]).shape == (0, 4)
    assert simulate.power_of_half(empty, SHIFTS[0], scope()).shape == (0, 4)
    assert piecewise(empty, PAPER).shape == (0, 4)
    assert simulate.piecewise(empty, PAPER, scope()).shape == (0, 4)
