"""RMSNorm: the bound of operators/README.md, what holds exactly, and results at the extremes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from operators.inputs import ACCURATE, ROWS, both, half_step, inf, nan, rows

from spikeplug.errors import SpikeplugError
from spikeplug.functional import rms_norm
from spikeplug.numerics import Numerics


@pytest.mark.parametrize("dimension", [1, 2, 7, 64, 577, 4096])
@pytest.mark.parametrize("numerics", [*ACCURATE, Numerics(norm="cordic", iterations=12)], ids=str)
def test_the_bound(numerics: Numerics, dimension: int) -> None:
    x, eps = rows(dimension), 1e-5
    exact = F.rms_norm(x, (dimension,), None, eps)
    spiking = rms_norm(x, None, eps, numerics=numerics)
    levels = dimension.bit_length()
    cordic = levels * 2.0 ** (1 - 2 * numerics.iterations) if numerics.norm == "cordic" else 0.0
    # ‖x‖: each of d + 1 elements is off by half an LSB of the scale, the root by one; sqrt(d) by 2^-16
    unit = 2.0 ** (2 - numerics.working_bits)
    length = cordic + (math.sqrt(dimension + 1) / 2 + 3 * 2 ** (levels / 2)) * unit + 2.0**-16 / math.sqrt(dimension)
    root = (x.square().sum(-1, keepdim=True) + eps * dimension).sqrt()
    scale = torch.maximum(x.abs().amax(-1, keepdim=True), torch.tensor(math.sqrt(eps * dimension))) / root
    element = scale * math.sqrt(dimension) * unit * 2
    bound = exact.abs() * length / (1 - length) + element + half_step(exact, numerics)
    assert bool(((spiking - exact).abs() <= bound).all())


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_results_at_the_extremes_are_torchs(row: list[float]) -> None:
    x = torch.tensor([row])
    if torch.isfinite(x.square().sum()) or not torch.isfinite(x).all():
        expected = F.rms_norm(x, (3,), None, 1e-5)
        assert torch.allclose(rms_norm(x, None, 1e-5), expected, atol=1e-4, rtol=1e-3, equal_nan=True)


def test_rms_norm_of_values_whose_square_overflows_is_right_where_torch_is_not() -> None:
    x = torch.tensor([[3e30, -4e30]])
    assert F.rms_norm(x, (2,), None, 1e-5).tolist() == [[0.0, -0.0]]
    assert torch.allclose(rms_norm(x, None, 1e-5), torch.tensor([[0.6, -0.8]]) * 2**0.5, atol=1e-4)


@both
def test_zero_vectors_give_zero_even_without_eps(numerics: Numerics) -> None:
    assert not rms_norm(torch.zeros(2, 8), None, 0.0, numerics=numerics).any()


@pytest.mark.parametrize("places", [-20, -1, 3, 60])
def test_a_power_of_two_scales_out(places: int) -> None:
    x = torch.randn(8, 16)
    assert torch.equal(rms_norm(torch.ldexp(x, torch.tensor(places)), None, 0.0), rms_norm(x, None, 0.0))


@both
def test_the_sign_passes(numerics: Numerics) -> None:
    x = torch.randn(6, 50)
    assert torch.equal(rms_norm(-x, None, 1e-5, numerics=numerics), -rms_norm(x, None, 1e-5, numerics=numerics))


def test_arguments() -> None:
    x = torch.zeros(2, 4)
    for eps in (-1.0, nan, inf, "1e-5"):
        with pytest.raises(SpikeplugError, match="eps"):
            rms_norm(x, None, eps)  # type: ignore[arg-type]
    with pytest.raises(SpikeplugError, match="weight"):
        rms_norm(x, torch.ones(3))


@pytest.mark.parametrize("dimension", [8192, 16384, 100_000])
def test_wide_norms(dimension: int) -> None:
    x = torch.randn(2, dimension)
    assert torch.allclose(rms_norm(x), F.rms_norm(x, (dimension,), None, 1e-6), atol=1e-3)
    wide = Numerics(working_bits=24)
    assert torch.allclose(rms_norm(x, numerics=wide), F.rms_norm(x, (dimension,), None, 1e-6), atol=1e-3)
