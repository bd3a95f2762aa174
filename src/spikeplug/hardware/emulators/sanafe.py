"""SANA-FE's model of Loihi, with its energies: https://github.com/SLAM-Lab/SANA-FE.

It takes any leak factor and a reset by subtraction, which Loihi 1 has not: their figures are those of Loihi's cost
model with a hypothetical neuron. A spike arrives one time step after it was sent; before the first one
arrives, neurons take their membrane at the start. Input neurons cost nothing there, beyond their messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import sanafe

from spikeplug.errors import SpikeplugError
from spikeplug.hardware.emulators import node
from spikeplug.hardware.rasters import Integers, described, unary

if TYPE_CHECKING:
    from spikeplug.neurons import Events

#: Neurons, and input neurons, that a core of the model holds.
_PER_CORE = 1024
#: No membrane of 24 bits reaches it.
_OUT_OF_REACH = float(1 << 24)


@cache
def _architecture() -> Any:
    """Return the model of Loihi; reading its file takes a second, and no simulation changes it."""
    return sanafe.load_loihi()


@dataclass(frozen=True)
class Simulated:
    """Hold what a simulation gives.

    output  spikes, or membranes of neurons without threshold, (steps, batch, neurons)
    energy  in J
    counts  neuron_steps, soma_spikes, messages and synops, as the simulator counted
    """

    output: npt.NDArray[Any]
    energy: float
    counts: dict[str, int]


def run(graph: Any, raster: Integers) -> npt.NDArray[Any]:
    """Return the spikes or membranes of the output (steps, batch, neurons)."""
    return simulated(graph, raster).output


def simulated(graph: Any, raster: Integers, *, cores: int = 128, reader: bool = False) -> Simulated:
    """Run copies of the network, an element of the batch each, side by side on `cores` cores.

    reader  whether each output spike is sent on, to what reads the result: a cell that costs nothing
    """
    network = _Network(graph, raster, reader)
    chips = [
        network.simulated(range(start, min(start + network.capacity(cores), network.batch)), cores)
        for start in range(0, network.batch, network.capacity(cores))
    ]
    return Simulated(
        np.concatenate([chip.output for chip in chips], 1),
        sum(chip.energy for chip in chips),
        {name: sum(chip.counts[name] for chip in chips) for name in chips[0].counts},
    )


def predicted(events: Events, population: str, prices: Mapping[str, float], *, steps: int) -> float:
    """Return the energy, in pJ, that predicted events of a population and of the trains that drive it have here.

    prices  of driven_updates, spikes, messages and synops
    steps   time steps of the graph; in one, nothing travels, else neurons step once before the first spike arrives

    Neurons cost as much in idle steps. Input neurons cost their messages and synaptic operations alone. A spike is one
    message: all its targets are on one core.
    """
    found = events.populations
    neurons = found[population]
    trains = [x for name, x in found.items() if x.kind == "input" and name.startswith(f"{population}/")]
    waiting = neurons.neurons if steps > 1 else 0
    spikes = neurons.spikes + sum(train.spikes for train in trains)
    synops = neurons.synops + sum(train.synops for train in trains)
    return (
        (neurons.membrane_updates + waiting) * prices["driven_updates"]
        + neurons.spikes * prices["spikes"]
        + spikes * prices["messages"]
        + synops * prices["synops"]
    )


class _Network:
    """One layer of a graph, in the terms of the simulator.

    A graph of one step needs no input neurons: what arrives is the membrane at the start.
    """

    def __init__(self, graph: Any, raster: Integers, reader: bool) -> None:
        cell, affine, about = node(graph, ["I", "LI", "IF", "CubaLIF"]), node(graph, ["Affine"]), described(graph)
        self.reader = reader
        self.batch, self.size = raster.shape[1], len(cell.r)
        tau = getattr(cell, "tau", getattr(cell, "tau_mem", np.full(self.size, np.inf)))
        self.leak = 1 - 1 / tau.astype(float)
        self.fires = hasattr(cell, "v_threshold")
        self.threshold = cell.v_threshold.astype(float) if self.fires else np.full(self.size, _OUT_OF_REACH)
        self.reset = "soft" if str(about["reset"]) == "subtract" else "hard"
        self.bias = affine.bias.astype(float)
        self.one_step = int(about["steps"]) == 1
        inputs = [about["inputs"][key] for key in sorted(about["inputs"], key=int)]
        starting = np.array([self.one_step or (not str(x["operand"]) and int(x["only"]) == 0) for x in inputs], bool)
        weight = affine.weight[:, : len(inputs)].astype(float)
        first = raster[0][:, starting] @ weight[:, starting].T
        self.start = first + self.bias if self.one_step else first / self.leak
        self.weight = weight[:, ~starting]
        trains = raster[:, :, ~starting]
        told_apart = trains if np.any(self.leak != 1) else trains[-1] if self.fires else trains[:0]
        if told_apart.max(initial=0) > 1:
            raise SpikeplugError(
                "sanafe cannot run it: its spikes are 0 or 1, and its neurons would tell several apart."
            )
        self.trains = unary(trains)

    def capacity(self, cores: int) -> int:
        """Return how many copies fit."""
        return cores * int(_PER_CORE // (self.size + self.weight.shape[1] + self.reader))

    def simulated(self, elements: range, cores: int) -> Simulated:
        """Simulate some elements of the batch on one chip."""
        architecture, network = _architecture(), sanafe.Network()
        neurons, channels = self.size * len(elements), self.weight.shape[1]
        units = {"default_synapse_hw_name": "loihi_dense_synapse", "default_dendrite_hw_name": "loihi_dendrites"}
        group = network.create_neuron_group(
            "neurons", neurons, soma_hw_name="loihi_lif", log_spikes=True, log_potential=True, **units
        )
        sources = channels + self.reader
        inputs = network.create_neuron_group("inputs", sources * len(elements), **units) if sources else []
        for place, element in enumerate(elements):
            core = architecture.cores()[place % cores]
            own = [group[place * self.size + number] for number in range(self.size)]
            for number, neuron in enumerate(own):
                neuron.set_attributes(
                    model_attributes={
                        "threshold": float(self.threshold[number]),
                        "leak_decay": float(self.leak[number]),
                        "reset_mode": self.reset,
                        "bias": float(self.start[element, number]),
                        "force_update": True,
                    }
                )
                neuron.map_to_core(core)
            for number in range(sources):
                source, reads = inputs[place * sources + number], number == channels
                train = [] if reads else [bool(x) for x in self.trains[:, element, number]]
                soma = f"loihi_inputs[{place // cores * sources + number}]"
                source.set_attributes(soma_hw_name=soma, model_attributes={"spikes": train})
                source.map_to_core(core)
                for place_of, neuron in enumerate(own):
                    if reads:  # by synapses of no weight, since an input neuron takes no current
                        neuron.connect_to_neuron(source, {"weight": 0.0})
                    else:
                        source.connect_to_neuron(neuron, {"weight": float(self.weight[place_of, number])})
        chip = sanafe.SpikingChip(architecture)
        chip.load(network)
        runs = [chip.sim(1, spike_trace=True, potential_trace=True)]
        if not self.one_step:
            for place in range(neurons):
                bias = {"bias": float(self.bias[place % self.size])}
                chip.mapped_neuron_groups["neurons"][place].set_attributes(model_attributes=bias)
            runs.append(chip.sim(len(self.trains), spike_trace=True, potential_trace=True))
        trace = runs[-1]["spike_trace"]
        spikes = np.zeros((len(trace), neurons), np.int64)
        for step, fired in enumerate(trace):
            for address in fired:
                if address.group_name == "neurons":
                    spikes[step, address.neuron_offset] = 1
        output = spikes if self.fires else np.array(runs[-1]["potential_trace"])
        counts = {
            "neuron_steps": sum(part["timesteps_executed"] for part in runs) * neurons,
            "soma_spikes": int(spikes.sum()),
            "messages": sum(part["packets_sent"] for part in runs),
            "synops": sum(part["spikes"] for part in runs),
        }
        return Simulated(
            output.reshape(len(trace), len(elements), self.size),
            sum(part["energy"]["total"] for part in runs),
            counts,
        )
