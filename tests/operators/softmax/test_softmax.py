"""Softmax: the bound of operators/README.md, what holds exactly, and results at the extremes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operators.inputs import PAPER, ROWS, accurate, both, half_step, inf, nan, rows, weight_error

from spikeplug.errors import SpikeplugError
from spikeplug.functional import softmax
from spikeplug.numerics import Numerics
from spikeplug.saturation import saturations


@pytest.mark.parametrize("dimension", [1, 2, 7, 64, 577, 4096])
@accurate
def test_the_bound(numerics: Numerics, dimension: int) -> None:
    x = rows(dimension)
    exact, spiking = x.softmax(-1), softmax(x, numerics=numerics)
    delta = weight_error(numerics)
    # floors: each weight may lose one LSB of the largest weight (>= 2^(P-1)), and so may numerator and denominator
    lost = (dimension + 8) * 2.0 ** (1 - numerics.working_bits)
    top = exact.amax(-1, keepdim=True)
    bound = (
        exact * (2 * delta / (1 - delta) + lost) + top * 8 * 2.0**-numerics.working_bits + half_step(exact, numerics)
    )
    assert bool(((spiking - exact).abs() <= bound).all())
    assert bool((spiking >= 0).all())
    # a masked key has probability 0, and so has its row's sum nothing of it
    x[:, -1] = -math.inf
    assert not softmax(x, numerics=numerics)[:, -1].any()


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_results_at_the_extremes_are_torchs(row: list[float]) -> None:
    """Apart from rows torch makes NaN out of nothing but -inf."""
    x = torch.tensor([row])
    if all(value == -inf for value in row):
        assert softmax(x).tolist() == [[0.0] * 3]
    else:
        assert torch.allclose(softmax(x), x.softmax(-1), atol=1e-4, rtol=1e-3, equal_nan=True)


def test_saturations_are_counted() -> None:
    softmax(torch.tensor([[nan, 0.0], [inf, 0.0], [-inf, 0.0], [1.0, 0.0]]))
    assert saturations() == {"softmax: row not finite": 2}
    softmax(torch.tensor([[0.0, -9.0, -11.0, -inf]]), numerics=PAPER)
    assert saturations()["softmax: exponent below -H"] == 1


def test_ties_and_scalars() -> None:
    assert softmax(torch.zeros(2, 8)).unique().tolist() == [0.125]
    assert softmax(torch.tensor(3.0)).item() == 1.0


@pytest.mark.parametrize("dim", [2, -3, 1.0, None, "x"])
def test_a_dim_that_is_not_there(dim: object) -> None:
    with pytest.raises(SpikeplugError, match="dim"):
        softmax(torch.zeros(2, 2), dim)  # type: ignore[arg-type]


@given(st.integers(-50, 50), st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_softmax_is_shift_invariant(octaves: int, length: int) -> None:
    """Exactly so for shifts by whole octaves, up to the float32 rounding of the encoder's product: use float64."""
    x = torch.randn(3, length, dtype=torch.float64, generator=torch.Generator().manual_seed(length))
    x = (x * math.log2(math.e) * 4096).round() / 4096 / math.log2(math.e)
    shifted = x + octaves / math.log2(math.e)
    assert torch.equal(softmax(shifted), softmax(x))


@both
@pytest.mark.parametrize("dim", [0, 1, 2, -1, -3])
def test_softmax_over_any_dim(dim: int, numerics: Numerics) -> None:
    x = torch.randn(4, 5, 6)
    assert torch.equal(
        softmax(x, dim, numerics=numerics), softmax(x.movedim(dim, -1), numerics=numerics).movedim(-1, dim)
    )


def test_softmax_sums_to_one_within_the_rounding_of_its_elements() -> None:
    for length in (1, 2, 100, 5000):
        p = softmax(torch.randn(20, length, dtype=torch.float64) * 3)
        slack = p.amax(-1) * 2.0**-16 * length + length * 2.0**-20
        assert bool(((p.sum(-1) - 1).abs() <= slack + 1e-4).all())


def test_softmax_keeps_order() -> None:
    x = torch.randn(50, 40).sort(-1).values
    assert bool((softmax(x).diff(dim=-1) >= 0).all())


@pytest.mark.parametrize("places", [-20, -1, 3, 60])
def test_a_power_of_two_is_seen(places: int) -> None:
    x = torch.randn(8, 16)
    assert not torch.equal(softmax(torch.ldexp(x, torch.tensor(places))), softmax(x))
