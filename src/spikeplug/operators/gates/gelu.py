"""Compute GELU in three forms: with the error function, its tanh form, and x·σ(1.702·x)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from spikeplug.codes import Coded
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.operators.gates.gate import CURVE_END, Gate, gated, gated_bound, gated_integers, input_range, largest
from spikeplug.operators.operands import Operands
from spikeplug.operators.record import Operator, Spelling
from spikeplug.primitives.arithmetic import Arithmetic


def erf_exponent(x: float) -> float:
    """Return g = ln(Φ(x)/Φ(-x)), by which Φ(x) = σ(g); Φ is the normal distribution function.

    Its second derivative is within ±1, as those of ln Φ(±x) are.
    """
    return math.log(math.erfc(-x / math.sqrt(2)) / math.erfc(x / math.sqrt(2)))


def tanh_exponent(x: float) -> float:
    """Return g = 2·sqrt(2/π)·(x + 0.044715·x³), by which GELU's tanh form is x·σ(g).

    Its second derivative at x = 6, the end of the table, is 2.57 < 4·ln 2.
    """
    return 2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)


GATES = {"none": Gate(curve=erf_exponent), "tanh": Gate(curve=tanh_exponent), "quick": Gate(slope=1.702)}


def gelu_gate(approximate: str) -> Gate:
    """Return the gate σ(g(x)) by which a form of GELU multiplies x.

    approximate  "none", "tanh" or "quick"

    Errors: SpikeplugError for any other `approximate`.
    """
    if not isinstance(approximate, str) or approximate not in GATES:
        raise SpikeplugError(f"gelu got approximate={approximate!r}; choose one of {', '.join(map(repr, GATES))}.")
    return GATES[approximate]


def gelu(x: Tensor, approximate: str = "none", *, on: Arithmetic) -> Tensor:
    """Return GELU(x), elementwise; x's shape and dtype. -inf gives NaN.

    approximate  "none": x·Φ(x). "tanh": x·(1 + tanh(sqrt(2/π)·(x + 0.044715·x³)))/2. "quick": x·σ(1.702·x)

    Errors: SpikeplugError for any other `approximate`.
    """
    return gated(x, gelu_gate(approximate), on)


def exact(x: Tensor, approximate: str) -> Tensor:
    """Return GELU in float arithmetic: x·Φ(x) for "none", its tanh form for "tanh", x·σ(1.702·x) for "quick"."""
    return x * torch.sigmoid(1.702 * x) if approximate == "quick" else F.gelu(x, approximate=approximate)


def exponent(x: Tensor) -> Tensor:
    """Return g = ln(Φ(x) / Φ(-x)), by which Φ(x) = σ(g); elementwise; finite also where Φ(-x) underflows."""
    found: Tensor = torch.special.log_ndtr(x) - torch.special.log_ndtr(-x)
    return found


def bound(x: Tensor, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - exact| for approximate="none", GELU with the error function; x's shape."""
    return gated_bound(x, numerics, exponent, F.gelu(x), curved=True)


def _call(operator: Callable[..., Tensor], input: Tensor, *, approximate: str = "none") -> Tensor:
    return operator(input, approximate)


def integers(given: Operands, on: Arithmetic) -> Coded:
    """Return the code of the operator, from integers that are given."""
    return gated_integers(given.amplitude(), given.opening(reach=CURVE_END), GATES["none"], on)


RECORD = Operator(
    name="gelu",
    family="gate",
    formula='x·Φ(x); its tanh form for approximate="tanh"; x·σ(1.702·x) for "quick"',
    spiking=gelu,
    integers=integers,
    exact=exact,
    inputs=("gate",),
    settings=("none",),
    scale="vector",
    grid="exponent",
    bound=bound,
    largest=largest,
    input_range=input_range,
    spellings=(Spelling(("gelu",), _call),),
    modules={
        "torch.nn.GELU": lambda module: (module.approximate,),
        "transformers.activations.GELUActivation": lambda module: ("none",),
        "transformers.activations.GELUTanh": lambda module: ("tanh",),
        "transformers.activations.NewGELUActivation": lambda module: ("tanh",),
        "transformers.activations.FastGELUActivation": lambda module: ("tanh",),
        "transformers.activations.AccurateGELUActivation": lambda module: ("tanh",),
        "transformers.activations.QuickGELUActivation": lambda module: ("quick",),
    },
    aten=("gelu",),
    module="GELU",
)
