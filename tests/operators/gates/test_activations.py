"""The activations: simulated = closed to the bit; bad input; what holds exactly."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from test_accuracy import inputs
from test_activation_bounds import ACTIVATIONS, each, gelu_of
from test_bad_input import ROWS
from test_simulation import KINDS, NoFloat, same, vectors

from spikeplug.errors import SpikeplugError
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.operators import curves, gates
from spikeplug.operators.activations import gelu, mish, relu_squared, sigmoid, silu, softplus, tanh
from spikeplug.presets import PRESETS
from spikeplug.primitives.arithmetic import Closed, Simulated
from spikeplug.saturation import saturations

nan, inf = math.nan, math.inf
PAPER = PRESETS["paper"].numerics
WIDE: dict[str, Any] = {"bits": 20, "working_bits": 24, "divide_last": False, "shift_scaling": False}
CONFIGS = {
    "default": Numerics(),
    "narrow, blocks of 4": dataclasses.replace(PRESETS["narrow"].numerics, scale_block=4),
    "paper, restoring": dataclasses.replace(PAPER, division="restoring"),
    "paper, scaled": dataclasses.replace(PAPER, shift_scaling=True),
    "8 bits": Numerics(bits=8, working_bits=14),
    "ordered": Numerics(bits=4, working_bits=8, division="ordered", code="count", steps=4),
    "widest, floored": Numerics(**WIDE, fraction_bits=16),
    "coarse exponent, floored": Numerics(**WIDE, fraction_bits=4, segments=16),
    "few segments": dataclasses.replace(PAPER, division="restoring", segments=62),
}
both = pytest.mark.parametrize("numerics", [Numerics(), PAPER], ids=["default", "paper"])


@pytest.mark.parametrize("numerics", CONFIGS.values(), ids=CONFIGS)
@each
def test_simulated_equals_closed(name: str, numerics: Numerics) -> None:
    x, run, events = torch.cat([vectors(kind, (4, 9)) for kind in KINDS]), ACTIVATIONS[name].spiking, Events()
    assert same(run(x, numerics=numerics), run(x, numerics=numerics, events=events))
    assert events.steps > 0
    assert events.membrane_updates > 0


@each
def test_simulated_equals_closed_by_the_published_groups(name: str) -> None:
    """Their size is a neuron for every output level, so of few elements."""
    x, run = torch.tensor([[-0.7], [3.0]]), ACTIVATIONS[name].spiking
    assert torch.equal(run(x, numerics=PAPER), run(x, numerics=PAPER, events=Events()))


@pytest.mark.parametrize("simulated", [False, True])
@pytest.mark.parametrize("numerics", list(CONFIGS.values())[:4], ids=list(CONFIGS)[:4])
def test_no_float_between_encoding_and_decoding(numerics: Numerics, simulated: bool) -> None:
    x = vectors("plain", (2, 5)).clamp(-2, 2)
    code = gates.encode_amplitude(x, "test", numerics)
    exponents = {gate: gates.encode_exponent(x, gate, numerics) for gate in (gates.SILU, *gates.GELU.values())}
    opening = gates.encode_exponent(x, gates.SIGMOID, numerics)
    distance = gates.encode_distance(x, 1.0, numerics.fraction_bits, numerics)
    fine, negative = gates.encode_distance(x, 2.0, curves.tanh_fraction_bits(numerics), numerics), x < 0
    with NoFloat():
        on = Simulated(numerics) if simulated else Closed()
        for gate, exponent_input in exponents.items():
            gates.gated_integers(code, exponent_input, gate, numerics, on)
        gates.sigmoid_integers(opening, numerics, on)
        curves.tanh_integers(negative, fine, numerics, on)
        curves.softplus_integers(code, distance, negative, numerics, on)
        curves.mish_integers(code, distance, numerics, on)
        curves.relu_squared_integers(code, numerics, on)


@both
@each
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_extremes(name: str, row: list[float], numerics: Numerics) -> None:
    x = torch.tensor([row, [0.5, -1.0, 2.0]])
    activation = ACTIVATIONS[name]
    # float64: torch's float32 erf GELU is inf at 3.4e38 and NaN at +inf.
    exact, spiking = activation.exact(x.double()).float(), activation.spiking(x, numerics=numerics)
    assert torch.equal(spiking.isnan(), exact.isnan())
    assert torch.isfinite(spiking[1]).all(), "the healthy row beside it is unharmed"
    assert torch.equal(spiking[x.abs() == inf].nan_to_num(7.0), exact[x.abs() == inf].nan_to_num(7.0))
    if numerics == Numerics():
        top = exact[0][torch.isfinite(exact[0])].abs().amax() if torch.isfinite(exact[0]).any() else torch.tensor(0.0)
        scale = x[0][torch.isfinite(x[0])].abs().amax() if torch.isfinite(x[0]).any() else torch.tensor(0.0)
        lost = float(top) * 2.0**-14 + float(scale) * 2.0**-19 * (name not in ("sigmoid", "tanh")) + 1e-38
        lost += 2.0**-18 * (name == "tanh")  # its precision beside 0 is that of its exponent
        assert torch.allclose(spiking[0], exact[0], atol=lost, rtol=1e-3, equal_nan=True)


@both
@each
def test_shapes_and_dtypes(name: str, numerics: Numerics) -> None:
    run = ACTIVATIONS[name].spiking
    for shape in [(), (1,), (0,), (4, 0), (0, 4), (2, 3, 5)]:
        y = run(torch.randn(shape), numerics=numerics)
        assert y.shape == shape
    x = torch.randn(14, 20)
    assert torch.equal(run(x[3, 4], numerics=numerics), run(x[3, 4].reshape(1), numerics=numerics)[0])
    strided = torch.randn(28, 60)[::2, ::3].copy_(x)
    assert torch.equal(run(strided, numerics=numerics), run(x, numerics=numerics))
    assert torch.equal(run(x[:1].expand(14, 20), numerics=numerics), run(x[:1].repeat(14, 1), numerics=numerics))
    assert torch.equal(run(x.flip(-1), numerics=numerics), run(x, numerics=numerics).flip(-1)), "order does not matter"
    for dtype in (torch.float16, torch.bfloat16):
        narrow = x.to(dtype)
        y = run(narrow, numerics=numerics)
        assert y.dtype == dtype
        assert torch.equal(y, run(narrow.float(), numerics=numerics).to(dtype)), "computed from float32, rounded once"
    assert run(x.double(), numerics=numerics).dtype == torch.float64
    leaf = x.clone().requires_grad_()
    assert not run(leaf, numerics=numerics).requires_grad


@both
@each
def test_blocks_do_not_matter(name: str, numerics: Numerics, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(37, 11) * 3
    whole = ACTIVATIONS[name].spiking(x, numerics=numerics)
    for block in (1, 12, 100):
        monkeypatch.setattr("spikeplug.operators.rows.BLOCK", block)
        assert torch.equal(ACTIVATIONS[name].spiking(x, numerics=numerics), whole)


@pytest.mark.parametrize("bad", [torch.tensor([1, 2]), torch.tensor([True]), [1.0, 2.0], None, torch.tensor([1j])])
@each
def test_what_is_no_real_tensor(name: str, bad: object) -> None:
    with pytest.raises(SpikeplugError, match="takes a") as caught:
        ACTIVATIONS[name].spiking(bad)
    assert "\n" not in str(caught.value)


def test_arguments() -> None:
    x = torch.zeros(2)
    for approximate in ("erf", None, 3, ["tanh"]):
        with pytest.raises(SpikeplugError, match="'none', 'tanh', 'quick'"):
            gelu(x, approximate)  # type: ignore[arg-type]
    for beta in (0.0, -1.0, nan, inf, "1", True):
        with pytest.raises(SpikeplugError, match="beta"):
            softplus(x, beta)  # type: ignore[arg-type]
    for threshold in (nan, None, "20", -1.0):
        with pytest.raises(SpikeplugError, match="threshold"):
            softplus(x, 1.0, threshold)  # type: ignore[arg-type]
    for name in ACTIVATIONS:
        with pytest.raises(SpikeplugError, match="numerics"):
            ACTIVATIONS[name].spiking(x, numerics="paper")


def test_saturations_are_counted() -> None:
    x = torch.tensor([[7.0, -6.0, 5.0, 2000.0, nan]])
    for run in (silu, gelu, sigmoid, mish, softplus, relu_squared):
        run(x, numerics=PAPER)
    tanh(torch.tensor([[2.6, -2.6, 2.4]]), numerics=PAPER)
    assert saturations() == {
        "gelu: exponent beyond H": 4,  # at 5, ln Φ(5)/Φ(-5) = 15
        "gelu: input beyond 2^10": 1,
        "gelu: quotient at the size of the group": 1,
        "input: not finite": 6,
        "mish: exponent beyond H": 3,
        "mish: input beyond 2^10": 1,
        "mish: quotient at the size of the group": 1,
        "relu_squared: input beyond 2^10": 1,
        "sigmoid: exponent beyond H": 3,
        "silu: exponent beyond H": 3,
        "silu: input beyond 2^10": 1,
        "silu: quotient at the size of the group": 1,
        "softplus: exponent beyond H": 2,  # above its threshold nothing is left of the exponent
        "softplus: input beyond 2^10": 1,
        "tanh: exponent beyond H": 2,
    }


@pytest.mark.parametrize("numerics", CONFIGS.values(), ids=CONFIGS)
def test_tanh_is_odd_and_within_one(numerics: Numerics) -> None:
    x = inputs(64)
    y = tanh(x, numerics=numerics)
    assert torch.equal(tanh(-x, numerics=numerics), -y)
    assert bool((y.abs() <= 1).all())


def test_zero_gives_zero() -> None:
    for numerics in CONFIGS.values():
        for run in (silu, gelu, gelu_of("tanh"), gelu_of("quick"), tanh, mish, relu_squared):
            assert not run(torch.zeros(2, 3), numerics=numerics).any()
