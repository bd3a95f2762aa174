"""Contract: every verb of `Arithmetic` gives equal integers in closed form and simulated. The registry below must cover
every verb; a new verb without a case fails here."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch
from adversarial import integers
from torch import Tensor

from spikeplug.numerics import Numerics
from spikeplug.presets import PRESETS
from spikeplug.primitives.arithmetic import Arithmetic, Closed, Simulated
from spikeplug.primitives.divide import DivideSpec
from spikeplug.primitives.exponential import PiecewiseExponential, ShiftExponential
from spikeplug.primitives.interpolation import Interpolation
from spikeplug.primitives.norm import CordicSpec, RootSpec

MATRIX = integers(3000, 16, seed=5).view(60, 50)
DISTANCE = integers(4000, 31).to(torch.int32)
CASES: dict[str, Callable[[Arithmetic], Tensor]] = {
    "divide": lambda on: on.divide(integers(3000, 16), integers(3000, 16, 1), DivideSpec(16, 16, 8, 256)),
    "interpolate": lambda on: on.interpolate(DISTANCE & 0x3FF, Interpolation((5, -90, 7, 7, 1 << 20), 8)),
    "mantissa": lambda on: on.mantissa(DISTANCE, ShiftExponential(12, 32, 22)),
    "decay": lambda on: on.decay(integers(4000, 24).to(torch.int32), DISTANCE >> 12),
    "piecewise": lambda on: on.piecewise(DISTANCE - (1 << 14), PiecewiseExponential(5.0, 64, 12, 22)),
    "square_sum": lambda on: on.square_sum(MATRIX - 40, 17),
    "root": lambda on: on.root(integers(4000, 44), RootSpec(22)),
    "cordic": lambda on: on.cordic(MATRIX, CordicSpec(8, 16)),
    "gate": lambda on: on.gate(MATRIX, MATRIX.flip(0), 16),
    "accumulate": lambda on: on.accumulate(MATRIX, 16),
    "dot": lambda on: on.dot(MATRIX, MATRIX.mT - 300, 16, 16),
    "signed_dot": lambda on: on.signed_dot(MATRIX - 300, MATRIX.mT - 300, 16, 16),
}


def verbs(implementation: type) -> set[str]:
    return {name for name, member in vars(implementation).items() if not name.startswith("_") and callable(member)} | {
        name for name, member in vars(implementation).items() if isinstance(member, staticmethod)
    }


def test_the_registry_is_complete() -> None:
    assert verbs(Arithmetic) == verbs(Closed) == verbs(Simulated) == set(CASES)
    for name in CASES:
        protocol = list(inspect.signature(getattr(Arithmetic, name)).parameters)[1:]
        for instance in (Closed(), Simulated(Numerics())):
            assert list(inspect.signature(getattr(instance, name)).parameters) == protocol, name


@pytest.mark.parametrize("numerics", [Numerics(), PRESETS["paper"].numerics], ids=["default", "paper"])
@pytest.mark.parametrize("verb", CASES)
def test_simulated_equals_closed(verb: str, numerics: Numerics) -> None:
    closed, simulated = CASES[verb](Closed()), CASES[verb](Simulated(numerics))
    assert closed.dtype == simulated.dtype
    assert torch.equal(closed, simulated)
