"""Test the sum of x xᵀ, and the factor of its inverse."""

from __future__ import annotations

import pytest
import torch

from spikeplug.errors import SpikeplugError
from spikeplug.weights import Hessian
from spikeplug.weights.hessian import inverse_factor


def fed(tokens: int = 40, width: int = 12, seed: int = 0) -> Hessian:
    hessian = Hessian(width, "layers.3.up")
    hessian.add(torch.randn(tokens, width, generator=torch.Generator().manual_seed(seed)))
    return hessian


def test_the_mean_of_the_products() -> None:
    x = torch.randn(2, 700, 12, generator=torch.Generator().manual_seed(1))
    whole, parts = Hessian(12), Hessian(12)
    whole.add(x)
    for row in x:
        parts.add(row)
    rows = x.reshape(-1, 12).double()
    torch.testing.assert_close(whole.matrix(), rows.T @ rows / 1400, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(parts.matrix(), whole.matrix(), rtol=1e-5, atol=1e-5)
    assert whole.tokens == parts.tokens == 1400


@pytest.mark.parametrize("act_order", [False, True])
def test_the_factor_is_that_of_the_damped_inverse(act_order: bool) -> None:
    matrix = fed().matrix()
    order, upper = inverse_factor(matrix, 0.01, act_order)
    damped = matrix + 0.01 * matrix.diagonal().mean() * torch.eye(12, dtype=torch.float64)
    torch.testing.assert_close(upper.T @ upper, torch.linalg.inv(damped[order][:, order]))
    assert sorted(order.tolist()) == list(range(12))
    if act_order:
        assert bool((matrix.diagonal()[order].diff() <= 0).all())


@pytest.mark.parametrize("tokens", [1, 3])
def test_few_tokens_can_be_factored(tokens: int) -> None:
    _, upper = inverse_factor(fed(tokens).matrix(), 0.0, True)
    assert bool(upper.isfinite().all())


def test_bad_input() -> None:
    with pytest.raises(SpikeplugError, match=r"never reached layers\.3\.up: give a longer text"):
        Hessian(12, "layers.3.up").matrix()
    with pytest.raises(SpikeplugError, match="has 12 inputs, but 13 were given"):
        Hessian(12).add(torch.ones(2, 13))
    with pytest.raises(SpikeplugError, match="NaN or infinity"):
        Hessian(2).add(torch.tensor([[1.0, float("nan")]]))


def test_dead_channels() -> None:
    hessian = Hessian(4)
    hessian.add(torch.tensor([[1.0, 0, 2, 0], [3, 0, 0, 0]]))
    assert hessian.dead_channels() == (1, 3)


def test_layers_that_share_inputs_share_one_factor() -> None:
    hessian = Hessian(12)
    hessian.add(torch.randn(40, 12, generator=torch.Generator().manual_seed(1)))
    first = hessian.inverse_factor(0.1, True)
    assert hessian.inverse_factor(0.1, True) is first
    for found, expected in zip(first, inverse_factor(hessian.matrix(), 0.1, True), strict=True):
        assert torch.equal(found, expected)
    assert torch.equal(hessian.mean_squares(), hessian.matrix().diagonal())
    assert not torch.equal(hessian.inverse_factor(0.2, True)[1], first[1])
    hessian.add(torch.ones(1, 12))
    assert torch.equal(hessian.inverse_factor(0.1, True)[1], inverse_factor(hessian.matrix(), 0.1, True)[1])
