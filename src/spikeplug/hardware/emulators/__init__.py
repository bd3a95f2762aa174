"""Run exported NIR graphs in other people's simulators.

A runner is one file. It takes a graph and its spikes, (steps, batch, channels), and gives what the output node gives,
(steps, batch, neurons). Little else of spikeplug is imported, so each can run in an environment of its own, with its
simulator, `nir` and numpy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any

from spikeplug.errors import SpikeplugError, shown
from spikeplug.hardware.packages import package
from spikeplug.hardware.rasters import Integers, decode, encode


@dataclass(frozen=True)
class Emulator:
    """Describe a simulator, and what it can run.

    name     its name; its runner is the file of that name in this folder
    module   what is imported
    package  what is installed
    install  the command that installs it
    nodes    the kinds of NIR nodes that it runs
    bits     the widest membranes that it holds, sign included
    lacks    why it runs no others
    differs  what it reads in another way than NIR says, and what the runner does about it
    """

    name: str
    module: str
    package: str
    install: str
    nodes: frozenset[str]
    bits: int
    lacks: str
    differs: str

    @property
    def version(self) -> str:
        """Return the version that is installed. Errors: SpikeplugError if none is."""
        package(self.module, self.install)
        return metadata.version(self.package)


_ONE_LAYER = frozenset({"Input", "Affine", "IF", "Output"})
#: Membranes in float32; in the 24 bits of Loihi, of which 6 are fraction bits, with room for a lifted threshold.
_FLOAT32, _STATE = 22, 16
_LOIHI = "a leak factor is at most 1 and a reset is to 0, as on Loihi 1"
EMULATORS: Mapping[str, Emulator] = {
    emulator.name: emulator
    for emulator in (
        Emulator(
            name="nirtorch",
            module="nirtorch",
            package="nirtorch",
            install="pip install nir nirtorch torch",
            nodes=_ONE_LAYER | {"I", "LI", "Threshold"},
            bits=_FLOAT32,
            lacks="NIR's own equations have no reset by subtraction: write it as a synapse",
            differs="it brings no neurons, so the runner has NIR's; its own Affine leaves a bias as torch drew it",
        ),
        Emulator(
            name="norse",
            module="norse",
            package="norse",
            install="pip install nir nirtorch torch matplotlib && pip install --no-deps norse",
            nodes=_ONE_LAYER | {"CubaLIF"},
            bits=_FLOAT32,
            lacks="it has no I and no Threshold: write a reset in the metadata of the neuron",
            differs="it passes over nodes that it does not know, so the runner refuses them before",
        ),
        Emulator(
            name="spikingjelly",
            module="spikingjelly",
            package="spikingjelly",
            install="pip install nir nirtorch torch requests tqdm loguru==0.7.3 && pip install --no-deps spikingjelly",
            nodes=_ONE_LAYER,
            bits=_FLOAT32,
            lacks="time constants are longer than a time step, so no membrane doubles; a population has one threshold",
            differs="its resistance of an IF is 1 / time step",
        ),
        Emulator(
            name="snntorch",
            module="snntorch",
            package="snntorch",
            install="pip install nir nirtorch torch && pip install --no-deps snntorch",
            nodes=_ONE_LAYER,
            bits=_FLOAT32,
            lacks="its leak factor is at most 1; a population has one threshold",
            differs="it reads an IF as a leak of 0.9, which the runner sets to 1",
        ),
        Emulator(
            name="sinabs",
            module="sinabs",
            package="sinabs",
            install="pip install nir nirtorch torch pbr && pip install --no-deps sinabs",
            nodes=_ONE_LAYER,
            bits=_FLOAT32,
            lacks="its leak factor is below 1",
            differs="it keeps an IF above -θ and lets it spike several times per step, which the runner undoes",
        ),
        Emulator(
            name="sanafe",
            module="sanafe",
            package="sanafe",
            install="pip install nir sanafe",
            nodes=_ONE_LAYER | {"CubaLIF", "I", "LI"},
            bits=24,
            lacks="a neuron resets itself: write a reset in the metadata of the neuron",
            differs="spikes are 0 or 1 and arrive a step later; a doubling membrane is a hypothetical neuron",
        ),
        Emulator(
            name="lava",
            module="lava.proc.lif.process",
            package="lava-nc",
            install="pip install nir lava-nc  # Python 3.10",
            nodes=_ONE_LAYER,
            bits=_STATE,
            lacks=_LOIHI,
            differs="synapses of both signs lose the lowest bit of a weight, so each sign and byte has its own",
        ),
        Emulator(
            name="nengo_loihi",
            module="nengo_loihi",
            package="nengo-loihi",
            install="pip install nir nengo-loihi",
            nodes=_ONE_LAYER,
            bits=_STATE,
            lacks=_LOIHI,
            differs="its builder scales floats and rounds, so the runner sets the integers of its blocks",
        ),
    )
}


def run(name: str, graph: Any, operands: Mapping[str, Any]) -> Integers:
    """Return the integers (batch,) that a graph gives in the simulator of that name, for integer operands (batch,).

    Errors: SpikeplugError for an unknown simulator, one that is not installed (with the command that installs it), and
    a graph that it cannot run, in words.
    """
    emulator = _emulator(name)
    package(emulator.module, emulator.install)
    _check(emulator, graph)
    runner = import_module(f"spikeplug.hardware.emulators.{emulator.name}")
    return decode(graph, runner.run(graph, encode(graph, operands)))


def _emulator(name: str) -> Emulator:
    if name not in EMULATORS:
        raise SpikeplugError(f"unknown simulator {shown(name)}: choose one of {', '.join(EMULATORS)}.")
    return EMULATORS[name]


def _check(emulator: Emulator, graph: Any) -> None:
    """Refuse a graph with a node that the simulator would misread, or with wider membranes than it has."""
    kinds = {name: type(node).__name__ for name, node in graph.nodes.items()}
    unknown = [f"{name} ({kind})" for name, kind in kinds.items() if kind not in emulator.nodes]
    if unknown:
        raise SpikeplugError(f"{emulator.name} cannot run the node {unknown[0]}: {emulator.lacks}.")
    for name, node in graph.nodes.items():
        width = int(node.metadata.get("width", 0))
        if width > emulator.bits:
            raise SpikeplugError(
                f"{emulator.name} cannot run the node {name}: its membrane has {width} bits, and those of "
                f"{emulator.name} {emulator.bits}."
            )


def node(graph: Any, kinds: Iterable[str]) -> Any:
    """Return the only node of these kinds. Errors: SpikeplugError for none or several."""
    found = [node for node in graph.nodes.values() if type(node).__name__ in kinds]
    if len(found) != 1:
        raise SpikeplugError(f"this simulator runs one layer of neurons, and the graph has {len(found)}.")
    return found[0]
