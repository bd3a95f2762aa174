"""Contract: integers against reals meet the bound stated in operators/README.md, in LSB of the output's own scale."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from spikeplug.coding import encode
from spikeplug.numerics import Numerics
from spikeplug.operators import attention, rms_norm, silu, softmax
from spikeplug.presets import PRESETS

CONFIGS = [Numerics(), Numerics(bits=8), Numerics(bits=12, working_bits=16, segments=8, fraction_bits=10)]
DIMENSIONS = [1, 2, 7, 64, 577, 4096]


def inputs(dimension: int, rows: int = 24) -> Tensor:
    """Gaussian rows, heavy-tailed rows as LLM activations have them, constant, one-hot and tiny ones; float64."""
    torch.manual_seed(dimension)
    x = torch.randn(rows, dimension, dtype=torch.float64) * torch.logspace(-3, 2, rows, dtype=torch.float64)[:, None]
    x[1::4, 0] *= 500
    x[2] = 3.0
    x[3] = 0.0
    x[3, 0] = 1.0
    return x


def weight_error(numerics: Numerics) -> float:
    """δ: relative error of 2^-x from the input's step and the chords (floors are counted apart)."""
    step = math.expm1(math.log(2) * 2.0 ** -(numerics.fraction_bits + 1))
    return step + 2 * (math.log(2) / numerics.segments) ** 2 / 8 + 2 * 1.5 * 2.0**-numerics.working_bits


def half_step(y: Tensor, numerics: Numerics) -> Tensor:
    """At most half an LSB of an output vector: its largest element has at least n - 1 bits."""
    return y.abs().amax(-1, keepdim=True) * 2.0 ** (1 - numerics.bits)


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("numerics", CONFIGS, ids=lambda c: f"{c.bits} bits")
def test_softmax(numerics: Numerics, dimension: int) -> None:
    x = inputs(dimension)
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


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("numerics", CONFIGS, ids=lambda c: f"{c.bits} bits")
def test_silu(numerics: Numerics, dimension: int) -> None:
    x = inputs(dimension)
    exact, spiking = F.silu(x), silu(x, numerics)
    delta = weight_error(numerics)
    top_input = x.abs().amax(-1, keepdim=True)
    sigmoid_error = delta + 2 * 2.0**-numerics.working_bits
    bound = x.abs() * sigmoid_error + top_input * 2.0 ** (2 - numerics.working_bits) + half_step(exact, numerics)
    assert bool(((spiking - exact).abs() <= bound).all())


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("numerics", [*CONFIGS, Numerics(norm="cordic", iterations=12)], ids=str)
def test_rms_norm(numerics: Numerics, dimension: int) -> None:
    x, eps = inputs(dimension), 1e-5
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


@pytest.mark.parametrize("keys", [1, 2, 17, 300])
@pytest.mark.parametrize("numerics", CONFIGS, ids=lambda c: f"{c.bits} bits")
def test_attention(numerics: Numerics, keys: int) -> None:
    torch.manual_seed(keys)
    query, key, value = (torch.randn(1, 2, n, 16, dtype=torch.float64) * 2 for n in (9, keys, keys))
    value[:, :, :: max(1, keys // 3)] *= 100
    mask = torch.rand(9, keys) < 0.7
    mask[:, 0] = True
    probability = (query @ key.mT / 4).masked_fill(~mask, -math.inf).softmax(-1)
    exact = probability @ value
    spiking = attention(query, key, value, mask, numerics=numerics)
    # codes of queries and keys move a score by at most η, a weight by a factor of at most e^η
    h_query, h_key = (
        torch.maximum(x.abs().amax(-1, keepdim=True) / (2**15 - 1), x.norm(dim=-1, keepdim=True) / (2**15.5 - 2))
        for x in (query, key)
    )
    eta = h_query * key.abs().sum(-1, keepdim=True).mT + h_key.mT * query.abs().sum(-1, keepdim=True)
    eta = ((eta + 16 * h_query * h_key.mT) / 4).amax(-1, keepdim=True)
    delta = (1 + weight_error(numerics)) * eta.exp() - 1
    lost = (keys + 8) * 2.0 ** (1 - numerics.working_bits)
    relative = 2 * delta / (1 - delta) + lost
    # every product w·|v| is off relatively; every value by half an LSB of its own scale; every weight beside the values
    # may lose one LSB of the largest weight·scale
    scale = value.abs().amax(-1, keepdim=True)
    absolute = probability @ value.abs() * relative
    coding = probability @ scale * 2.0 ** (1 - numerics.bits)
    floors = (probability * scale.mT).amax(-1, keepdim=True) * 2 * keys * 2.0 ** (2 - numerics.working_bits)
    bound = absolute + coding + floors + half_step(exact, numerics) + exact.abs() * 2.0 ** (3 - numerics.working_bits)
    assert bool(((spiking - exact).abs() <= bound).all())


def test_the_error_is_far_from_the_published_one() -> None:
    """At 2,048 keys a diffuse row is lost at 8 bits a probability, and kept when divided last."""
    torch.manual_seed(0)
    query, key, value = torch.randn(1, 1, 4, 64) * 0.3, torch.randn(1, 1, 2048, 64), torch.randn(1, 1, 2048, 64) + 1
    exact = F.scaled_dot_product_attention(query, key, value)
    ours = attention(query, key, value)
    published = attention(query, key, value, numerics=PRESETS["paper"].numerics)
    assert (ours - exact).abs().max() < 1e-4
    assert (published - exact).abs().max() > 0.5


def test_half_lsb_of_encoding_is_all_a_power_of_two_loses() -> None:
    x = torch.tensor([[0.0, 1.0, 2.0, 4.0]])
    mantissa, exponent, _ = encode(x, 16)
    assert torch.equal(mantissa.float() * torch.exp2(exponent.float()), x)
