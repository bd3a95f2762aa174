"""Export a stage of a circuit as a NIR graph (Pedersen et al., Nature Communications 15, 2024).

NIR has a threshold (v > θ), a reset to a value, and time constants. It has no time step, no width, no reset by
subtraction, no gate, and no threshold that an operand sets. So:

- The time step is 1. A leak factor 2^k is τ = 1 / (1 - 2^k) under Euler: τ = -1 doubles.
- v >= θ of integers is v > θ - 1/2. Rules, widths and codes stand in the metadata.
- An operand that is a threshold or a weight is a parameter: one graph for each of its values.
- A reset by subtraction is a synapse of the neuron to itself, which is exact in NIR's own terms; or, for simulators
  that can reset so, it stands in the metadata of a CubaLIF. Then θ is subtracted, so it has to be the integer itself,
  and v carries 1/2 more: by a bias, and a spike in the first step.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from spikeplug.circuit import Circuit
from spikeplug.errors import SpikeplugError, shown
from spikeplug.hardware.cells import Cell, Channel, Settled, add_input, impulse, settle
from spikeplug.hardware.packages import package
from spikeplug.hardware.rasters import METADATA

Reset = Literal["synapse", "neuron"]
#: Bits of the widest membrane, sign included, whose halves and lifted thresholds a float32 holds exactly.
_FLOAT32 = 22


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
    settled = settle(circuit, parameters or {}, population)
    return _Graph(nir, settled, reset).built(circuit.name, parameters or {})


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


class _Graph:
    """Write cells as nodes and edges. The cells of a population with one depth and one dynamics are one node."""

    def __init__(self, nir: ModuleType, settled: Settled, reset: Reset) -> None:
        self.nir, self.settled, self.reset = nir, settled, reset
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.channels: list[Channel] = []
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
        sources = {places[number][0] for number in self.settled.outputs}
        order = [places[number][1] for number in self.settled.outputs]
        if len(sources) != 1 or order != list(range(self.sizes[next(iter(sources))])):
            raise SpikeplugError(f"{name} has no NIR form: its result is read from several populations.")
        (source,) = sources
        self.nodes["output"] = self.nir.Output({"output": np.array([len(order)])})
        self.edges.append((source, "output"))
        reset, written = "any", "v > threshold - 1/2"
        if any(cell.resets and cell.threshold is not None for cells in groups.values() for cell in cells):
            reset = "subtracted by a synapse" if self.reset == "synapse" else "subtract"
            written = written if self.reset == "synapse" else "v + 1/2 > threshold"
        stage = self.settled.stage
        metadata = {
            "circuit": name,
            "stage": stage.name,
            "time_step": 1.0,
            "steps": stage.steps,
            "comparison": f"v >= threshold of integers, written as {written}",
            "reset": reset,
            "inputs": {str(number): channel.to_dict() for number, channel in enumerate(self.channels)},
            "readout": self.settled.readout,
        }
        if parameters:
            metadata["parameters"] = {key: np.ravel(np.asarray(value, np.int64)) for key, value in parameters.items()}
        return self.nir.NIRGraph(self.nodes, self.edges, metadata={METADATA: metadata})

    def _number(self, cell: Cell) -> int:
        return next(number for number, other in enumerate(self.settled.cells) if other is cell)

    def _groups(self) -> dict[Any, list[Cell]]:
        """Return the cells that the output needs, in order, by population and depth."""
        cells = self.settled.cells
        needed, open_ends = set[int](), list(self.settled.outputs)
        while open_ends:
            number = open_ends.pop()
            if number not in needed:
                needed.add(number)
                open_ends += cells[number].spikes
        depth: dict[int, int] = {}
        groups: dict[Any, list[Cell]] = {}
        for number in sorted(needed):
            cell = cells[number]
            depth[number] = 1 + max((depth[sender] for sender in cell.spikes), default=-1)
            key = (depth[number], cell.neuron.population, cell.threshold is None, cell.leak, cell.resets)
            groups.setdefault(key, []).append(cell)
        return dict(sorted(groups.items(), key=lambda item: item[0][0]))

    def _carries_half(self, cell: Cell) -> bool:
        return self.reset == "neuron" and cell.resets and cell.threshold is not None

    def _started(self, cell: Cell) -> None:
        """Send the membrane at the start, as a spike in the first step."""
        factor = 0.0 if cell.leak is None else 2.0**cell.leak
        half = 0.5 if self._carries_half(cell) else 0.0
        cell.bias += half * (1 - factor)
        if (cell.start + half) * factor:
            add_input(cell, impulse(0), (cell.start + half) * factor)

    def _name(self, population: str) -> str:
        """Return a name that no Python object has: readers make it an attribute."""
        base = name = "n_" + re.sub(r"\W", "_", population)
        number = 1
        while name in self.nodes:
            number += 1
            name = f"{base}_{number}"
        return name

    def _driven(self, base: str, cells: list[Cell], places: Mapping[int, tuple[str, int]]) -> None:
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

    def _writes_synapse(self, cell: Cell) -> bool:
        return self.reset == "synapse" and cell.resets and cell.threshold is not None

    def _neurons(self, base: str, cells: list[Cell]) -> None:
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
