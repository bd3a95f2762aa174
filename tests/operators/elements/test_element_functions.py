"""exp, log, quotients and powers: the relative bounds of operators/README.md; torch's results at zeros, infinities, NaN
and the ends of the range."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from operators.inputs import PAPER, inf, nan, same, weight_error
from torch import Tensor

from spikeplug import functional
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.saturation import saturations

EXACT: dict[str, Callable[..., Tensor]] = {
    name: getattr(torch, name) for name in ("exp", "log", "reciprocal", "sqrt", "rsqrt", "square")
}
ELEMENTWISE: dict[str, Callable[..., Tensor]] = {name: getattr(functional, name) for name in EXACT}
each = pytest.mark.parametrize("name", ELEMENTWISE)
OURS = [Numerics(), Numerics(bits=8), Numerics(bits=12, working_bits=16, norm="cordic", iterations=12)]
accurate = pytest.mark.parametrize("numerics", [*OURS, PAPER], ids=["default", "8 bits", "12 bits, cordic", "paper"])
FINITE = [0.0, -0.0, 1.0, -1.0, 3.3e38, -3.3e38, 1.2e-38, 1e-40, 1e-45, -1e-45, 0.5, 2.0, 88.0, -100.0]
NASTY = [*FINITE, inf, -inf, nan]


def spread(count: int = 4000) -> Tensor:
    """Positive float64 over the whole float32 range, with powers of two and their neighbours."""
    generator = torch.Generator().manual_seed(count)
    x = torch.ldexp(
        1 + torch.rand(count, generator=generator, dtype=torch.float64),
        torch.randint(-140, 128, (count,), generator=generator),
    )
    powers = torch.ldexp(torch.ones(81, dtype=torch.float64), torch.arange(-40, 41))
    return torch.cat([x, powers, powers * (1 + 2.0**-52), powers * (1 - 2.0**-53)])


def relative(numerics: Numerics) -> float:
    return 2.0**-numerics.bits + 2.0 ** (3 - numerics.working_bits)


@accurate
def test_relative_bounds(numerics: Numerics) -> None:
    x = spread()
    signed_x = x * torch.where(torch.arange(len(x)) % 2 == 0, 1, -1)
    pairs = [(functional.divide(signed_x, x.flip(0), numerics=numerics), signed_x / x.flip(0))]
    pairs += [(ELEMENTWISE[name](x, numerics=numerics), EXACT[name](x)) for name in ("sqrt", "rsqrt")]
    pairs += [
        (ELEMENTWISE[name](signed_x, numerics=numerics), EXACT[name](signed_x)) for name in ("reciprocal", "square")
    ]
    for spiking, exact in pairs:
        assert bool(((spiking - exact).abs() <= exact.abs() * relative(numerics)).all())


@accurate
def test_log(numerics: Numerics) -> None:
    x = spread()
    lsb = math.log(2) * 2.0**-numerics.bits
    segments = 2.0 ** math.ceil(numerics.bits / 2)
    bound = lsb * (0.5 if numerics.shift_scaling else 1) + 1 / (8 * segments**2) + 2.0 ** (3 - numerics.working_bits)
    assert bool(((functional.log(x, numerics=numerics) - x.log()).abs() <= bound).all())
    powers = torch.ldexp(torch.ones(200, dtype=torch.float64), torch.arange(-100, 100))
    assert torch.equal(functional.log(powers, numerics=numerics), torch.arange(-100, 100).double() * math.log(2))


@pytest.mark.parametrize("numerics", [*OURS, Numerics(fraction_bits=16, segments=128)], ids=str)
def test_exp(numerics: Numerics) -> None:
    x = torch.cat([torch.linspace(-80, 80, 20011), torch.tensor([0.0, 1e-9, -1e-9, 700.0, -700.0])]).double()
    delta = weight_error(numerics)
    bound = x.exp() * (delta + 2.0**-numerics.bits * (1 + delta))
    assert bool(((functional.exp(x, numerics=numerics) - x.exp()).abs() <= bound).all())
    octaves = torch.arange(-60, 60).double() * math.log(2)
    assert torch.equal(functional.exp(octaves, numerics=numerics), torch.exp2(torch.arange(-60, 60).double()))


def test_exp_of_the_published_form() -> None:
    """Chords, slopes of 8 bits and intercepts of 16, the input's step, then n significant bits."""
    half_range = PAPER.softmax_half_range
    x = torch.linspace(-half_range, half_range, 20011, dtype=torch.float64)
    width = 2 * half_range / PAPER.segments + 2.0**-PAPER.fraction_bits  # knots lie on the input's grid
    chord = width**2 / 8 * math.exp(width) + 2.0**-16 + math.expm1(width) * 2.0**-8
    step = math.expm1(2.0 ** -(PAPER.fraction_bits + 1))
    pwl = x.exp() * (chord + step + chord * step) + 1.5 * 2.0**-PAPER.working_bits
    bound = pwl + (x.exp() + pwl) * 2.0**-PAPER.bits
    assert bool(((functional.exp(x, numerics=PAPER) - x.exp()).abs() <= bound).all())
    assert saturations() == {}
    saturated = functional.exp(torch.tensor([10.5, 3e38, -10.5, -3e38]), numerics=PAPER)
    assert saturated.tolist() == [22016.0, 22016.0, 0.0, 0.0]
    assert saturations() == {"exp: exponent beyond H": 4}


@each
def test_the_extremes_are_torchs(name: str) -> None:
    x = torch.tensor(NASTY)
    exact, spiking = EXACT[name](x), ELEMENTWISE[name](x)
    assert torch.allclose(spiking, exact, rtol=2e-4, atol=2e-5 if name == "log" else 1e-44, equal_nan=True)
    special = ~torch.isfinite(exact)
    assert same(ELEMENTWISE[name](x, numerics=PAPER)[special], exact[special]) or name == "exp"
    assert ELEMENTWISE[name](torch.tensor([inf, -inf, nan]), numerics=PAPER).tolist()[2] != 0


def test_division_at_the_extremes_is_torchs() -> None:
    a, b = torch.tensor(NASTY)[:, None], torch.tensor(NASTY)[None, :]
    for numerics in (Numerics(), PAPER):
        spiking = functional.divide(a, b, numerics=numerics)
        assert torch.allclose(spiking, a / b, rtol=relative(numerics), atol=2e-45, equal_nan=True)
    assert math.copysign(1, float(functional.reciprocal(torch.tensor(-0.0)))) == -1


def test_division_broadcasts() -> None:
    a, b = torch.randn(3, 4, 5), torch.randn(4, 1)
    shared = functional.divide(a, b)
    assert torch.equal(shared, functional.divide(a, b.expand(3, 4, 5).contiguous()))
    x = a.flatten(0, 1)
    by_row = torch.cat([functional.divide(row, row[:1]) for row in x]).view(12, 5)
    assert torch.equal(functional.divide(x, x[:, :1]), by_row)
    for first, second in (
        (a, b[:, 0].unsqueeze(0)[:, :1]),
        (a, torch.tensor(2.0)),
        (torch.tensor(2.0), a),
        (b, a[..., :1]),
    ):
        assert torch.allclose(functional.divide(first, second), first / second, rtol=2e-5)
    assert functional.divide(torch.tensor(3.0), torch.tensor(2.0)).item() == 1.5
    assert functional.divide(torch.zeros(0, 3), torch.ones(3)).shape == (0, 3)
    for left, right in (
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float16),
        (torch.float64, torch.float32),
    ):
        assert functional.divide(a.to(left), a.to(right)).dtype == torch.result_type(a.to(left), a.to(right))
    with pytest.raises(SpikeplugError, match="broadcast"):
        functional.divide(torch.zeros(2), torch.zeros(3))
    with pytest.raises(SpikeplugError, match="takes a"):
        functional.divide(torch.zeros(2), 3.0)  # type: ignore[arg-type]
