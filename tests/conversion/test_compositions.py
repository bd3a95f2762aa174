"""Test functions composed of redirected ones: they are close to torch's result, and no part runs in floats."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from spikeplug.conversion import audit, convert

X = torch.cat([torch.linspace(-6, 6, 301), torch.linspace(-1e-3, 1e-3, 19)]).view(10, 32)
ROWS = torch.randn(10, 32, generator=torch.Generator().manual_seed(0))
TRIANGLE = torch.tril(ROWS[:, :10] * 0.3) + torch.eye(10) * 2

CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "expm1": torch.expm1,
    "logsumexp": lambda x: torch.logsumexp(x, -1),
    "logsumexp of one dimension kept": lambda x: x.logsumexp((0,), keepdim=True),
    "softmin": lambda x: F.softmin(x, -1),
    "elu": lambda x: F.elu(x, 0.7),
    "elu in place": lambda x: F.elu(x.clone(), inplace=True),
    "celu": lambda x: F.celu(x, 1.3),
    "selu": F.selu,
    "tanhshrink": F.tanhshrink,
    "softsign": F.softsign,
    "erf": torch.erf,
    "erfc": torch.special.erfc,
    "gelu spelt out": lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))),
    "cosine similarity": lambda x: F.cosine_similarity(x[:, None], ROWS[None], dim=-1),
    "normalize": lambda x: F.normalize(x, dim=0),
    "standard deviation": lambda x: x.std(-1),
    "a power of a tensor": lambda x: torch.pow(x.abs() + 0.5, ROWS),
    "a whole power of a negative number": lambda x: x ** torch.arange(4).repeat(8),
    "powers of a number": lambda x: (x.abs() + 0.1) ** 1.5 + x**1 + x**4 + x**0,
    "polar": lambda x: torch.view_as_real(torch.polar(ROWS, x)),
    "batch norm": lambda x: F.batch_norm(x, ROWS[0], ROWS[1].abs() + 0.1, ROWS[2], ROWS[3]),
    "lower triangular system": lambda x: torch.linalg.solve_triangular(TRIANGLE, x, upper=False),
    "upper triangular system": lambda x: torch.linalg.solve_triangular(TRIANGLE.mT, x, upper=True),
    "system from the right": lambda x: torch.linalg.solve_triangular(TRIANGLE, x.mT, upper=False, left=False),
    "unit triangular systems": lambda x: torch.linalg.solve_triangular(
        TRIANGLE.expand(3, 10, 10), x, upper=False, unitriangular=True
    ),
}


class Calls(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize("name", CALLS)
def test_close_to_torch_and_not_in_floating_point(name: str) -> None:
    model = Calls(CALLS[name])
    exact = model(X)
    report = convert(model)
    with audit(model) as found:
        spiking = model(X)
    assert found.counts == {}
    assert report.leftovers == ()
    assert spiking.shape == exact.shape
    # Each operator is good to about 2^-16 of its vector's largest value, and no composition has more than four.
    assert float((spiking - exact).abs().max()) <= 2**-12 * float(exact.abs().max())


def test_corners_are_those_of_torch() -> None:
    x = torch.tensor([-math.inf, -0.0, 0.0, math.inf, math.nan])
    for function in (torch.erf, F.elu, torch.expm1, lambda x: torch.logsumexp(x[:, None], 1)):
        model = Calls(function)
        exact = model(x)
        convert(model)
        torch.testing.assert_close(model(x), exact, equal_nan=True, rtol=0, atol=2**-12)


def test_a_batch_norm_in_training_stays_as_it_is() -> None:
    model = nn.BatchNorm1d(32).train()
    expected = F.batch_norm(X, None, None, model.weight, model.bias, training=True)
    convert(model)
    assert torch.equal(model(X), expected)


WHOLE = torch.arange(-40.0, 40.0)
DIVISORS = torch.tensor([1.5, -1.5, 0.3, -7.0]).repeat(20)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: x // y,
        lambda x, y: 7 // y + x * 0,
        lambda x, y: torch.floor_divide(x * 1.5, y),
        lambda x, y: torch.div(x + 0.05, y, rounding_mode="trunc"),
        lambda x, y: (x * 1e5) // y,
    ],
)
def test_rounded_quotients_are_exact(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Thresholds at multiples of the divisor correct the operator's quotient."""
    model = Calls(lambda x: torch.sigmoid(x) * 0 + function(x, DIVISORS))
    exact = model(WHOLE)
    convert(model)
    with audit(model) as found:
        assert torch.equal(model(WHOLE), exact)
    assert found.counts == {}


@pytest.mark.parametrize("function", [torch.remainder, torch.fmod, lambda x, y: x % y])
def test_remainders(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    model = Calls(lambda x: torch.sigmoid(x) * 0 + function(x, DIVISORS))
    exact = model(WHOLE)
    convert(model)
    with audit(model) as found:
        spiking = model(WHOLE)
    assert found.counts == {}
    torch.testing.assert_close(spiking, exact, rtol=0, atol=1e-5)


WEIGHT, TARGET = torch.rand(32, generator=torch.Generator().manual_seed(2)), torch.randint(0, 32, (10,))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_every_form_of_cross_entropy(reduction: str, weight: Tensor | None, label_smoothing: float) -> None:
    how = {"reduction": reduction, "weight": weight, "label_smoothing": label_smoothing}
    skipped = TARGET.clone()
    skipped[0] = -100
    for x, target in (
        (X, TARGET),
        (X, skipped),
        (X, ROWS.softmax(-1)),
        (X[0], TARGET[0]),
        (X.view(2, 32, 5), TARGET.view(2, 5)),
    ):
        model = Calls(lambda x, target=target: F.cross_entropy(x, target, **how))
        exact = model(x)
        convert(model)
        with audit(model) as found:
            spiking = model(x)
        assert found.counts == {}
        torch.testing.assert_close(spiking, exact, rtol=1e-3, atol=1e-3)
