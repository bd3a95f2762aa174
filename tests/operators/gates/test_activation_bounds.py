"""Contract: the activations against reals meet the bounds stated in operators/README.md."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from operators.inputs import ACCURATE, PAPER, rows, weight_error
from torch import Tensor

from spikeplug.functional import gelu, mish, relu_squared, sigmoid, silu, softplus, tanh
from spikeplug.numerics import Numerics
from spikeplug.operators.gates.gate import CURVE_END
from spikeplug.operators.gates.gelu import GATES
from spikeplug.saturation import saturations

inf = math.inf
SHIFT_CONFIGS = [*ACCURATE, Numerics(bits=20, working_bits=24, fraction_bits=16, segments=256)]


class Activation(NamedTuple):
    """What is tested, what it stands for, and the bound: E(x, y, numerics), and 1/2 LSB as a part of y_max·2^-n."""

    spiking: Callable[..., Tensor]
    exact: Callable[[Tensor], Tensor]
    error: Callable[[Tensor, Tensor, Numerics], Tensor]
    half_step: float = 2.0


def relative(delta: float) -> float:
    return delta / (1 - delta)


def curved_error(numerics: Numerics) -> float:
    """δ with the error of a tabulated exponent, 2^(1-F) octaves, in place of the input step's 2^-(F+1)."""
    steps = (
        math.expm1(math.log(2) * 2.0**-places) for places in (numerics.fraction_bits - 1, numerics.fraction_bits + 1)
    )
    return weight_error(numerics) + next(steps) - next(steps)


def gated_error(x: Tensor, share: Tensor, numerics: Numerics, *, curved: bool) -> Tensor:
    delta = curved_error(numerics) if curved else weight_error(numerics)
    step = 2.0 ** -(numerics.fraction_bits + 2) if curved else 0.0
    top, last = x.abs().amax(-1, keepdim=True), 2.0**-numerics.working_bits
    return x.abs() * (share * (1 - share) * relative(delta) + step + last) + top * last * 4


def tanh_error(x: Tensor, y: Tensor, numerics: Numerics) -> Tensor:
    fraction_bits = min(16, numerics.fraction_bits + 4)
    segments = min(8 * numerics.segments, 1 << fraction_bits)
    delta = weight_error(dataclasses.replace(numerics, fraction_bits=fraction_bits, segments=segments))
    return (1 - y * y) / 2 * relative(delta) + 2.0 ** (2 - numerics.working_bits)


def softplus_error(x: Tensor, y: Tensor, numerics: Numerics, beta: float = 1.0) -> Tensor:
    share = torch.sigmoid(-(beta * x).abs()) * relative(weight_error(numerics))
    top = x.abs().amax(-1, keepdim=True) * 2.0 ** (1 - numerics.working_bits)
    positive = x.clamp(min=0).amax(-1, keepdim=True) * 2.0**-numerics.bits
    return (share + 2.0**-numerics.bits + 2.0 ** (2 - numerics.working_bits)) / beta + top + positive


def mish_error(x: Tensor, y: Tensor, numerics: Numerics) -> Tensor:
    top, last = x.abs().amax(-1, keepdim=True), 2.0**-numerics.working_bits
    return x.abs() * (relative(weight_error(numerics)) / 3 + 4 * last) + top * 8 * last


def square_error(x: Tensor, y: Tensor, numerics: Numerics) -> Tensor:
    code = x.abs().amax(-1, keepdim=True) * 2.0 ** (1 - numerics.working_bits)
    return 2 * x.clamp(min=0) * code + code * code


def gated(
    spiking: Callable[..., Tensor],
    exact: Callable[[Tensor], Tensor],
    share: Callable[[Tensor], Tensor],
    *,
    curved: bool,
) -> Activation:
    return Activation(spiking, exact, lambda x, y, numerics: gated_error(x, share(x), numerics, curved=curved))


def gelu_of(approximate: str) -> Callable[..., Tensor]:
    return lambda x, **how: gelu(x, approximate, **how)


ACTIVATIONS = {
    "silu": gated(silu, F.silu, torch.sigmoid, curved=False),
    "gelu": gated(gelu, F.gelu, lambda x: (1 + torch.erf(x / 2**0.5)) / 2, curved=True),
    "gelu tanh": gated(
        gelu_of("tanh"),
        lambda x: F.gelu(x, approximate="tanh"),
        lambda x: torch.sigmoid(2 * (2 / math.pi) ** 0.5 * (x + 0.044715 * x**3)),
        curved=True,
    ),
    "gelu quick": gated(
        gelu_of("quick"), lambda x: x * torch.sigmoid(1.702 * x), lambda x: torch.sigmoid(1.702 * x), curved=False
    ),
    "sigmoid": Activation(
        sigmoid,
        torch.sigmoid,
        lambda x, y, numerics: y * (1 - y) * relative(weight_error(numerics)) + 2.0 ** (1 - numerics.working_bits),
    ),
    "tanh": Activation(tanh, torch.tanh, tanh_error),
    "softplus": Activation(softplus, F.softplus, softplus_error, half_step=0.0),
    "mish": Activation(mish, F.mish, mish_error, half_step=2.5),
    "relu_squared": Activation(relu_squared, lambda x: F.relu(x).square(), square_error, half_step=1.0),
}
each = pytest.mark.parametrize("name", ACTIVATIONS)
widths = pytest.mark.parametrize("numerics", SHIFT_CONFIGS, ids=lambda c: f"{c.bits} bits")


def check_bound(name: str, x: Tensor, numerics: Numerics) -> None:
    activation = ACTIVATIONS[name]
    exact = activation.exact(x)
    error = activation.error(x, exact, numerics) * (1 + 2.0 ** (1 - numerics.bits))
    bound = error + activation.half_step * exact.abs().amax(-1, keepdim=True) * 2.0**-numerics.bits
    excess = (activation.spiking(x, numerics=numerics) - exact).abs() - bound
    assert float(excess.max()) <= 0, f"{name} is beyond its bound at x = {float(x.flatten()[excess.argmax()])}"


@pytest.mark.parametrize("dimension", [1, 2, 7, 64, 577, 4096])
@widths
@each
def test_bounds_on_heavy_tails(name: str, numerics: Numerics, dimension: int) -> None:
    check_bound(name, rows(dimension), numerics)


@widths
@each
def test_bounds_on_a_fine_grid(name: str, numerics: Numerics) -> None:
    """Each input a vector of its own, so that nothing hides behind another's scale; beyond the end of every table."""
    magnitudes = torch.logspace(-12, 8, 1001, dtype=torch.float64)
    for x in (torch.linspace(-40, 40, 40_001, dtype=torch.float64), torch.cat([magnitudes, -magnitudes])):
        check_bound(name, x[:, None], numerics)


@pytest.mark.parametrize(
    ("beta", "threshold"), [(1.0, 20.0), (0.3, 20.0), (5.0, 2.0), (1e-3, 1.0), (1.0, 0.0), (2, inf)]
)
def test_softplus_of_any_beta_and_threshold(beta: float, threshold: float) -> None:
    x, numerics = rows(64), Numerics()
    # F.softplus itself overflows with a threshold of inf.
    exact = torch.where(beta * x > threshold, x, torch.logaddexp(torch.zeros(()), beta * x) / beta)
    error = (softplus(x, beta, threshold) - exact).abs()
    bound = softplus_error(x, exact, numerics, beta) * (1 + 2.0 ** (1 - numerics.bits))
    assert bool((error <= bound).all())


@each
def test_the_paper_config_is_near(name: str) -> None:
    """Within H: chords and slopes of exp (3.8e-3, at most half of which is left), and two floors to 2^-8 at most."""
    x = torch.linspace(-1.2, 1.2, 241, dtype=torch.float64)
    error = (ACTIVATIONS[name].spiking(x, numerics=PAPER) - ACTIVATIONS[name].exact(x)).abs().max()
    assert error < 4e-3 + 2 * 2.0**-8
    assert saturations() == {}


def test_sigmoids_of_opposites_sum_to_one() -> None:
    """1/(1 + t) and t/(1 + t) share t: only the two output roundings, 1/2 LSB each, and a dropped bit of t remain."""
    for numerics in SHIFT_CONFIGS:
        x = rows(64)
        y, opposite = sigmoid(torch.cat([x, -x], -1), numerics=numerics).chunk(2, -1)
        assert float((y + opposite - 1).abs().max()) <= 2.0 ** (1 - numerics.bits) + 2.0 ** (1 - numerics.working_bits)


@widths
def test_tanh_never_falls_and_sigmoid_by_one_step_at_most(numerics: Numerics) -> None:
    """2^-g never rises with g. 1 - t falls where 1 + t rises; t/(1 + t) may lose a bit of t that 1 + t keeps."""
    x = torch.linspace(-30, 30, 100_001, dtype=torch.float64)
    assert bool((tanh(x, numerics=numerics).diff() >= 0).all())
    assert bool((sigmoid(x, numerics=numerics).diff() >= -(2.0 ** (1 - numerics.bits))).all())
    assert sigmoid(torch.zeros(3), numerics=numerics).tolist() == [0.5] * 3


def test_tanh_caps_scores_finely() -> None:
    """30·tanh(x/30), each score a vector of its own: the error stays below a score's own step."""
    x = torch.linspace(-200, 200, 20_001, dtype=torch.float64)[:, None]
    error = (30 * tanh(x / 30, numerics=Numerics(bits=20, working_bits=24)) - 30 * torch.tanh(x / 30)).abs().max()
    assert error < 2.0**-13


def test_curves_are_as_flat_as_their_tables_need() -> None:
    """|g''| <= 4 octaves up to the table's end, where g is past every width; the share's slope is at most 0.4."""
    for gate in (GATES["none"], GATES["tanh"]):
        assert gate.curve is not None
        h = 1e-3
        octaves = [gate.curve(i * h) / math.log(2) for i in range(int(CURVE_END / h) + 1)]
        bends = [abs(a - 2 * b + c) / h**2 for a, b, c in zip(octaves, octaves[1:], octaves[2:], strict=False)]
        assert max(bends) <= 4
        assert octaves[-1] > 29
        shares = [1 / (1 + 2.0**-g) for g in octaves]
        assert max(b - a for a, b in pairwise(shares)) / h < 0.4
