"""Choose the circuits that are simulated and counted as logic: each with operands, and the integers of the closed form.

The functions are those of the narrow preset; division, 2^-f and the root are single verbs, the others whole operators.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from spikeplug import Realisation, circuit_of
from spikeplug.circuit import Builder, Circuit, Output, Traced, numbers_of
from spikeplug.evidence.operands import drawn
from spikeplug.neurons import Events
from spikeplug.operators.operands import Operands
from spikeplug.operators.recording import integers_of
from spikeplug.operators.softmax.weights import shift_exponential
from spikeplug.presets import as_numerics
from spikeplug.primitives.arithmetic import Arithmetic, Closed, Recorded
from spikeplug.primitives.divide import DivideSpec
from spikeplug.primitives.norm import RootSpec

NUMERICS = as_numerics("narrow")
#: An int8 row of four weights.
WEIGHT = torch.randint(-127, 128, (1, 4), dtype=torch.int8, generator=torch.Generator().manual_seed(0))

#: A number of cases -> operands and outputs by name, int64 (case, element).
Cases = Callable[[int], tuple[dict[str, Tensor], dict[str, Tensor]]]


@dataclass(frozen=True)
class Design:
    """Name a circuit to be built, and the cases that it is tried on.

    words  what it computes
    every  the number of all operands, if all are tried; None: random ones
    """

    name: str
    words: str
    build: Callable[[], Circuit]
    cases: Cases
    every: int | None = None


def _division(name: str, words: str, spec: DivideSpec, division: str) -> Design:
    numerators, denominators = 1 << spec.numerator_bits, 1 << spec.denominator_bits

    def build() -> Circuit:
        return _recorded(
            name,
            lambda on, a, b: on.divide(a, b, spec),
            (("a", 0, numerators - 1), ("b", 0, denominators - 1)),
            Realisation(division=division),  # type: ignore[arg-type]
        )

    def cases(_: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        pairs = torch.cartesian_prod(torch.arange(numerators), torch.arange(denominators))
        a, b = pairs[:, :1], pairs[:, 1:]
        return {"a": a, "b": b}, {"y": Closed().divide(a, b, spec)}

    return Design(name, words, build, cases, numerators * denominators)


def _verb(name: str, words: str, line: Callable[[Arithmetic, Tensor], Tensor], high: int) -> Design:
    """Return the design of a verb with one operand in [0, high]."""

    def cases(number: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        operands: dict[str, Tensor] = {}
        x = drawn(operands, number)("x", (1,), 0, high, False)
        return operands, {"y": line(Closed(NUMERICS), x).to(torch.int64)}

    return Design(name, words, lambda: _recorded(name, line, (("x", 0, high),)), cases)


def _operator(name: str, words: str, operator: str, elements: int = 1, weight: Tensor | None = None) -> Design:
    """Return the design of an operator with the numerics of the preset narrow."""

    def cases(number: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        operands: dict[str, Tensor] = {}
        given = Operands(elements, NUMERICS, drawn(operands, number), weight)
        outputs = integers_of(operator, given, Closed(NUMERICS, operator))
        return (
            {port: x.flatten(1) for port, x in operands.items()},
            {port: x.to(torch.int64).expand(number, *x.shape[1:]).reshape(number, -1) for port, x in outputs.items()},
        )

    return Design(name, words, lambda: circuit_of(operator, elements, "narrow", weight=weight), cases)


def _recorded(
    name: str,
    line: Callable[..., Tensor],
    ports: tuple[tuple[str, int, int], ...],
    realisation: Realisation | None = None,
) -> Circuit:
    builder = Builder(name)
    on = Recorded(NUMERICS, name, Events(realisation), builder)
    operands = (Traced(torch.tensor([[builder.port(p, 0, low, high)]]), builder, torch.int64) for p, low, high in ports)
    return builder.built([Output("y", (1,), tuple(numbers_of(line(on, *operands), builder).flatten().tolist()))])


_SHIFT = shift_exponential(NUMERICS)
_ROOT_BITS = 16

DESIGNS: tuple[Design, ...] = (
    _division("divide", "floor(2^8 A / B), A and B of 8 bits, a restoring neuron", DivideSpec(8, 8, 8), "restoring"),
    _division(
        "group_16",
        "floor(2^4 A / B), at most 16, A and B of 4 bits, an ordered group of N = 16",
        DivideSpec(4, 4, 4, 16),
        "ordered",
    ),
    _division(
        "group_256",
        "floor(2^8 A / B), at most 256, A and B of 8 bits, an ordered group of N = 256",
        DivideSpec(8, 8, 8, 256),
        "ordered",
    ),
    _verb(
        "mantissa",
        f"2^-f, f of {_SHIFT.fraction_bits} bits",
        lambda on, x: on.mantissa(x, _SHIFT),
        (1 << _SHIFT.fraction_bits) - 1,
    ),
    _verb(
        "root",
        f"floor(sqrt(x)), x of {2 * _ROOT_BITS} bits",
        lambda on, x: on.root(x, RootSpec(_ROOT_BITS)),
        (1 << 2 * _ROOT_BITS) - 1,
    ),
    _operator("divide_codes", "mantissas and exponents divided: the operator", "divide"),
    _operator("exp", "exp of a number: the operator", "exp"),
    _operator("sqrt", "sqrt of a code: the operator", "sqrt"),
    _operator("quantise", "encode: the operator quantise", "quantise"),
    _operator("linear", "a linear neuron with 4 int8 weights", "linear", 4, WEIGHT),
    _operator("softmax", "softmax of 8 scores", "softmax", 8),
)
