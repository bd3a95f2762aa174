"""Cosine and sine: the bound of operators/README.md at every phase, and far positions."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from operators.inputs import NUMERICS, both, inf, nan
from torch import Tensor

from spikeplug.codes import decode, encode_phase
from spikeplug.functional import cos, sin
from spikeplug.numerics import Numerics
from spikeplug.operators.waves.wave import sine_integers
from spikeplug.primitives.arithmetic import Closed
from spikeplug.saturation import saturations

named = pytest.mark.parametrize("name", NUMERICS)
waves = pytest.mark.parametrize(("wave", "exact"), [(sin, torch.sin), (cos, torch.cos)], ids=["sin", "cos"])


def bound(x: Tensor, numerics: Numerics) -> Tensor:
    """Of |spiking - exact|: rounding (or floor), chords, phase, knots and floor of the table, the encoder's product."""
    step, fine = 2.0**-numerics.bits, 2.0**-numerics.working_bits
    table = (math.pi / 2) ** 2 / 8 / 4.0 ** math.ceil(numerics.bits / 2) + 1.5 * fine
    phase = fine if numerics.input_bits is None else 2.0**-numerics.input_bits  # half a step of a turn of 2π
    return step * (0.5 if numerics.shift_scaling else 1) + table + math.pi * (phase + fine) + x.abs() * 2.0**-52


@waves
@named
def test_the_bound(wave: Callable[..., Tensor], exact: Callable[..., Tensor], name: str) -> None:
    numerics, generator = NUMERICS[name], torch.Generator().manual_seed(0)
    near = torch.linspace(-20, 20, 8001, dtype=torch.float64)
    far = (torch.rand(4000, generator=generator, dtype=torch.float64) - 0.5) * 2.0**21
    quarters = torch.arange(-4000, 4000) * (math.pi / 2)
    for x in (near, far, quarters.double(), far.float().double(), torch.arange(2.0**20 - 999, 2.0**20).double()):
        assert bool(((wave(x, numerics=numerics) - exact(x)).abs() <= bound(x, numerics)).all())


@named
def test_every_phase(name: str) -> None:
    """At the phase itself only the table's error and the rounding are left; sin(-φ) = -sin(φ) to the bit."""
    numerics = NUMERICS[name]
    turn = 1 << numerics.working_bits
    phase = torch.arange(turn, dtype=torch.int32)[:: max(1, turn >> 17)]
    on = Closed(numerics)
    code = sine_integers(phase, on)
    sine = code.mantissa
    exact = (phase.double() * (2 * math.pi / turn)).sin()
    error = (decode(code, torch.float64) - exact).abs()
    assert bool((error <= bound(torch.zeros(1), numerics).double() - math.pi / turn + 1e-15).all())
    assert torch.equal(sine_integers(-phase & (turn - 1), on).mantissa, -sine)
    one, quarter = 1 << numerics.bits, turn >> 2
    exact_places = torch.tensor([0, quarter, 2 * quarter, 3 * quarter], dtype=torch.int32)
    assert sine_integers(exact_places, on).mantissa.tolist() == [0, one, 0, -one]


def test_float32_positions_lose_nothing_beyond_their_own_rounding() -> None:
    """The phase of x is that of x taken exactly, by integer arithmetic with 1/(2π) to 200 bits, up to half a step."""
    x = torch.cat(
        [torch.rand(500, generator=torch.Generator().manual_seed(1)) * 2.0**20, torch.tensor([2.0**20, 1e-9])]
    )
    bits = 24
    pi = 3141592653589793238462643383279502884197169399375105820974944  # times 10^-60
    per_turn = (10**60 << 200) // (2 * pi)
    phases = encode_phase(x, bits)
    for value, phase in zip(x.tolist(), phases.tolist(), strict=True):
        numerator, denominator = value.as_integer_ratio()
        fine = (numerator * per_turn * 1024 // (denominator << (200 - bits))) % (1024 << bits)
        distance = (fine - phase * 1024 + (512 << bits)) % (1024 << bits) - (512 << bits)
        assert abs(distance) <= 513, value


@both
@waves
def test_extremes(wave: Callable[..., Tensor], exact: Callable[..., Tensor], numerics: Numerics) -> None:
    x = torch.tensor([nan, inf, -inf, 3.4e38, -3.4e38, 1e-45, -0.0, 1e30])
    result = wave(x, numerics=numerics)
    assert result[:3].isnan().all()
    assert bool((result[3:].abs() <= 1).all()), "far beyond any position a phase is arbitrary, but it is one"
    assert result[5:7].tolist() == exact(torch.zeros(2)).tolist()
    assert saturations() == {"input: not finite": 3}
