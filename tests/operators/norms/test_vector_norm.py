"""The norm of a vector: the bound of operators/README.md, torch's shapes, and its results at the extremes."""

from __future__ import annotations

import math

import pytest
import torch
from operators.inputs import PAPER, inf, nan

from spikeplug.errors import SpikeplugError
from spikeplug.functional import vector_norm
from spikeplug.numerics import Numerics

OURS = [Numerics(), Numerics(bits=8), Numerics(bits=12, working_bits=16, norm="cordic", iterations=12)]


@pytest.mark.parametrize("dimension", [1, 2, 7, 64, 577])
@pytest.mark.parametrize("numerics", OURS, ids=str)
def test_the_bound(numerics: Numerics, dimension: int) -> None:
    torch.manual_seed(dimension)
    x = torch.randn(40, dimension, dtype=torch.float64) * torch.logspace(-30, 30, 40, dtype=torch.float64)[:, None]
    x[::3, 0] *= 500
    levels = dimension.bit_length()
    cordic = levels * 2.0 ** (1 - 2 * numerics.iterations) if numerics.norm == "cordic" else 0.0
    length = cordic + (math.sqrt(dimension + 1) / 2 + 3 * 2 ** (levels / 2)) * 2.0 ** (2 - numerics.working_bits)
    exact = torch.linalg.vector_norm(x, dim=-1)
    bound = exact * (length + 2.0**-numerics.bits * (1 + length))
    assert bool(((vector_norm(x, numerics=numerics) - exact).abs() <= bound).all())


@pytest.mark.parametrize(
    ("row", "norm"),
    [
        ([nan, inf], nan),
        ([inf, 1.0], inf),
        ([-inf, -inf], inf),
        ([0.0, 0.0], 0.0),
        ([3e30, -4e30], 5e30),
        ([3e38, 3e38], inf),
    ],
)
def test_norms_at_the_extremes(row: list[float], norm: float) -> None:
    for numerics in (Numerics(), PAPER):
        result = vector_norm(torch.tensor(row), numerics=numerics)
        assert torch.allclose(result, torch.tensor(norm), rtol=2.0 ** (1 - numerics.bits), equal_nan=True)


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("shape", [(), (3,), (0,), (2, 0), (0, 2), (2, 3, 4)])
def test_norm_shapes_are_torchs(shape: tuple[int, ...], keepdim: bool) -> None:
    x = torch.ones(shape)
    for dim in range(-max(1, len(shape)), max(1, len(shape))):
        exact = torch.linalg.vector_norm(x, dim=dim, keepdim=keepdim)
        result = vector_norm(x, dim, keepdim)
        assert result.shape == exact.shape
        assert torch.allclose(result, exact, rtol=2e-5)
    for dim in (3, -4, "x", None, 1.0, True):
        with pytest.raises(SpikeplugError, match="dim"):
            vector_norm(x, dim)  # type: ignore[arg-type]


def test_a_norm_over_many_channels_of_many_bits() -> None:
    """Its squares need more than the 62 bits of a root; the sum loses its low bits."""
    assert vector_norm(torch.ones(1 << 16), numerics=Numerics(working_bits=24)).item() == 256
