"""Cosine and sine: simulated equals closed, the bound of operators/README.md at every phase, and far positions."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from test_simulation import CONFIGS, KINDS, NoFloat, same, vectors
from torch import Tensor

from spikeplug.errors import SpikeplugError
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.operators import cos, sin
from spikeplug.operators.rotary import encode_phase, sine_integers
from spikeplug.presets import PRESETS
from spikeplug.primitives.arithmetic import Closed, Simulated
from spikeplug.saturation import saturations

nan, inf = math.nan, math.inf
both = pytest.mark.parametrize("numerics", [Numerics(), PRESETS["paper"].numerics], ids=["default", "paper"])
named = pytest.mark.parametrize("name", CONFIGS)
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
    numerics, generator = CONFIGS[name], torch.Generator().manual_seed(0)
    near = torch.linspace(-20, 20, 8001, dtype=torch.float64)
    far = (torch.rand(4000, generator=generator, dtype=torch.float64) - 0.5) * 2.0**21
    quarters = torch.arange(-4000, 4000) * (math.pi / 2)
    for x in (near, far, quarters.double(), far.float().double(), torch.arange(2.0**20 - 999, 2.0**20).double()):
        assert bool(((wave(x, numerics=numerics) - exact(x)).abs() <= bound(x, numerics)).all())


@named
def test_every_phase(name: str) -> None:
    """At the phase itself only the table's error and the rounding are left; sin(-φ) = -sin(φ) to the bit."""
    numerics = CONFIGS[name]
    turn = 1 << numerics.working_bits
    phase = torch.arange(turn, dtype=torch.int32)[:: max(1, turn >> 17)]
    sine = sine_integers(phase, numerics, Closed())
    exact = (phase.double() * (2 * math.pi / turn)).sin()
    error = (sine * 2.0**-numerics.bits - exact).abs()
    assert bool((error <= bound(torch.zeros(1), numerics).double() - math.pi / turn + 1e-15).all())
    assert torch.equal(sine_integers(-phase & (turn - 1), numerics, Closed()), -sine)
    one, quarter = 1 << numerics.bits, turn >> 2
    exact_places = torch.tensor([0, quarter, 2 * quarter, 3 * quarter], dtype=torch.int32)
    assert sine_integers(exact_places, numerics, Closed()).tolist() == [0, one, 0, -one]


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


@waves
@named
@pytest.mark.parametrize("kind", KINDS)
def test_simulated_equals_closed(wave: Callable[..., Tensor], exact: object, name: str, kind: str) -> None:
    x, events = vectors(kind, (4, 5)), Events()
    assert same(wave(x, numerics=CONFIGS[name]), wave(x, numerics=CONFIGS[name], events=events))
    assert events.table_reads > 0


@pytest.mark.parametrize("simulated", [False, True])
@named
def test_no_float_between_encoding_and_decoding(name: str, simulated: bool) -> None:
    numerics = CONFIGS[name]
    phase = encode_phase(torch.linspace(-9, 9, 50), numerics.working_bits)
    with NoFloat():
        sine_integers(phase, numerics, Simulated(numerics) if simulated else Closed())


@both
@waves
def test_extremes(wave: Callable[..., Tensor], exact: Callable[..., Tensor], numerics: Numerics) -> None:
    x = torch.tensor([nan, inf, -inf, 3.4e38, -3.4e38, 1e-45, -0.0, 1e30])
    result = wave(x, numerics=numerics)
    assert result[:3].isnan().all()
    assert bool((result[3:].abs() <= 1).all()), "far beyond any position a phase is arbitrary, but it is one"
    assert result[5:7].tolist() == exact(torch.zeros(2)).tolist()
    assert saturations() == {"input: not finite": 3}


@both
@waves
def test_shapes_layouts_dtypes_and_blocks(
    wave: Callable[..., Tensor], exact: object, numerics: Numerics, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(14, 20) * 9
    whole = wave(x, numerics=numerics)
    assert torch.equal(wave(torch.empty(28, 60)[::2, ::3].copy_(x), numerics=numerics), whole)
    assert torch.equal(wave(x.t().contiguous().t(), numerics=numerics), whole)
    for dtype in (torch.float16, torch.bfloat16):
        y = x.to(dtype)
        assert torch.equal(wave(y, numerics=numerics), wave(y.float(), numerics=numerics).to(dtype))
    for shape in ((), (0,), (4, 0), (2, 1, 3)):
        assert wave(torch.ones(shape), numerics=numerics).shape == shape
    monkeypatch.setattr("spikeplug.operators.rows.BLOCK", 37)
    assert torch.equal(wave(x, numerics=numerics), whole)


@waves
def test_arguments(wave: Callable[..., Tensor], exact: object) -> None:
    with pytest.raises(SpikeplugError, match="numerics"):
        wave(torch.zeros(2), numerics="paper")
    for bad in (torch.tensor([1, 2]), torch.tensor([True]), [1.0], None, torch.tensor([1j])):
        with pytest.raises(SpikeplugError, match="takes a"):
            wave(bad)
