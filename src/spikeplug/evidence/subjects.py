"""What is measured: every operator of the library, on which kind of input, against which float64 function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from spikeplug.coding import received
from spikeplug.evidence.parts import block_maximum
from spikeplug.library import OPERATORS
from spikeplug.numerics import Numerics
from spikeplug.operators.blocks import arriving

#: (role, rows, width) -> float64 (rows, width): how a distribution gives an operator the kind of number it meets.
Draw = Callable[[str, int, int], Tensor]
#: vector: one power of two a vector with shift_scaling, else the step 2^-n. element: always a power of two an element.
#: octaves, step: the fixed step 2^-n, in octaves (times ln 2 where decoded) or as it is.
Scale = Literal["vector", "element", "octaves", "step"]

#: Channels of a head in the attention subjects, as in the recorded model.
HEAD_DIM = 64
EPS = 1e-5


@dataclass(frozen=True)
class Subject:
    """An operator, and how it is fed: `roles` are the kinds of number of its tensor inputs (distributions.py).

    elementwise   the result does not depend on the dimension; measured once
    more          arguments after the tensors
    """

    name: str
    roles: tuple[str, ...]
    scale: Scale
    elementwise: bool = False
    more: tuple[object, ...] = ()

    def inputs(self, draw: Draw, rows: int, dimension: int) -> tuple[Tensor, ...]:
        """Float64 tensors (rows, dimension); attention: rows queries of one head over `dimension` keys."""
        if self.roles[0] != "query":
            return tuple(draw(role, rows, dimension) for role in self.roles)
        lengths = {"query": rows, "key": dimension, "value": dimension}
        return tuple(draw(role, lengths[role], HEAD_DIM) for role in self.roles)

    def spiking(self, *inputs: Tensor, numerics: Numerics) -> Tensor:
        """The operator, in integers; (rows, ...) float64."""
        return self._flat(OPERATORS[self.name](*self.arguments(inputs), numerics=numerics))

    def exact(self, *inputs: Tensor) -> Tensor:
        """The float function it stands for."""
        return self._flat(OPERATORS[self.name].exact(*self.arguments(inputs)))

    def arriving(self, inputs: tuple[Tensor, ...], numerics: Numerics) -> tuple[Tensor, ...]:
        """The inputs as their spike codes carry them (numerics.input_bits); scores and angles as they are."""
        return tuple(self._arriving(role, x, numerics) for role, x in zip(self.roles, inputs, strict=True))

    def _arriving(self, role: str, x: Tensor, numerics: Numerics) -> Tensor:
        if role in ("scores", "logits", "query", "key", "angle"):
            return x
        if role == "value":
            return received(x, numerics.input_bits)
        return arriving(x.unsqueeze(-1), numerics).squeeze(-1) if self.elementwise else arriving(x, numerics)

    def arguments(self, inputs: tuple[Tensor, ...]) -> tuple[object, ...]:
        """What the library's operator takes."""
        if self.roles[0] == "query":
            # One head over shared keys; or (candidates, rows, channels), each with keys of its own.
            return (*((x[None, None] if x.dim() == 2 else x[:, None]) for x in inputs), *self.more)
        return (*inputs, *self.more)

    def _flat(self, y: Tensor) -> Tensor:
        if self.roles[0] == "query":
            return y[0, 0] if y.shape[0] == 1 else y[:, 0]
        return y if y.dim() > 1 else y[:, None]


_ATTENTION = (None, None, None, None)  # no mask, no sinks, the usual scaling, no softcap
_SUBJECTS = (
    Subject("softmax", ("scores",), "vector", more=(-1,)),
    Subject("log_softmax", ("logits",), "octaves", more=(-1,)),
    Subject("attention", ("query", "key", "value"), "vector", more=_ATTENTION),
    Subject("attention_weights", ("query", "key"), "vector", more=_ATTENTION),
    Subject("silu", ("gate",), "vector"),
    Subject("gelu", ("gate",), "vector", more=("none",)),
    Subject("sigmoid", ("gate",), "vector"),
    Subject("tanh", ("gate",), "vector"),
    Subject("softplus", ("gate",), "vector", more=(1.0, 20.0)),
    Subject("mish", ("gate",), "vector"),
    Subject("relu_squared", ("gate",), "vector"),
    Subject("rms_norm", ("residual",), "vector", more=(EPS,)),
    Subject("layer_norm", ("residual",), "vector", more=(EPS,)),
    Subject("vector_norm", ("residual",), "element", more=(-1, False)),
    Subject("cos", ("angle",), "step", elementwise=True),
    Subject("sin", ("angle",), "step", elementwise=True),
    Subject("exp", ("exponent",), "element", elementwise=True),
    Subject("log", ("positive",), "octaves", elementwise=True),
    Subject("sqrt", ("positive",), "element", elementwise=True),
    Subject("rsqrt", ("positive",), "element", elementwise=True),
    Subject("square", ("residual",), "element", elementwise=True),
    Subject("reciprocal", ("positive",), "element", elementwise=True),
    Subject("divide", ("numerator", "positive"), "element", elementwise=True),
)
#: By name, in the library's order. A test keeps it complete.
SUBJECTS: Mapping[str, Subject] = {subject.name: subject for subject in _SUBJECTS}


def last_place(scale: Scale, exact: Tensor, name: str, numerics: Numerics) -> Tensor:
    """One LSB of the output's own scale, of a shape that broadcasts with `exact` (rows, width).

    Fixed step: 2^-n (octaves: times ln 2). A power of two of its own: the step of n bits at the largest exact
    magnitude, 2^(ceil(log2 y_max) - n); the operator's own step is this one, or half or twice it.
    """
    step = torch.tensor(2.0**-numerics.bits, dtype=torch.float64)
    # Log-softmax of the published form is in nats; the logarithm itself always in octaves.
    if scale == "octaves" and (numerics.exponential == "shift" or name == "log"):
        return step * torch.log(torch.tensor(2.0, dtype=torch.float64))
    if scale in ("octaves", "step") or (scale == "vector" and not numerics.shift_scaling):
        return step
    channels = numerics if name not in ("softmax", "attention_weights") else None
    largest = block_maximum(exact, channels) if scale == "vector" else exact.abs()
    fraction, exponent = torch.frexp(largest)
    exponent = exponent - (fraction == 0.5).to(exponent.dtype)  # a power of two is its own ceiling
    return torch.ldexp(step.expand_as(largest), exponent).masked_fill(largest == 0, 2.0**-1022)
