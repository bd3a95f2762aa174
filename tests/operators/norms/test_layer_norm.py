"""LayerNorm: the bound of operators/README.md (large means above all), and bad input."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from operators.inputs import both, half_step, inf, nan, rows
from torch import Tensor

from spikeplug.codes import decode, encode
from spikeplug.errors import SpikeplugError
from spikeplug.functional import layer_norm, rms_norm
from spikeplug.numerics import Numerics
from spikeplug.saturation import saturations

dimensions = pytest.mark.parametrize("dimension", [1, 2, 7, 64, 577, 4096])
accurate = pytest.mark.parametrize(
    "numerics",
    [
        Numerics(),
        Numerics(bits=8),
        Numerics(bits=12, working_bits=16),
        Numerics(norm="cordic", iterations=12),
    ],
    ids=["default", "8 bits", "12 bits", "cordic"],
)


def core_bound(exact: Tensor, numerics: Numerics) -> Tensor:
    """What RMSNorm's integers lose of a vector coded with P bits of its own, whose norm is at least its largest."""
    dimension = exact.shape[-1]
    levels, unit = dimension.bit_length(), 2.0 ** (2 - numerics.working_bits)
    cordic = levels * 2.0 ** (1 - 2 * numerics.iterations) if numerics.norm == "cordic" else 0.0
    length = cordic + (math.sqrt(dimension + 1) / 2 + 3 * 2 ** (levels / 2)) * unit + 2.0**-16 / math.sqrt(dimension)
    return exact.abs() * length / (1 - length) + math.sqrt(dimension) * 2 * unit + half_step(exact, numerics)


def bound(x: Tensor, eps: float, numerics: Numerics) -> Tensor:
    """Of |spiking - exact|: what coding x with P bits loses (u: the code's step), then the core's."""
    dimension = x.shape[-1]
    centred = x - x.mean(-1, keepdim=True)
    norm = (centred.square().sum(-1, keepdim=True) + eps * dimension).sqrt()
    exact = centred * math.sqrt(dimension) / norm
    top = x.abs().amax(-1, keepdim=True).clamp(min=math.sqrt(eps * dimension))
    relative = top * 2.0 ** (2 - numerics.working_bits) / norm  # u/N
    rho = math.sqrt(dimension + 1) / 2 * relative
    coding = (math.sqrt(dimension) * relative + exact.abs() * rho) / (1 - rho)
    coding = torch.where(rho < 1, coding, math.inf)  # a deviation below the step of the code: nothing is promised
    return coding + core_bound(exact.abs() + coding, numerics)


def large_means(dimension: int) -> Tensor:
    """Deviations around means 0 to 10^6 times as large, of either sign, and with an outlier."""
    torch.manual_seed(dimension)
    x = torch.randn(24, dimension, dtype=torch.float64)
    x[1::4, 0] *= 50
    means = torch.logspace(0, 6, 24, dtype=torch.float64) * torch.where(torch.arange(24) % 2 == 0, 1, -1)
    return (x + means[:, None]) * torch.logspace(-6, 6, 24, dtype=torch.float64).flip(0)[:, None]


@accurate
@dimensions
@pytest.mark.parametrize("eps", [1e-5, 1e-12])
def test_the_bound(numerics: Numerics, dimension: int, eps: float) -> None:
    for x in (rows(dimension), large_means(dimension)):
        error = (layer_norm(x, eps=eps, numerics=numerics) - F.layer_norm(x, (dimension,), None, None, eps)).abs()
        assert bool((error <= bound(x, eps, numerics)).all())


@accurate
@dimensions
def test_beyond_the_coding_of_the_input_a_mean_costs_nothing(numerics: Numerics, dimension: int) -> None:
    """On inputs that P bits hold exactly, only RMSNorm's own bound is left, whatever the mean."""
    code = encode(large_means(dimension), numerics.working_bits)
    x = decode(code, torch.float64)
    integers = code.mantissa.to(torch.float64)
    centred = integers - integers.mean(-1, keepdim=True)
    exact = centred * math.sqrt(dimension) / centred.norm(dim=-1, keepdim=True).clamp(min=1e-300)
    assert bool(((layer_norm(x, eps=0.0, numerics=numerics) - exact).abs() <= core_bound(exact, numerics)).all())


def test_a_mean_thousands_of_times_the_deviation() -> None:
    x = torch.randn(50, 768, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 4096
    assert (layer_norm(x) - F.layer_norm(x, (768,))).abs().max() < 4096 * 2.0**-19
    assert (layer_norm(x - 4096) - F.layer_norm(x, (768,))).abs().max() < 2.0**-13


@both
@pytest.mark.parametrize("value", [0.0, 1.0, -3.7, 3e38, 1e-45])
def test_a_constant_vector_gives_the_bias(value: float, numerics: Numerics) -> None:
    x, bias = torch.full((3, 7), value), torch.randn(7)
    for eps in (0.0, 1e-5):
        assert not layer_norm(x, eps=eps, numerics=numerics).any()
        assert torch.equal(layer_norm(x, torch.randn(7), bias, eps, numerics=numerics), bias.expand(3, 7))


@both
def test_signs_scales_and_centred_vectors(numerics: Numerics) -> None:
    x = torch.randint(-99, 100, (20, 9)).float()
    assert torch.equal(layer_norm(-x, numerics=numerics), -layer_norm(x, numerics=numerics))
    assert torch.equal(layer_norm(x * 2.0**40, eps=0.0, numerics=numerics), layer_norm(x, eps=0.0, numerics=numerics))
    centred = torch.cat([x, -x], -1)
    difference = layer_norm(centred, eps=0.0, numerics=numerics) - rms_norm(centred, None, 0.0, numerics=numerics)
    assert difference.abs().max() <= 4 * 2.0 ** (1 - numerics.bits)


@both
def test_weight_and_bias(numerics: Numerics) -> None:
    x, weight, bias = torch.randn(5, 8), torch.randn(8), torch.randn(8)
    plain = layer_norm(x, numerics=numerics)
    assert torch.equal(layer_norm(x, weight, bias, numerics=numerics), plain * weight + bias)
    assert torch.equal(layer_norm(x, None, bias, numerics=numerics), plain + bias)
    assert layer_norm(x.half(), weight, numerics=numerics).dtype == torch.float32
    for shape in ((0,), (0, 4), (4, 0), (2, 0, 3)):
        assert layer_norm(torch.ones(shape), torch.ones(shape[-1]), numerics=numerics).shape == shape


@both
@pytest.mark.parametrize("row", [[nan, 1.0, 2.0], [inf, 1.0, 2.0], [-inf, 1.0, 2.0], [inf, -inf, nan]], ids=str)
def test_what_is_not_finite_is_nan(row: list[float], numerics: Numerics) -> None:
    result = layer_norm(torch.tensor([row, [0.5, -1.0, 2.0]]), numerics=numerics)
    assert result[0].isnan().all()
    assert torch.isfinite(result[1]).all(), "the healthy row beside it is unharmed"
    assert saturations()["input: not finite"] > 0


@both
def test_extremes(numerics: Numerics) -> None:
    half = 2.0 ** (1 - numerics.bits)
    x = torch.tensor([[3.4e38, -3.4e38], [1e30, -1e30], [1e-45, 0.0], [1e-30, -1e-30]])
    result = layer_norm(x, numerics=numerics)
    assert torch.allclose(result[:2], torch.tensor([1.0, -1.0]), atol=half, rtol=0)
    assert torch.allclose(result[2:], torch.zeros(2), atol=half, rtol=0)


def test_arguments() -> None:
    x = torch.zeros(2, 4)
    for eps in (-1.0, nan, inf, "1e-5"):
        with pytest.raises(SpikeplugError, match="layer_norm got eps"):
            layer_norm(x, eps=eps)  # type: ignore[arg-type]
    with pytest.raises(SpikeplugError, match="weight of shape"):
        layer_norm(x, torch.ones(3))
    with pytest.raises(SpikeplugError, match="bias of shape"):
        layer_norm(x, None, torch.ones(2, 4))
    with pytest.raises(SpikeplugError, match="dimension"):
        layer_norm(torch.tensor(3.0))
