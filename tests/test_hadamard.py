"""Test Hadamard matrices: H Hᵀ = n · I, their factors, and that applying the factors is the matrix product."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeplug.errors import SpikeplugError
from spikeplug.hadamard import apply_hadamard, factors_of, hadamard

ORDERS = [1, 2, 4, 8, 12, 16, 20, 24, 28, 36, 64, 80, 108, 284, 384, 576, 640, 896]


@pytest.mark.parametrize("order", ORDERS)
def test_rows_are_orthogonal(order: int) -> None:
    matrix = hadamard(order).to(torch.int64)
    assert bool((matrix.abs() == 1).all())
    assert torch.equal(matrix @ matrix.T, order * torch.eye(order, dtype=torch.int64))


@pytest.mark.parametrize("order", ORDERS)
def test_applying_the_factors_is_the_matrix_product(order: int) -> None:
    x = torch.randn(3, 2, order, dtype=torch.float64, generator=torch.Generator().manual_seed(order))
    expected = x @ hadamard(order).double().T / order**0.5
    torch.testing.assert_close(apply_hadamard(x, order), expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 20_000))
def test_factors_multiply_to_the_order(order: int) -> None:
    factors = factors_of(order)
    product = 1
    for factor in factors:
        product *= factor
    assert not factors or product == order
    if order & (order - 1) == 0:
        assert factors


@pytest.mark.parametrize(
    ("order", "factors"), [(576, (12, 12, 4)), (768, (12, 4, 4, 4)), (896, (28, 4, 4, 2)), (1600, (20, 20, 4))]
)
def test_small_factors_are_preferred(order: int, factors: tuple[int, ...]) -> None:
    assert factors_of(order) == factors


@pytest.mark.parametrize("order", [0, 3, 6, 30, 92])
def test_what_cannot_be_built_is_refused(order: int) -> None:
    assert factors_of(order) == ()
    for function in (lambda: hadamard(order), lambda: apply_hadamard(torch.ones(1, order), order)):
        with pytest.raises(SpikeplugError, match=f"order {order} can be built"):
            function()


def test_the_input_and_its_dtype_are_kept() -> None:
    x = torch.ones(2, 12)
    assert apply_hadamard(x, 12).dtype == torch.float32
    assert torch.equal(x, torch.ones(2, 12))
    assert apply_hadamard(torch.empty(0, 12), 12).shape == (0, 12)
