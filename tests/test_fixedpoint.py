"""The integer verbs, against Python's unbounded integers."""

from __future__ import annotations

import pytest
import torch
from adversarial import edges, integers
from hypothesis import given
from hypothesis import strategies as st

from spikeplug import fixedpoint
from spikeplug.errors import SpikeplugError
from spikeplug.fixedpoint import matrix_product


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


def test_matrix_product_is_exact_at_its_widest() -> None:
    """Every operand at its largest magnitude, more keys than one block: the worst case of the width argument."""
    keys = (1 << 16) + 3
    weight = torch.full((1, keys), 1 << 22, dtype=torch.int64)
    value = torch.full((keys, 2), 1 << 15, dtype=torch.int64)
    value[:, 1] *= -1
    assert matrix_product(weight, value, 22, 15).tolist() == [[keys << 37, -(keys << 37)]]
    weight[0, 0] -= 1  # an odd total, which float64 would round above 2^53
    assert matrix_product(weight, value, 22, 15)[0, 0].item() == (keys << 37) - (1 << 15)


@pytest.mark.parametrize("bits", [(24, 24), (30, 20), (12, 41)])
def test_matrix_product_equals_torch(bits: tuple[int, int]) -> None:
    a = integers(6 * 300, bits[0]).view(6, 300)
    b = -integers(300 * 5, bits[1], seed=2).view(300, 5)
    assert torch.equal(matrix_product(a, b, *bits), a @ b)


def test_matrix_product_refuses_what_does_not_fit() -> None:
    one = torch.ones(1, 1, dtype=torch.int64)
    with pytest.raises(SpikeplugError, match="does not fit"):
        matrix_product(one, one, 30, 24)
