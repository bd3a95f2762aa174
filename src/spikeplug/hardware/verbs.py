"""Record single verbs as circuits, by name and width: the smallest things that run elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from spikeplug.circuit import Builder, Circuit, Output, Traced, numbers_of
from spikeplug.errors import SpikeplugError, shown
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.primitives.arithmetic import Arithmetic, Recorded
from spikeplug.primitives.divide import DivideSpec
from spikeplug.primitives.exponential import ShiftExponential
from spikeplug.primitives.norm import RootSpec
from spikeplug.realisation import Realisation

Neurons = Literal["restoring", "ordered"]
#: (name, low, high) -> an operand, int64 (1, 1).
Port = Callable[[str, int, int], Tensor]


def _divide(on: Arithmetic, port: Port, bits: int) -> Tensor:
    most = (1 << bits) - 1
    return on.divide(port("numerator", 0, most), port("denominator", 0, most), DivideSpec(bits, bits, bits, 1 << bits))


def _root(on: Arithmetic, port: Port, bits: int) -> Tensor:
    return on.root(port("square", 0, (1 << 2 * bits) - 1), RootSpec(bits))


def _add(on: Arithmetic, port: Port, bits: int) -> Tensor:
    most = (1 << bits) - 1
    return on.add(port("a", -most, most), port("b", -most, most), bits)


def _gate(on: Arithmetic, port: Port, bits: int) -> Tensor:
    most = (1 << bits) - 1
    return on.gate(port("spikes", 0, most), port("value", -most, most), bits)


def _reaches(on: Arithmetic, port: Port, bits: int) -> Tensor:
    most = (1 << bits) - 1
    return on.reaches(port("x", -most, most), port("threshold", -most, most), bits)


def _exponential(on: Arithmetic, port: Port, bits: int) -> Tensor:
    return on.mantissa(port("distance", 0, (1 << bits) - 1), ShiftExponential(bits, min(32, 1 << bits), 22))


#: divide       min(floor(2^bits · numerator / denominator), 2^bits)
#: root         floor(sqrt(square)), of 2·bits bits
#: add          a + b
#: gate         spikes · value
#: reaches      1 where x >= threshold
#: exponential  2^-(distance · 2^-bits) with 22 fraction bits, from a table of up to 32 segments
VERBS: Mapping[str, Callable[[Arithmetic, Port, int], Tensor]] = {
    "divide": _divide,
    "root": _root,
    "add": _add,
    "gate": _gate,
    "reaches": _reaches,
    "exponential": _exponential,
}


def circuit_of_verb(verb: str, bits: int, neurons: Neurons = "restoring") -> Circuit:
    """Return the circuit of a verb on operands of `bits` bits, with the output "result" of one integer.

    neurons  those of a division and of a root
    Errors: SpikeplugError for an unknown verb or neurons, and for bits outside of 1 to 24.
    """
    if verb not in VERBS:
        raise SpikeplugError(f"unknown verb {shown(verb)}: choose one of {', '.join(VERBS)}.")
    if neurons not in ("restoring", "ordered"):
        raise SpikeplugError(f"unknown neurons {shown(neurons)}: choose restoring or ordered.")
    if not isinstance(bits, int) or isinstance(bits, bool) or not 1 <= bits <= 24:
        raise SpikeplugError(f"bits is {shown(bits)}: give a width between 1 and 24.")
    builder = Builder(verb)

    def port(name: str, low: int, high: int) -> Tensor:
        return Traced(torch.tensor([[builder.port(name, 0, low, high)]]), builder, torch.int64)

    on = Recorded(Numerics(), "", Events(Realisation(division=neurons, norm=neurons)), builder)
    signals = numbers_of(VERBS[verb](on, port, bits), builder)
    return builder.built([Output("result", (1,), tuple(signals.flatten().tolist()))])
