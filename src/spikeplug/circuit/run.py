"""Run a circuit step by step, neuron by neuron, on many operands at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from operator import mul

import torch
from torch import Tensor

from spikeplug.circuit.graph import Circuit, Constant, Gate, Held, Neuron, Port, Read, Signal, Stage, Train, Wiring
from spikeplug.errors import SpikeplugError


def run(circuit: Circuit, operands: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the outputs by name, int64 (batch, *shape), for operands int (batch, ...) by the names of the ports.

    Errors: SpikeplugError for operands that are missing, of another size, or out of the bounds of their port; and for a
    membrane that leaves its width, which would be a fault of the circuit.
    """
    values: list[Tensor] = []
    columns = _columns(circuit, operands)
    for signal in circuit.signals:
        value = _value(signal, values, columns)
        _within(value, signal.low, signal.high, f"{circuit.name}: the signal of {_name(signal)}")
        values.append(value)
    return {
        output.name: torch.stack([values[s] for s in output.signals], -1).view(-1, *output.shape)
        for output in circuit.outputs
    }


def _columns(circuit: Circuit, operands: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the operands as int64 (batch, elements), checked."""
    ports = circuit.ports
    if set(operands) != set(ports):
        given = ", ".join(map(repr, operands)) or "none"
        raise SpikeplugError(
            f"{circuit.name} takes the operands {', '.join(map(repr, ports))}, not {given}: give a tensor for each."
        )
    columns: dict[str, Tensor] = {}
    for name, places in ports.items():
        x = operands[name]
        if x.dtype.is_floating_point or x.dim() == 0 or x[:1].numel() != len(places):
            raise SpikeplugError(
                f"{circuit.name} got {name!r} of shape {tuple(x.shape)} and {x.dtype}: give integers (batch, elements) "
                f"of {len(places)} elements."
            )
        columns[name] = x.to(torch.int64).reshape(x.shape[0], -1)
    if len({x.shape[0] for x in columns.values()}) > 1:
        raise SpikeplugError(f"{circuit.name} got operands of several batch sizes: give all the same.")
    return columns


def _value(signal: Signal, values: list[Tensor], columns: Mapping[str, Tensor]) -> Tensor:
    node = signal.node
    if isinstance(node, Port):
        return columns[node.name][:, node.place]
    if isinstance(node, Constant):
        batch = next(iter(columns.values())).shape[0] if columns else 1
        return torch.full((batch,), node.value, dtype=torch.int64)
    if isinstance(node, Wiring):
        return node.of(values[node.source])
    if isinstance(node, Read):
        return torch.tensor(node.table, dtype=torch.int64)[values[node.source]]
    return _settled(node, values)


def _settled(stage: Stage, values: list[Tensor]) -> Tensor:
    """Run a stage, and return its signal."""
    one = torch.ones_like(values[0])
    membranes = [_sum(neuron.start, values, []) * one for neuron in stage.neurons]
    for neuron, membrane in zip(stage.neurons, membranes, strict=True):
        _fits(membrane, neuron, stage)
    spikes: list[Tensor] = []
    for step in range(stage.steps):
        trains = [_sent(train, values[train.signal], step) for train in stage.trains]
        before, spikes = list(membranes), []
        for number, neuron in enumerate(stage.neurons):
            membrane, fired = _stepped(neuron, membranes[number], step, values, before, trains, spikes)
            _fits(membrane, neuron, stage)
            if fired is not None:
                membrane = membrane - _sum(neuron.threshold or (), values, before) * fired
            membranes[number] = membrane
            spikes.append(torch.zeros_like(one) if fired is None else fired)
    if isinstance(stage.result, int):
        return membranes[stage.result]
    return torch.stack([spikes[number] for number in stage.result]).sum(0)


def _stepped(
    neuron: Neuron,
    membrane: Tensor,
    step: int,
    values: list[Tensor],
    before: list[Tensor],
    trains: list[Tensor],
    spikes: list[Tensor],
) -> tuple[Tensor, Tensor | None]:
    """Return the membrane before the reset, and the spikes, 0 or 1; None for an accumulator."""

    def opened(gates: Iterable[Gate]) -> Tensor:
        sent = ((trains if g.source.train else spikes)[g.source.number] for g in gates)
        return reduce(mul, ((1 - x if g.closes else x) for g, x in zip(gates, sent, strict=True)), one)

    one = torch.ones_like(membrane)
    scaled = _scaled(membrane, neuron.leak)
    membrane = torch.where(opened(neuron.leaks_if).bool(), scaled, membrane)
    for term in neuron.current:
        if term.step is None or term.step == step:
            membrane = membrane + _sum((term.weight,), values, before) * opened(term.gates)
    if neuron.ceiling is not None:
        membrane = membrane.clamp(max=neuron.ceiling)
    if neuron.threshold is None:
        return membrane, None
    fired = (membrane >= _sum(neuron.threshold, values, before)).to(torch.int64)
    return membrane, fired * opened(neuron.fires_if)


def _scaled(membrane: Tensor, leak: int | None) -> Tensor:
    if leak is None:
        return torch.zeros_like(membrane)
    return membrane << leak if leak >= 0 else membrane >> -leak


def _sum(parts: Iterable[int | Held], values: list[Tensor], membranes: list[Tensor]) -> Tensor | int:
    total: Tensor | int = 0
    for part in parts:
        if isinstance(part, Held):
            total = total + ((membranes if part.state else values)[part.source] >> part.places) * part.factor
        else:
            total = total + part
    return total


def _sent(train: Train, x: Tensor, step: int) -> Tensor:
    """Return the spikes of a train in one step."""
    if train.only is not None and train.only != step:
        return torch.zeros_like(x)
    if train.form in ("bits", "magnitude"):
        if step >= train.steps:
            return torch.zeros_like(x)
        place = (train.steps - 1 - step) * train.digits
        digit = x.abs() >> place & ((1 << train.digits) - 1)
        return digit * x.sign() if train.form == "bits" else digit
    if train.form == "graded":
        return x
    if train.form == "until":
        return (x > step).to(torch.int64)
    return (x < 0 if train.form == "negative" else x > 0).to(torch.int64)


def _fits(membrane: Tensor, neuron: Neuron, stage: Stage) -> None:
    if neuron.width < 64:
        limit = 1 << neuron.width - 1
        _within(membrane, -limit, limit - 1, f"{stage.name}: the membrane of {neuron.population}")


def _within(x: Tensor, low: int, high: int, what: str) -> None:
    if x.numel() and (int(x.min()) < low or int(x.max()) > high):
        raise SpikeplugError(f"{what} has left [{low}, {high}]: give operands within the bounds of their ports.")


def _name(signal: Signal) -> str:
    node = signal.node
    return node.name if isinstance(node, Port | Stage) else type(node).__name__.lower()
