"""The integer verbs, against Python's unbounded integers."""

from __future__ import annotations

import torch
from adversarial import edges, integers
from hypothesis import given
from hypothesis import strategies as st

from spikeplug import fixedpoint


@given(st.floats(-1e6, 1e6), st.integers(0, 30))
def test_constant_is_the_nearest_integer(value: float, bits: int) -> None:
    error = abs(fixedpoint.constant(value, bits) - value * 2**bits)
    assert error <= 0.5 + 1e-9 * abs(value) * 2**bits


@given(st.integers(-(2**40), 2**40), st.integers(0, 100))
def test_shift_right_floors_at_any_distance(x: int, places: int) -> None:
    expected = x >> places
    assert fixedpoint.shift_right(torch.tensor([x]), places).item() == expected
    assert fixedpoint.shift_right(torch.tensor([x]), torch.tensor([places], dtype=torch.int32)).item() == expected


@given(st.integers(0, 2**40), st.integers(-80, 20))
def test_shift_goes_both_ways(x: int, places: int) -> None:
    expected = x << places if places >= 0 else x >> -places
    assert fixedpoint.shift(torch.tensor([x]), torch.tensor([places])).item() == expected


def test_shift_of_int32_does_not_widen() -> None:
    x = torch.tensor([1 << 30, -(1 << 31)], dtype=torch.int32)
    assert fixedpoint.shift_right(x, torch.tensor([40, 40])).tolist() == [0, -1]
    assert fixedpoint.shift_right(x, torch.tensor([40, 40])).dtype == torch.int32


def test_bit_length() -> None:
    values = [*edges(62), *integers(5000, 62).tolist()]
    assert fixedpoint.bit_length(torch.tensor(values)).tolist() == [value.bit_length() for value in values]


def test_halving_rounds_half_up() -> None:
    assert fixedpoint.halve_to_nearest(torch.arange(6)).tolist() == [0, 1, 1, 2, 2, 3]
