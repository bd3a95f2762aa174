"""Settle a stage of a circuit: its neurons in terms of constant weights and thresholds, or why that cannot be.

What parameters settle becomes a constant: a threshold, a weight, a gate that is always open. What is left are neurons
with a leak, a threshold, synapses from input channels and from each other, and a bias.

- A gate of the spike that opens in the last step alone is an excitation: it lifts a threshold out of reach.
- What only sums spikes at the end is the reader's: `rasters.decode`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from spikeplug.circuit import Circuit, Constant, Gate, Held, Neuron, Port, Stage, Term, Train, Wiring
from spikeplug.errors import SpikeplugError, shown
from spikeplug.hardware.rasters import sent

#: Bits of the widest membrane, sign included, whose halves and lifted thresholds a float64 holds exactly.
WIDEST = 51


def settle(circuit: Circuit, parameters: Mapping[str, int | Sequence[int]], population: str | None) -> Settled:
    """Return a stage of a circuit with its parameters settled; see `nir.to_nir`.

    Errors: SpikeplugError for a stage without NIR form, in words, and for missing parameters.
    """
    return _Settling(circuit, _stage(circuit, population), _known(circuit, parameters)).settled()


def _stage(circuit: Circuit, population: str | None) -> Stage:
    wanted, _, place = (population or "").partition("#")
    stages = [stage for _, stage in circuit.stages if population is None or stage.name == wanted]
    if place.isdecimal() and 1 <= int(place) <= len(stages):
        return stages[int(place) - 1]
    if len(stages) == 1 and not place:
        return stages[0]
    names = list(dict.fromkeys(stage.name for _, stage in circuit.stages))
    if not stages:
        raise SpikeplugError(f"{circuit.name} has no stage {shown(population)}: choose one of {', '.join(names)}.")
    if population is not None:
        raise SpikeplugError(
            f"{circuit.name} has {len(stages)} stages {wanted}: choose one by its number, such as {wanted}#1."
        )
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    raise SpikeplugError(
        f"{circuit.name} has no NIR form: it has {len(stages)} stages, and one waits for the integers of another; "
        f"choose one by its population: {', '.join(names[:6])}{more}."
    )


def _known(circuit: Circuit, parameters: Mapping[str, int | Sequence[int]]) -> dict[int, int]:
    """Return the signals that the parameters settle, by number."""
    ports = circuit.ports
    unknown = [name for name in parameters if name not in ports]
    if unknown:
        raise SpikeplugError(f"{circuit.name} has no operand {unknown[0]!r}: choose one of {', '.join(ports)}.")
    known: dict[int, int] = {}
    for number, signal in enumerate(circuit.signals):
        node = signal.node
        if isinstance(node, Constant):
            known[number] = node.value
        elif isinstance(node, Port) and node.name in parameters:
            given = np.ravel(np.asarray(parameters[node.name]))
            if given.size != len(ports[node.name]) or given.dtype.kind not in "iu":
                raise SpikeplugError(
                    f"the operand {node.name!r} of {circuit.name} has {len(ports[node.name])} elements: give as many "
                    "integers."
                )
            known[number] = int(given[node.place])
            if not signal.low <= known[number] <= signal.high:
                raise SpikeplugError(f"the operand {node.name!r} must lie in [{signal.low}, {signal.high}].")
        elif isinstance(node, Wiring) and node.source in known:
            known[number] = node.of(known[node.source])
    return known


@dataclass(frozen=True)
class Channel:
    """One input of a graph: a train of an operand, or a constant spike (operand "")."""

    train: Train
    operand: str
    place: int
    low: int
    high: int

    @property
    def most(self) -> int:
        """Return the largest spike."""
        if self.train.form == "graded":
            return max(0, self.high)
        digits = self.train.digits if self.train.form in ("bits", "magnitude") else 1
        return (1 << digits) - 1

    @property
    def least(self) -> int:
        """Return the smallest spike."""
        if self.train.form == "graded":
            return min(0, self.low)
        return -self.most if self.train.form == "bits" and self.low < 0 else 0

    def to_dict(self) -> dict[str, Any]:
        """Return what `rasters.encode` reads."""
        train = self.train
        return {
            "operand": self.operand,
            "place": self.place,
            "low": self.low,
            "high": self.high,
            "form": train.form,
            "steps": train.steps,
            "digits": train.digits,
            "only": -1 if train.only is None else train.only,
        }


@dataclass
class Cell:
    """One neuron with everything settled that the parameters settle.

    inputs, spikes  weights by channel, and by number of the neuron that sends
    start           its membrane before the first step
    resets          whether the reset after a spike can matter
    """

    neuron: Neuron
    leak: int | None
    start: int
    threshold: int | None
    resets: bool = True
    bias: float = 0
    inputs: dict[Channel, float] = field(default_factory=dict)
    spikes: dict[int, int] = field(default_factory=dict)


@dataclass
class Settled:
    """A stage in the terms of NIR: its cells in order, which of them give the output, and how it is read."""

    stage: Stage
    cells: list[Cell]
    outputs: list[int]
    readout: dict[str, Any]


class _Settling:
    """Settle what a stage holds, and refuse what NIR cannot say."""

    def __init__(self, circuit: Circuit, stage: Stage, known: Mapping[int, int]) -> None:
        self.circuit, self.stage, self.known = circuit, stage, known

    def settled(self) -> Settled:
        cells = [self._cell(neuron) for neuron in self.stage.neurons]
        outputs, readout = self._readout(cells)
        return Settled(self.stage, cells, outputs, readout)

    def _refused(self, neuron: Neuron, why: str) -> SpikeplugError:
        return SpikeplugError(f"{neuron.population} has no NIR form: {why}.")

    def _cell(self, neuron: Neuron) -> Cell:
        leak = neuron.leak
        if self.stage.steps > 1:
            if leak is not None and leak < 0:
                raise self._refused(neuron, "it rounds when it leaks, and NIR's leak does not round")
            if not all(self._always(gate) for gate in neuron.leaks_if):
                raise self._refused(neuron, "spikes gate its leak, and NIR has no gates")
        parts = neuron.threshold
        threshold = None if parts is None else sum(self._value(neuron, part, "threshold") for part in parts)
        cell = Cell(neuron, leak, 0, threshold)
        for part in neuron.start:
            self._start(cell, part)
        if self.stage.steps == 1:  # no step is left to leak in, and no reset matters
            scaled = 0 if leak is None else cell.start << leak if leak >= 0 else cell.start >> -leak
            cell.leak, cell.start, cell.bias, cell.resets = 0, 0, scaled, False
        for term in neuron.current:
            self._add(cell, term)
        for gate in neuron.fires_if:
            self._gate(cell, gate)
        if not self._is_readout(cell):
            if neuron.ceiling is not None:
                raise self._refused(neuron, "its membrane saturates, and NIR's does not")
            if neuron.width > WIDEST:
                holds = f"a float64 holds {WIDEST} exactly"
                raise self._refused(neuron, f"its membrane has {neuron.width} bits, and {holds}")
        return cell

    def _start(self, cell: Cell, part: int | Held) -> None:
        """Add a part of the membrane at the start: if it is an operand, as a graded spike in the first step."""
        operand = self._operand(part)
        if operand is None:
            cell.start += self._value(cell.neuron, part, "membrane at the start")
        elif cell.leak is not None:
            if cell.leak < 0:
                raise self._refused(cell.neuron, "it rounds when it leaks, and NIR's leak does not round")
            train, factor = operand
            add_input(cell, self._channel(replace(train, only=0)), factor << cell.leak)

    def _operand(self, part: int | Held) -> tuple[Train, int] | None:
        """Return an operand that is held as a graded spike, and its weight; None for what is settled or rounded."""
        if not isinstance(part, Held) or part.state or part.source in self.known or part.places:
            return None
        return Train(f"signal {part.source}", part.source, "graded"), part.factor

    def _value(self, neuron: Neuron, part: int | Held, what: str) -> int:
        if not isinstance(part, Held):
            return part
        if part.state:
            other = self.stage.neurons[part.source].population
            raise self._refused(neuron, f"its {what} is the membrane of {other}, and NIR's is a constant")
        if part.source not in self.known:
            node = self.circuit.signals[part.source].node
            if isinstance(node, Port):
                raise SpikeplugError(
                    f"the {what} of {neuron.population} is the operand {node.name!r}, which NIR holds as a number: "
                    f"give it as a parameter, such as {node.name}={self.circuit.signals[part.source].high}."
                )
            raise self._refused(neuron, f"its {what} is computed by another stage, and NIR's is a constant")
        return (self.known[part.source] >> part.places) * part.factor

    def _spikes(self, train: Train) -> list[int] | None:
        """Return what a train of a settled signal sends in each step; None if its signal is an operand."""
        if train.signal not in self.known:
            return None
        channel, x = self._channel(train).to_dict(), np.array([self.known[train.signal]])
        return [int(sent(channel, x, step)[0]) for step in range(self.stage.steps)]

    def _always(self, gate: Gate) -> bool | None:
        """Tell whether a gate is open in every step, or in none; None if neither is certain."""
        if not gate.source.train:
            return None
        spikes = self._spikes(self.stage.trains[gate.source.number])
        if spikes is None or len(set(spikes)) > 1 or spikes[0] not in (0, 1):
            return None
        return (spikes[0] == 1) != gate.closes

    def _add(self, cell: Cell, term: Term) -> None:
        neuron, gates = cell.neuron, list[Gate]()
        operand = None if term.gates else self._operand(term.weight)
        if operand is not None:  # an operand that arrives as it is
            train, factor = operand
            add_input(cell, self._channel(replace(train, only=term.step)), factor)
            return
        weight = self._value(neuron, term.weight, "weight")
        for gate in term.gates:
            opened = self._always(gate)
            if opened is False:
                weight = 0  # the operands of the graph do not depend on its parameters
            elif opened is None:
                gates.append(gate)
        if len(gates) > 1:
            raise self._refused(neuron, "one of its synapses is gated by other spikes, and NIR has no gates")
        if not gates:
            self._constant(cell, weight, term.step)
            return
        (gate,) = gates
        if gate.closes:
            self._constant(cell, weight, term.step)
            weight = -weight
        if not gate.source.train:
            if term.step is not None:
                raise self._refused(neuron, "one of its synapses acts in one step alone")
            cell.spikes[gate.source.number] = cell.spikes.get(gate.source.number, 0) + weight
            return
        train = self.stage.trains[gate.source.number]
        spikes = self._spikes(train)
        if spikes is not None:
            for step, spike in enumerate(spikes):
                if spike and term.step in (None, step):
                    self._constant(cell, weight * spike, step)
            return
        if term.step is not None:
            if train.only not in (None, term.step):
                return
            train = replace(train, only=term.step)
        add_input(cell, self._channel(train), weight)

    def _constant(self, cell: Cell, weight: int, step: int | None) -> None:
        if step is None or self.stage.steps == 1:
            cell.bias += weight
        else:
            add_input(cell, impulse(step), weight)

    def _channel(self, train: Train) -> Channel:
        signal = self.circuit.signals[train.signal]
        node = signal.node
        name, place = (node.name, node.place) if isinstance(node, Port) else (train.population, 0)
        return Channel(replace(train, signal=0, population=""), name, place, signal.low, signal.high)

    def _gate(self, cell: Cell, gate: Gate) -> None:
        """Let a gate of the spike lift the neuron's threshold, as an excitation that it needs."""
        neuron = cell.neuron
        assert cell.threshold is not None
        opened = self._always(gate)
        if opened is None:
            train = self.stage.trains[gate.source.number] if gate.source.train else None
            last = self.stage.steps - 1
            if train is None or gate.closes or train.only != last or train.form not in ("positive", "negative"):
                raise self._refused(neuron, "spikes gate its own in more than the last step, and NIR has no gates")
            channel = self._channel(train)
            lift = self._highest(cell, channel) + 1 - cell.threshold
            add_input(cell, channel, lift)
            cell.threshold, cell.resets = cell.threshold + lift, False
        elif not opened:
            cell.threshold = self._highest(cell) + 1

    def _highest(self, cell: Cell, silent: Channel | None = None) -> int:
        """Return an upper bound of the membrane while one of its inputs is silent."""
        widest = (1 << cell.neuron.width - 1) - 1
        if cell.leak != 0:
            return widest
        steps = self.stage.steps
        arriving = [
            max(weight * channel.least, weight * channel.most) * (1 if channel.train.only is not None else steps)
            for channel, weight in cell.inputs.items()
            if channel != silent
        ]
        excited = sum(max(0, weight) for weight in cell.spikes.values()) + max(0, cell.bias)
        return min(widest, cell.start + int(sum(max(0, x) for x in arriving) + excited * steps))

    def _is_readout(self, cell: Cell) -> bool:
        """Tell whether a cell only adds up spikes of others, so that a reader can."""
        place = next(n for n, neuron in enumerate(self.stage.neurons) if neuron is cell.neuron)
        return (
            self.stage.result == place
            and cell.threshold is None
            and not (cell.inputs or cell.bias or cell.start)
            and bool(cell.spikes)
        )

    def _readout(self, cells: list[Cell]) -> tuple[list[int], dict[str, Any]]:
        result = self.stage.result
        if not isinstance(result, int):
            return list(result), {
                "of": "spikes",
                "weights": np.ones(len(result), np.int64),
                "leak": 0,
                "keeps": 0,
                "limit": -1,
            }
        cell = cells[result]
        if self._is_readout(cell):
            limit = -1 if cell.neuron.ceiling is None else cell.neuron.ceiling
            weights = np.array(list(cell.spikes.values()), np.int64)
            leak = cell.leak or 0
            return list(cell.spikes), {
                "of": "spikes",
                "weights": weights,
                "leak": leak,
                "keeps": int(cell.leak is not None),
                "limit": limit,
            }
        if cell.threshold is not None:
            raise self._refused(cell.neuron, "its membrane is read after its reset, and NIR gives spikes")
        return [result], {"of": "membrane"}


def impulse(step: int) -> Channel:
    """Return the channel that spikes once, in one step."""
    return Channel(Train("", 0, "graded", only=step), "", 0, 1, 1)


def add_input(cell: Cell, channel: Channel, weight: float) -> None:
    cell.inputs[channel] = cell.inputs.get(channel, 0) + weight
