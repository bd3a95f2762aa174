"""Record an operator as a circuit."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.circuit import Builder, Circuit, Output, Traced, numbers_of
from spikeplug.errors import SpikeplugError, shown
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.operators import LINEAR, RECORDS, Operator
from spikeplug.operators.operands import Operands
from spikeplug.presets import as_numerics, as_realisation
from spikeplug.primitives.arithmetic import Arithmetic, Recorded
from spikeplug.realisation import Realisation
from spikeplug.saturation import not_recorded


def circuit_of(
    operator: str,
    elements: int = 1,
    numerics: Numerics | str | None = None,
    realisation: Realisation | str | None = None,
    *,
    weight: Tensor | None = None,
) -> Circuit:
    """Return the circuit of an operator between its encoder and its decoder: the neurons for one vector of integers.

    operator     name of the operator, such as "softmax"
    elements     numbers of the vector
    numerics     its integers, or the name of a preset; None: the default
    realisation  its neurons, or the name of a preset; None: those of the preset with these numerics
    weight       int8 (out, elements), for "linear"

    The ports are the integers that the encoder gives. The outputs are the mantissa and the exponent of the result;
    if it has two parts, those of both ("mantissa 2", ...).
    Run step by step (`spikeplug.circuit.run`), it gives the integers of the operator's closed form, on every operand.
    Errors: SpikeplugError for an unknown operator, one without circuit form, and elements < 1.
    """
    _record(operator)
    if not isinstance(elements, int) or isinstance(elements, bool) or elements < 1:
        raise SpikeplugError(f"a circuit of {operator} got elements={elements!r}: give a number of at least 1.")
    chosen = as_numerics(numerics)
    builder = Builder(operator)
    on = Recorded(chosen, operator, Events(as_realisation(realisation, chosen)), builder)

    def port(name: str, shape: tuple[int, ...], low: int, high: int, full: bool) -> Tensor:
        count = torch.Size(shape).numel()
        numbers = torch.tensor([builder.port(name, place, low, high) for place in range(count)])
        return Traced(numbers.view(1, *shape), builder, torch.int64)

    found = integers_of(operator, Operands(elements, chosen, port, weight), on)
    return builder.built([_output(name, numbers_of(x, builder)) for name, x in found.items()])


def integers_of(operator: str, given: Operands, on: Arithmetic) -> dict[str, Tensor]:
    """Return what the integer function of an operator gives, by the names of its circuit's outputs.

    Saturations are not recorded. Errors: SpikeplugError for an unknown operator, and one without circuit form.
    """
    integers = _record(operator).integers
    assert integers is not None
    with not_recorded():
        codes = integers(given, on)
    return {
        part if number == 1 else f"{part} {number}": getattr(code, part)
        for number, code in enumerate(codes if isinstance(codes, tuple) else (codes,), 1)
        for part in ("mantissa", "exponent")
    }


def _record(operator: str) -> Operator:
    records = {**RECORDS, **LINEAR}
    able = [name for name, record in records.items() if record.integers is not None]
    if not isinstance(operator, str) or operator not in records:
        raise SpikeplugError(f"unknown operator {shown(operator)}: choose one of {', '.join(able)}.")
    record = records[operator]
    if record.integers is None:
        raise SpikeplugError(f"{operator} has no circuit form of its own: choose one of {', '.join(able)}.")
    return record


def _output(name: str, signals: Tensor) -> Output:
    shape = tuple(signals.shape[1:]) if signals.dim() else (1,)
    return Output(name, shape, tuple(signals.flatten().tolist()))
