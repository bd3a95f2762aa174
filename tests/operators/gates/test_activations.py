"""The activations: results at the extremes, bad arguments, what holds exactly."""

from __future__ import annotations

import pytest
import torch
from operators.gates.test_activation_bounds import ACTIVATIONS, each, gelu_of
from operators.inputs import NUMERICS, PAPER, ROWS, both, inf, nan, rows

from spikeplug.errors import SpikeplugError
from spikeplug.functional import gelu, mish, relu_squared, sigmoid, silu, softplus, tanh
from spikeplug.numerics import Numerics
from spikeplug.saturation import saturations


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


@pytest.mark.parametrize("numerics", NUMERICS.values(), ids=NUMERICS)
def test_tanh_is_odd_and_within_one(numerics: Numerics) -> None:
    x = rows(64)
    y = tanh(x, numerics=numerics)
    assert torch.equal(tanh(-x, numerics=numerics), -y)
    assert bool((y.abs() <= 1).all())


def test_zero_gives_zero() -> None:
    for numerics in NUMERICS.values():
        for run in (silu, gelu, gelu_of("tanh"), gelu_of("quick"), tanh, mish, relu_squared):
            assert not run(torch.zeros(2, 3), numerics=numerics).any()


@pytest.mark.parametrize("places", [-20, -1, 3, 60])
def test_a_power_of_two_is_seen(places: int) -> None:
    x = torch.randn(8, 16)
    assert not torch.equal(silu(torch.ldexp(x, torch.tensor(places))), silu(x))
