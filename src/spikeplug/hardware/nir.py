"""Export a stage of a circuit as a NIR graph (Pedersen et al., Nature Communications 15, 2024).

NIR has a threshold (v > θ), a reset to a value, and time constants. It has no time step, no width, no reset by
subtraction, no gate, and no threshold that an operand sets. So:

- The time step is 1. A leak factor 2^k is τ = 1 / (1 - 2^k) under Euler: τ = -1 doubles.
- v >= θ of integers is v > θ - 1/2. Rules, widths and codes stand in the metadata.
- An operand that is a threshold or a weight is a parameter: one graph for each of its values.
- A gate of the spike that opens in the last step alone is an excitation: it lifts a threshold out of reach.
- A reset by subtraction is a synapse of the neuron to itself, which is exact in NIR's own terms; or, for simulators
  that can reset so, it stands in the metadata of a CubaLIF. Then θ is subtracted, so it has to be the integer itself,
  and v carries 1/2 more: by a bias, and a spike in the first step.
- What only sums spikes at the end is the reader's: `rasters.decode`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch

from spikeplug.circuit import Circuit, Constant, Gate, Held, Neuron, Port, Stage, Term, Train, Wiring
from spikeplug.circuit.run import wired
from spikeplug.errors import SpikeplugError, shown
from spikeplug.hardware.packages import package
from spikeplug.hardware.rasters import METADATA, sent

Reset = Literal["synapse", "neuron"]
#: Widths of membranes, sign included, whose halves and lifted thresholds a float32 or a float64 holds exactly.
_FLOAT32, _FLOAT64 = 22, 51


def to_nir(
    circuit: Circuit,
    parameters: Mapping[str, int | Sequence[int]] | None = None,
    *,
    population: str | None = None,
    reset: Reset = "synapse",
) -> Any:
    """Return a stage of a circuit as a `nir.NIRGraph`.

    parameters  the operands that set thresholds or weights, by name
    population  the name of the stage, "name#2" for the second of that name; None: the only one
    reset       how a reset by subtraction is written: a `synapse` of the neuron to itself, or in the metadata of the
                `neuron`

    The operands of the graph are the circuit's, and the populations that send what another stage computes.
    Errors: SpikeplugError for a stage without NIR form, in words, and for missing parameters.
    """
    if reset not in ("synapse", "neuron"):
        raise SpikeplugError(f"reset is {shown(reset)}: choose 'synapse' or 'neuron'.")
    nir = package("nir")
    compiled = _Compiler(circuit, _stage(circuit, population), _known(circuit, parameters or {})).compiled()
    return _Graph(nir, compiled, reset).built(circuit.name, parameters or {})


def write(graph: Any, path: str | Path) -> None:
    """Write a graph to a file, whole or not at all. Errors: SpikeplugError for a path that cannot be written."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        package("nir").write(str(temporary), graph)
        temporary.replace(target)
    except OSError as error:
        raise SpikeplugError(f"{path} cannot be written ({error}): give a file in a folder that can be.") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def read(path: str | Path) -> Any:
    """Return the graph of a file. Errors: SpikeplugError for a file that is not there or is no NIR file."""
    nir = package("nir")
    try:
        return nir.read(str(path))
    except (OSError, KeyError, ValueError, TypeError, AssertionError) as error:
        raise SpikeplugError(
            f"{path} is no readable NIR file ({error}): give one that `spikeplug export` wrote."
        ) from None


def equal(a: Any, b: Any) -> bool:
    """Tell whether two graphs are equal: nodes, parameters, edges and metadata, to the bit."""
    return _same(_plain(a), _plain(b))


def _plain(graph: Any) -> dict[str, Any]:
    found = graph.to_dict()
    return {**found, "edges": sorted(map(tuple, found["edges"])), "metadata": graph.metadata}


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return bool(np.array_equal(np.asarray(a), np.asarray(b)))


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
    raise SpikeplugError(
        f"{circuit.name} has no NIR form: it has {len(stages)} stages, and one waits for the integers of another; "
        f"choose one by its population: {', '.join(names[:6])}{', ...' if len(names) > 6 else ''}."
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
            known[number] = int(wired(node, torch.tensor(known[node.source])))
    return known


@dataclass(frozen=True)
class _Channel:
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
class _Cell:
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
    inputs: dict[_Channel, float] = field(default_factory=dict)
    spikes: dict[int, int] = field(default_factory=dict)


@dataclass
class _Compiled:
    """A stage in the terms of NIR: its cells in order, which of them give the output, and how it is read."""

    stage: Stage
    cells: list[_Cell]
    outputs: list[int]
    readout: dict[str, Any]


class _Compiler:
    """Settle what a stage holds, and refuse what NIR cannot say."""

    def __init__(self, circuit: Circuit, stage: Stage, known: Mapping[int, int]) -> None:
        self.circuit, self.stage, self.known = circuit, stage, known

    def compiled(self) -> _Compiled:
        cells = [self._cell(neuron) for neuron in self.stage.neurons]
        outputs, readout = self._readout(cells)
        return _Compiled(self.stage, cells, outputs, readout)

    def _refused(self, neuron: Neuron, why: str) -> SpikeplugError:
        return SpikeplugError(f"{neuron.population} has no NIR form: {why}.")

    def _cell(self, neuron: Neuron) -> _Cell:
        leak = neuron.leak
        if self.stage.steps > 1:
            if leak is not None and leak < 0:
                raise self._refused(neuron, "it rounds when it leaks, and NIR's leak does not round")
            if not all(self._always(gate) for gate in neuron.leaks_if):
                raise self._refused(neuron, "spikes gate its leak, and NIR has no gates")
        parts = neuron.threshold
        threshold = None if parts is None else sum(self._value(neuron, part, "threshold") for part in parts)
        cell = _Cell(neuron, leak, 0, threshold)
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
            if neuron.width > _FLOAT64:
                holds = f"a float64 holds {_FLOAT64} exactly"
                raise self._refused(neuron, f"its membrane has {neuron.width} bits, and {holds}")
        return cell

    def _start(self, cell: _Cell, part: int | Held) -> None:
        """Add a part of the membrane at the start: if it is an operand, as a graded spike in the first step."""
        operand = self._operand(part)
        if operand is None:
            cell.start += self._value(cell.neuron, part, "membrane at the start")
        elif cell.leak is not None:
            if cell.leak < 0:
                raise self._refused(cell.neuron, "it rounds when it leaks, and NIR's leak does not round")
            train, factor = operand
            _add_input(cell, self._channel(replace(train, only=0)), factor << cell.leak)

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

    def _add(self, cell: _Cell, term: Term) -> None:
        neuron, gates = cell.neuron, list[Gate]()
        operand = None if term.gates else self._operand(term.weight)
        if operand is not None:  # an operand that arrives as it is
            train, factor = operand
            _add_input(cell, self._channel(replace(train, only=term.step)), factor)
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
        _add_input(cell, self._channel(train), weight)

    def _constant(self, cell: _Cell, weight: int, step: int | None) -> None:
        if step is None or self.stage.steps == 1:
            cell.bias += weight
        else:
            _add_input(cell, _impulse(step), weight)

    def _channel(self, train: Train) -> _Channel:
        signal = self.circuit.signals[train.signal]
        node = signal.node
        name, place = (node.name, node.place) if isinstance(node, Port) else (train.population, 0)
        return _Channel(replace(train, signal=0, population=""), name, place, signal.low, signal.high)

    def _gate(self, cell: _Cell, gate: Gate) -> None:
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
            _add_input(cell, channel, lift)
            cell.threshold, cell.resets = cell.threshold + lift, False
        elif not opened:
            cell.threshold = self._highest(cell) + 1

    def _highest(self, cell: _Cell, silent: _Channel | None = None) -> int:
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

    def _is_readout(self, cell: _Cell) -> bool:
        """Tell whether a cell only adds up spikes of others, so that a reader can."""
        place = next(n for n, neuron in enumerate(self.stage.neurons) if neuron is cell.neuron)
        return (
            self.stage.result == place
            and cell.threshold is None
            and not (cell.inputs or cell.bias or cell.start)
            and bool(cell.spikes)
        )

    def _readout(self, cells: list[_Cell]) -> tuple[list[int], dict[str, Any]]:
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


def _impulse(step: int) -> _Channel:
    """Return the channel that spikes once, in one step."""
    return _Channel(Train("", 0, "graded", only=step), "", 0, 1, 1)


def _add_input(cell: _Cell, channel: _Channel, weight: float) -> None:
    cell.inputs[channel] = cell.inputs.get(channel, 0) + weight


class _Graph:
    """Write cells as nodes and edges. The cells of a population with one depth and one dynamics are one node."""

    def __init__(self, nir: ModuleType, compiled: _Compiled, reset: Reset) -> None:
        self.nir, self.compiled, self.reset = nir, compiled, reset
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.channels: list[_Channel] = []
        self.sizes: dict[str, int] = {}
        self.dtype: type[np.floating[Any]] = np.float32

    def built(self, name: str, parameters: Mapping[str, int | Sequence[int]]) -> Any:
        """Return the graph."""
        groups = self._groups()
        widest = max(cell.neuron.width for cells in groups.values() for cell in cells)
        self.dtype = np.float32 if widest <= _FLOAT32 else np.float64
        for cells in groups.values():
            for cell in cells:
                self._started(cell)
        found = dict.fromkeys(channel for cells in groups.values() for cell in cells for channel in cell.inputs)
        self.channels = list(found)
        self.nodes["input"] = self.nir.Input({"input": np.array([max(1, len(self.channels))])})
        places: dict[int, tuple[str, int]] = {}
        for cells in groups.values():
            base = self._name(cells[0].neuron.population)
            self._driven(base, cells, places)
            self._neurons(base, cells)
            for place, cell in enumerate(cells):
                places[self._number(cell)] = (base, place)
        sources = {places[number][0] for number in self.compiled.outputs}
        order = [places[number][1] for number in self.compiled.outputs]
        if len(sources) != 1 or order != list(range(self.sizes[next(iter(sources))])):
            raise SpikeplugError(f"{name} has no NIR form: its result is read from several populations.")
        (source,) = sources
        self.nodes["output"] = self.nir.Output({"output": np.array([len(order)])})
        self.edges.append((source, "output"))
        resets = any(cell.resets and cell.threshold is not None for cells in groups.values() for cell in cells)
        stage = self.compiled.stage
        metadata = {
            "circuit": name,
            "stage": stage.name,
            "time_step": 1.0,
            "steps": stage.steps,
            "comparison": "v >= threshold of integers, written as v > threshold - 1/2",
            "reset": ("subtracted by a synapse" if self.reset == "synapse" else "subtract") if resets else "any",
            "inputs": {str(number): channel.to_dict() for number, channel in enumerate(self.channels)},
            "readout": self.compiled.readout,
        }
        if parameters:
            metadata["parameters"] = {key: np.ravel(np.asarray(value, np.int64)) for key, value in parameters.items()}
        return self.nir.NIRGraph(self.nodes, self.edges, metadata={METADATA: metadata})

    def _number(self, cell: _Cell) -> int:
        return next(number for number, other in enumerate(self.compiled.cells) if other is cell)

    def _groups(self) -> dict[Any, list[_Cell]]:
        """Return the cells that the output needs, in order, by population and depth."""
        cells = self.compiled.cells
        needed, open_ends = set[int](), list(self.compiled.outputs)
        while open_ends:
            number = open_ends.pop()
            if number not in needed:
                needed.add(number)
                open_ends += cells[number].spikes
        depth: dict[int, int] = {}
        groups: dict[Any, list[_Cell]] = {}
        for number in sorted(needed):
            cell = cells[number]
            depth[number] = 1 + max((depth[sender] for sender in cell.spikes), default=-1)
            key = (depth[number], cell.neuron.population, cell.threshold is None, cell.leak, cell.resets)
            groups.setdefault(key, []).append(cell)
        return dict(sorted(groups.items(), key=lambda item: item[0][0]))

    def _carries_half(self, cell: _Cell) -> bool:
        return self.reset == "neuron" and cell.resets and cell.threshold is not None

    def _started(self, cell: _Cell) -> None:
        """Send the membrane at the start, as a spike in the first step."""
        factor = 0.0 if cell.leak is None else 2.0**cell.leak
        half = 0.5 if self._carries_half(cell) else 0.0
        cell.bias += half * (1 - factor)
        if (cell.start + half) * factor:
            _add_input(cell, _impulse(0), (cell.start + half) * factor)

    def _name(self, population: str) -> str:
        """Return a name that no Python object has: readers make it an attribute."""
        base = name = "n_" + re.sub(r"\W", "_", population)
        number = 1
        while name in self.nodes:
            number += 1
            name = f"{base}_{number}"
        return name

    def _driven(self, base: str, cells: list[_Cell], places: Mapping[int, tuple[str, int]]) -> None:
        """Add the synapses from the input, and from each node whose spikes arrive."""
        target = f"{base}_state" if self._writes_synapse(cells[0]) else base
        weight = np.array([[cell.inputs.get(channel, 0) for channel in self.channels] or [0] for cell in cells])
        bias = np.array([cell.bias for cell in cells])
        if weight.any() or bias.any() or not any(cell.spikes for cell in cells):
            self._affine("input", f"{base}_synapses", target, weight, bias)
        for source in dict.fromkeys(places[number][0] for cell in cells for number in cell.spikes):
            weight = np.zeros((len(cells), self.sizes[source]))
            for row, cell in enumerate(cells):
                for number, value in cell.spikes.items():
                    if places[number][0] == source:
                        weight[row, places[number][1]] += value
            self._affine(source, f"{base}_from_{source}", target, weight)

    def _affine(self, source: str, name: str, target: str, weight: Any, bias: Any = None) -> None:
        if bias is None:
            bias = np.zeros(len(weight))
        self.nodes[name] = self.nir.Affine(weight.astype(self.dtype), np.asarray(bias).astype(self.dtype))
        self.edges += [(source, name), (name, target)]

    def _writes_synapse(self, cell: _Cell) -> bool:
        return self.reset == "synapse" and cell.resets and cell.threshold is not None

    def _neurons(self, base: str, cells: list[_Cell]) -> None:
        """Add the node of a group."""
        nir, leak, size = self.nir, cells[0].leak, len(cells)
        self.sizes[base] = size
        zeros, ones = np.zeros(size, self.dtype), np.ones(size, self.dtype)
        # v' = v + (-v + r·I) / τ = 2^k v + I
        tau = ones if leak is None else ones / (1 - 2.0**leak) if leak else None
        about = {"population": cells[0].neuron.population, "width": max(cell.neuron.width for cell in cells)}
        if cells[0].threshold is None:
            integrator = nir.I(r=ones) if tau is None else nir.LI(tau=tau, r=tau, v_leak=zeros)
            integrator.metadata = about
            self.nodes[base] = integrator
            return
        firing = np.array([cell.threshold for cell in cells]).astype(self.dtype)
        if self._writes_synapse(cells[0]):
            self.nodes[f"{base}_state"] = nir.I(r=ones)
            self.nodes[f"{base}_state"].metadata = about
            self.nodes[base] = nir.Threshold(firing - 0.5)
            self.edges.append((f"{base}_state", base))
            factor = 0.0 if leak is None else 2.0**leak
            if factor != 1:
                self._affine(f"{base}_state", f"{base}_leak", f"{base}_state", (factor - 1) * np.eye(size))
            if factor:
                self._affine(base, f"{base}_reset", f"{base}_state", -factor * np.diag(firing))
        elif self._carries_half(cells[0]):
            if tau is None:
                raise SpikeplugError(
                    f"{cells[0].neuron.population} has no NIR form with reset='neuron': without leak, no neuron of NIR "
                    "carries a reset by subtraction; choose reset='synapse'."
                )
            self.nodes[base] = nir.CubaLIF(
                tau_syn=ones, tau_mem=tau, r=tau, v_leak=zeros, v_threshold=firing, v_reset=zeros, w_in=ones
            )
            self.nodes[base].metadata = about
        else:
            self.nodes[base] = (
                nir.IF(r=ones, v_threshold=firing - 0.5, v_reset=zeros)
                if tau is None
                else nir.LIF(tau=tau, r=tau, v_leak=zeros, v_threshold=firing - 0.5, v_reset=zeros)
            )
            self.nodes[base].metadata = about
