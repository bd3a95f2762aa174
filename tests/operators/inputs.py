"""What tests of operators share: numerics that run every line, inputs that are nasty, and comparisons."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spikeplug.numerics import Numerics
from spikeplug.presets import PRESETS, Preset
from spikeplug.realisation import Realisation

nan, inf = math.nan, math.inf
PAPER = PRESETS["paper"].numerics
#: Numerics, and by which neurons they are simulated.
CONFIGS: dict[str, Preset] = {
    "default": PRESETS["default"],
    "narrow, blocks of 4": Preset(dataclasses.replace(PRESETS["narrow"].numerics, scale_block=4), Realisation()),
    "paper": PRESETS["paper"],
    "8 bits": Preset(Numerics(bits=8, working_bits=14), Realisation()),
    "ordered": Preset(
        Numerics(bits=4, working_bits=8), Realisation(division="ordered", norm="ordered", code="count", steps=4)
    ),
    "cordic, scaled": Preset(Numerics(norm="cordic", iterations=12), Realisation()),
    "piecewise, scaled": Preset(dataclasses.replace(PAPER, shift_scaling=True), Realisation(division="ordered")),
    "paper, restoring": Preset(PAPER, Realisation()),
    "few segments": Preset(dataclasses.replace(PAPER, segments=62), Realisation()),
    "widest, floored": Preset(
        Numerics(bits=20, working_bits=24, fraction_bits=16, divide_last=False, shift_scaling=False), Realisation()
    ),
    "coarse exponent, floored": Preset(
        Numerics(bits=20, working_bits=24, fraction_bits=4, segments=16, divide_last=False, shift_scaling=False),
        Realisation(),
    ),
    "shift, floored": Preset(Numerics(divide_last=False, shift_scaling=False, bits=6, working_bits=12), Realisation()),
}
NUMERICS = {name: config.numerics for name, config in CONFIGS.items()}
configs = pytest.mark.parametrize("numerics", NUMERICS.values(), ids=NUMERICS)
both = pytest.mark.parametrize("numerics", [Numerics(), PAPER], ids=["default", "paper"])
#: Numerics for which the bounds of operators/README.md are written out again here.
ACCURATE = [Numerics(), Numerics(bits=8), Numerics(bits=12, working_bits=16, segments=8, fraction_bits=10)]
accurate = pytest.mark.parametrize("numerics", ACCURATE, ids=lambda c: f"{c.bits} bits")
#: Rows that are not finite, huge, denormal or all equal.
ROWS = [
    [nan, 1.0, 2.0],
    [inf, 1.0, 2.0],
    [-inf, 1.0, 2.0],
    [inf, -inf, 0.0],
    [inf, inf, inf],
    [-inf, -inf, -inf],
    [nan, inf, -inf],
    [0.0, 0.0, 0.0],
    [-0.0, 0.0, -0.0],
    [1e30, -1e30, 1.0],
    [3.4e38, 3.4e38, -3.4e38],
    [-1e30, -1.1e30, -3.4e38],
    [-3.4028235e38] * 3,
    [1e-45, 1e-40, -1e-45],
    [1e-30, 2e-30, 0.0],
    [1e30, 1e-30, 1e-45],
]
#: Kinds of `vectors`.
KINDS = ["plain", "huge", "tiny", "outlier", "zero", "mixed", "not finite", "deep"]


def vectors(kind: str, shape: tuple[int, ...] = (6, 19)) -> Tensor:
    """Return float32 rows of one kind."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(len(kind))) * 4
    if kind == "huge":
        return x * 1e30
    if kind == "tiny":
        return x * 1e-39
    if kind == "outlier":
        x[..., 3] = 900.0
    if kind == "zero":
        return torch.zeros(shape)
    if kind == "mixed":
        return x * torch.logspace(-20, 20, shape[-1])
    if kind == "not finite":
        x[..., 0, 0], x[..., 1, 1], x[..., 2, 2], x[..., -1, :] = nan, inf, -inf, -inf
    if kind == "deep":
        lowest = torch.finfo(torch.float32).min
        x[..., 0, 0], x[..., 1, 1:3], x[..., 2, :] = -1e30, lowest, lowest
    return x


def rows(dimension: int, count: int = 24) -> Tensor:
    """Return float64 rows: Gaussian, heavy-tailed as LLM activations are, a constant, a one-hot, tiny ones."""
    torch.manual_seed(dimension)
    x = torch.randn(count, dimension, dtype=torch.float64) * torch.logspace(-3, 2, count, dtype=torch.float64)[:, None]
    x[1::4, 0] *= 500
    x[2] = 3.0
    x[3] = 0.0
    x[3, 0] = 1.0
    return x


def weight_error(numerics: Numerics) -> float:
    """Return δ: relative error of 2^-x from the input's step and the chords (floors are counted apart)."""
    step = math.expm1(math.log(2) * 2.0 ** -(numerics.fraction_bits + 1))
    return step + 2 * (math.log(2) / numerics.segments) ** 2 / 8 + 2 * 1.5 * 2.0**-numerics.working_bits


def half_step(y: Tensor, numerics: Numerics) -> Tensor:
    """Return what half an LSB of an output vector is at most: its largest element has at least n - 1 bits."""
    return y.abs().amax(-1, keepdim=True) * 2.0 ** (1 - numerics.bits)


def same(a: Tensor, b: Tensor) -> bool:
    """Return whether both are equal, and NaN in the same places."""
    return torch.equal(a.nan_to_num(12345.0), b.nan_to_num(12345.0)) and torch.equal(a.isnan(), b.isnan())


class NoFloat(TorchDispatchMode):
    """Fail on any op that takes or returns a floating or complex tensor."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, result)):
            if isinstance(leaf, Tensor) and (leaf.dtype.is_floating_point or leaf.dtype.is_complex):
                raise AssertionError(f"{func} touched a {leaf.dtype} tensor")
        return result
