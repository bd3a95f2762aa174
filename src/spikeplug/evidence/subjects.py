"""List what is measured: every operator, with its kind of input and its float64 function."""

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

#: (role, rows, width) -> float64 (rows, width): a distribution draws numbers of that role.
Draw = Callable[[str, int, int], Tensor]


@dataclass(frozen=True)
class Subject:
    """Run an operator and its exact float function on drawn inputs.

    record  what the package knows of the operator: its functions, its kinds of input, its bound
    """

    record: Operator

    @property
    def name(self) -> str:
        """Return the operator's name."""
        return self.record.name

    @property
    def roles(self) -> tuple[str, ...]:
        """Return the kind of number of each tensor input, such as "positive" or "query"; inputs are drawn by it."""
        return self.record.inputs

    @property
    def attends(self) -> bool:
        """Return whether the inputs are queries, keys and values."""
        return self.record.family == "attention"

    def inputs(self, draw: Draw, rows: int, dimension: int) -> tuple[Tensor, ...]:
        """Return one float64 tensor (rows, dimension) per input of the operator, drawn by `draw`.

        For attention: queries (rows, 64), keys and values (dimension, 64), of one head.
        """
        if not self.attends:
            return tuple(draw(role, rows, dimension) for role in self.roles)
        lengths = {"query": rows, "key": dimension, "value": dimension}
        return tuple(draw(role, lengths[role], HEAD_DIM) for role in self.roles)

    def spiking(self, *inputs: Tensor, numerics: Numerics) -> Tensor:
        """Run the spiking operator on the inputs; return its output, float64 (rows, elements)."""
        return self._flat(OPERATORS[self.name](*self.arguments(inputs), numerics=numerics))

    def exact(self, *inputs: Tensor) -> Tensor:
        """Run the float function that the operator replaces; return its output, (rows, elements)."""
        return self._flat(self.record.exact(*self.arguments(inputs)))

    def as_coded(self, inputs: tuple[Tensor, ...], numerics: Numerics) -> tuple[Tensor, ...]:
        """Return the inputs rounded to the spike code of numerics.input_bits bits at the operator's input.

        Scores, logits, queries, keys and angles have codes of their own and are returned unchanged.
        """
        return tuple(self._as_coded(role, x, numerics) for role, x in zip(self.roles, inputs, strict=True))

    def _as_coded(self, role: str, x: Tensor, numerics: Numerics) -> Tensor:
        if role in ("scores", "logits", "query", "key", "angle"):
            return x
        if role == "value":
            return as_received(x, numerics.input_bits)
        return as_input(x.unsqueeze(-1), numerics).squeeze(-1) if self.record.elementwise else as_input(x, numerics)

    def arguments(self, inputs: tuple[Tensor, ...]) -> tuple[object, ...]:
        """Return the arguments of a call of the library's operator: the inputs in its shapes, then its settings."""
        if self.attends:
            # One head over shared keys; or (candidates, rows, channels), each candidate with its own keys.
            inputs = tuple((x[None, None] if x.dim() == 2 else x[:, None]) for x in inputs)
        return (*inputs, *self.record.settings)

    def _flat(self, y: Tensor) -> Tensor:
        if self.attends:
            return y[0, 0] if y.shape[0] == 1 else y[:, 0]
        return y if y.dim() > 1 else y[:, None]


#: Subjects by operator name, in the library's order.
SUBJECTS: Mapping[str, Subject] = {name: Subject(record) for name, record in RECORDS.items()}


def last_place(subject: Subject, exact: Tensor, numerics: Numerics) -> Tensor:
    """Return one LSB, the step of the spiking output, broadcastable with `exact` (rows, width).

    Fixed step: 2^-n, n = numerics.bits; times ln 2 if the output is a logarithm in octaves (base 2).
    Power-of-two scale per vector or element: 2^(ceil(log2 y_max) - n), y_max the largest exact magnitude.
    The operator's own step is this one, half of it or twice it.
    """
    scale, name = subject.record.scale, subject.name
    step = torch.tensor(2.0**-numerics.bits, dtype=torch.float64)
    # The published form of log-softmax is in nats. The logarithm itself is always in octaves.
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
