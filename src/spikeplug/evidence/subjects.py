"""Say what is measured: every operator, on which kind of input, against which float64 function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from spikeplug.codes import as_input, as_received
from spikeplug.library import OPERATORS
from spikeplug.numerics import Numerics
from spikeplug.operators import RECORDS, Operator
from spikeplug.operators.attention.errors import HEAD_DIM
from spikeplug.operators.errors import block_maximum
from spikeplug.operators.norms.length import EPS

__all__ = ["EPS", "HEAD_DIM", "SUBJECTS", "Draw", "Subject", "last_place"]

#: (role, rows, width) -> float64 (rows, width): how a distribution gives an operator the kind of number it meets.
Draw = Callable[[str, int, int], Tensor]


@dataclass(frozen=True)
class Subject:
    """Feed an operator, as its record says."""

    record: Operator

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def roles(self) -> tuple[str, ...]:
        """Return the kind of number of each tensor input (distributions.py)."""
        return self.record.inputs

    @property
    def attends(self) -> bool:
        """Tell whether the inputs are queries, keys and values."""
        return self.record.family == "attention"

    def inputs(self, draw: Draw, rows: int, dimension: int) -> tuple[Tensor, ...]:
        """Return float64 tensors (rows, dimension); attention: rows queries of one head over `dimension` keys."""
        if not self.attends:
            return tuple(draw(role, rows, dimension) for role in self.roles)
        lengths = {"query": rows, "key": dimension, "value": dimension}
        return tuple(draw(role, lengths[role], HEAD_DIM) for role in self.roles)

    def spiking(self, *inputs: Tensor, numerics: Numerics) -> Tensor:
        """Return the operator, in integers; (rows, ...) float64."""
        return self._flat(OPERATORS[self.name](*self.arguments(inputs), numerics=numerics))

    def exact(self, *inputs: Tensor) -> Tensor:
        """Return the float function it stands for."""
        return self._flat(self.record.exact(*self.arguments(inputs)))

    def as_coded(self, inputs: tuple[Tensor, ...], numerics: Numerics) -> tuple[Tensor, ...]:
        """Return the inputs as their codes of input_bits hold them; scores and angles as they are."""
        return tuple(self._as_coded(role, x, numerics) for role, x in zip(self.roles, inputs, strict=True))

    def _as_coded(self, role: str, x: Tensor, numerics: Numerics) -> Tensor:
        if role in ("scores", "logits", "query", "key", "angle"):
            return x
        if role == "value":
            return as_received(x, numerics.input_bits)
        return as_input(x.unsqueeze(-1), numerics).squeeze(-1) if self.record.elementwise else as_input(x, numerics)

    def arguments(self, inputs: tuple[Tensor, ...]) -> tuple[object, ...]:
        """Return what the library's operator takes."""
        if self.attends:
            # One head over shared keys; or (candidates, rows, channels), each with keys of its own.
            inputs = tuple((x[None, None] if x.dim() == 2 else x[:, None]) for x in inputs)
        return (*inputs, *self.record.settings)

    def _flat(self, y: Tensor) -> Tensor:
        if self.attends:
            return y[0, 0] if y.shape[0] == 1 else y[:, 0]
        return y if y.dim() > 1 else y[:, None]


#: By name, in the library's order.
SUBJECTS: Mapping[str, Subject] = {name: Subject(record) for name, record in RECORDS.items()}


def last_place(subject: Subject, exact: Tensor, numerics: Numerics) -> Tensor:
    """Return one LSB of the output's own scale, of a shape that broadcasts with `exact` (rows, width).

    Fixed step: 2^-n (octaves: times ln 2). A power of two of its own: the step of n bits at the largest exact
    magnitude, 2^(ceil(log2 y_max) - n); the operator's own step is this one, or half or twice it.
    """
    scale, name = subject.record.scale, subject.name
    step = torch.tensor(2.0**-numerics.bits, dtype=torch.float64)
    # Log-softmax of the published form is in nats; the logarithm itself always in octaves.
    if scale == "octaves" and (numerics.exponential == "shift" or name == "log"):
        return step * torch.log(torch.tensor(2.0, dtype=torch.float64))
    if scale in ("octaves", "step") or (scale == "vector" and not numerics.shift_scaling):
        return step
    # Probabilities along keys have one scale; only channels are cut into blocks.
    channels = numerics if name not in ("softmax", "attention_weights") else None
    largest = block_maximum(exact, channels) if scale == "vector" else exact.abs()
    fraction, exponent = torch.frexp(largest)
    exponent = exponent - (fraction == 0.5).to(exponent.dtype)  # a power of two is its own ceiling
    return torch.ldexp(step.expand_as(largest), exponent).masked_fill(largest == 0, 2.0**-1022)
