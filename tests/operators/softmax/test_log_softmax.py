"""Log-softmax: the bound of operators/README.md, and rows that are nasty."""

from __future__ import annotations

import math

import pytest
import torch
from operators.inputs import PAPER, accurate, both, inf, nan, rows, weight_error

from spikeplug.errors import SpikeplugError
from spikeplug.functional import log_softmax, softmax
from spikeplug.numerics import Numerics
from spikeplug.saturation import saturations


def bound(dimension: int, numerics: Numerics) -> float:
    """Of |spiking - exact|, in nats: the output's rounding, the score's, the sum's, the table's."""
    total = weight_error(numerics) + (dimension + 1) * 2.0 ** (1 - numerics.working_bits)
    rounding = 2.0 ** -(numerics.bits + 1) + 2.0 ** -(numerics.fraction_bits + 1)
    segments = 2.0 ** math.ceil(numerics.bits / 2)
    return math.log(2) * rounding + total / (1 - total) + 1 / (8 * segments**2) + 2.0 ** (2 - numerics.working_bits)


@pytest.mark.parametrize("dimension", [1, 2, 7, 64, 577, 4096])
@accurate
def test_the_bound(numerics: Numerics, dimension: int) -> None:
    x = rows(dimension)
    assert bool(((log_softmax(x, numerics=numerics) - x.log_softmax(-1)).abs() <= bound(dimension, numerics)).all())
    if dimension > 1:
        x[:, -1] = -inf
        spiking, exact = log_softmax(x, numerics=numerics), x.log_softmax(-1)
        assert bool((spiking[:, -1] == -inf).all())
        assert bool(((spiking - exact)[:, :-1].abs() <= bound(dimension, numerics)).all())


def test_the_published_form_is_its_own_softmaxs_logarithm() -> None:
    """Within the range of its exponential: chords and slopes (3e-2 at K = 64 on [-10, 10]), then one step of 2^-8."""
    x = torch.rand(40, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 9
    error = log_softmax(x, numerics=PAPER) - x.log_softmax(-1)
    half_range = PAPER.softmax_half_range
    width = 2 * half_range / PAPER.segments + 2.0**-PAPER.fraction_bits
    chord = width**2 / 8 * math.exp(width) + 2.0**-16 + math.expm1(width) * 2.0**-8
    floors = 60 * 1.5 * 2.0**-PAPER.working_bits
    total = (1 + chord) * math.exp(2.0**-PAPER.fraction_bits) - 1 + floors
    segments = 2.0 ** math.ceil(PAPER.bits / 2)
    inner = total / (1 - total) + 1 / (8 * segments**2) + 2.0 ** -(PAPER.fraction_bits + 1) + 2.0 ** (5 - 22)
    assert bool((error >= -inner).all())
    assert bool((error <= inner + 2.0**-8).all())
    assert saturations() == {}


def test_huge_and_deep_scores_are_torchs() -> None:
    lowest = torch.finfo(torch.float32).min
    x = torch.tensor(
        [
            [1e30, -1e30, 1.0, 0.0],
            [3.4e38, 3.4e38, -3.4e38, 0.0],
            [lowest, lowest, lowest, lowest],
            [-1e30, -1.1e30, -3.4e38, -inf],
            [0.0, -1e30, lowest, 1.0],
            [0.0, -2e5, -1e6, -inf],
        ]
    )
    assert torch.allclose(log_softmax(x), x.log_softmax(-1), rtol=1e-6, atol=2e-4)
    assert torch.allclose(log_softmax(x, numerics=PAPER), x.log_softmax(-1), rtol=1e-6, atol=1e-2)
    y = torch.tensor([[1e300, -1e300, 0.0], [0.0, -1.7e308, 1.0]], dtype=torch.float64)
    assert torch.allclose(log_softmax(y), y.log_softmax(-1), rtol=1e-7, atol=2e-4)


@both
def test_far_scores_keep_27_bits(numerics: Numerics) -> None:
    far = -(10 ** torch.linspace(7, 300, 2000, dtype=torch.float64))
    for largest in (0.0, -1e6, 1e200):
        x = torch.stack([torch.full_like(far, largest), far], -1)
        error = (log_softmax(x, numerics=numerics) - x.log_softmax(-1))[:, 1].abs()
        step = 2.0**-27 + 2.0 ** (numerics.fraction_bits - numerics.bits - 27)
        assert bool((error <= far.abs().clamp(min=abs(largest)) * step).all())


def test_a_row_too_large_for_the_fraction_loses_its_lowest_bits_only() -> None:
    x = torch.randn(30, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 1e6
    # log2(1e6·log2 e) = 20.5: with F = 12, 4 bits beyond the 29 of a score
    assert bool(((log_softmax(x) - x.log_softmax(-1)).abs() <= bound(50, Numerics(fraction_bits=8))).all())


@both
def test_rows_that_are_not_finite(numerics: Numerics) -> None:
    x = torch.tensor([[nan, 1.0], [inf, 1.0], [inf, -inf], [-inf, -inf], [-inf, 3.0], [nan, -inf]])
    result = log_softmax(x, numerics=numerics)
    assert result[[0, 1, 2, 5]].isnan().all()
    assert result[3].tolist() == [-inf, -inf]
    assert result[4, 0] == -inf
    assert -bound(2, numerics) <= result[4, 1] <= 0
    assert torch.equal(result[3].exp(), softmax(x[3], numerics=numerics)), "as the logarithm of softmax"


@both
def test_no_probability_exceeds_one(numerics: Numerics) -> None:
    x = torch.randn(200, 3) * 10
    assert bool((log_softmax(x, numerics=numerics) <= 0).all())


@both
@pytest.mark.parametrize("dim", [0, 1, 2, -1, -3])
def test_any_dim(dim: int, numerics: Numerics) -> None:
    x = torch.randn(4, 5, 6)
    expected = log_softmax(x.movedim(dim, -1), numerics=numerics).movedim(-1, dim)
    assert torch.equal(log_softmax(x, dim, numerics=numerics), expected)


@both
def test_a_block_without_a_deep_score_is_as_one_with(numerics: Numerics, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(14, 20) * 4
    x[3, 4] = -1e30  # one block has a deep score, the others none
    whole = log_softmax(x, numerics=numerics)
    monkeypatch.setattr("spikeplug.operators.rows.BLOCK", 50)
    assert torch.equal(log_softmax(x, numerics=numerics), whole)


def test_arguments() -> None:
    for dim in (2, -3, 1.0, None, "x", True):
        with pytest.raises(SpikeplugError, match="log_softmax got dim"):
            log_softmax(torch.zeros(2, 2), dim)  # type: ignore[arg-type]
