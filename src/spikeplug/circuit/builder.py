"""Build a circuit: signals one by one, and stages neuron by neuron."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from spikeplug.circuit.graph import (
    Circuit,
    Constant,
    Form,
    Gate,
    Held,
    Neuron,
    Node,
    Output,
    Port,
    Read,
    Signal,
    Source,
    Stage,
    Term,
    Train,
    Wiring,
    needed,
)
from spikeplug.errors import SpikeplugError
from spikeplug.neurons.events import Kind


class Builder:
    """Collect the signals of one circuit. Equal constants and wirings are one signal."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.signals: list[Signal] = []
        self._shared: dict[Node, int] = {}

    def add(self, node: Node, low: int, high: int) -> int:
        """Add a signal, and return its number; low and high: its bounds."""
        self.signals.append(Signal(node, low, high))
        return len(self.signals) - 1

    def port(self, name: str, place: int, low: int, high: int) -> int:
        """Add one integer of an operand."""
        return self.add(Port(name, place), low, high)

    def constant(self, value: int) -> int:
        """Return the signal of a constant."""
        return self._once(Constant(value), value, value)

    def wire(self, source: int, wiring: Wiring) -> int:
        """Return the signal `source` in the words of `wiring`, whose own source is ignored."""
        if source < 0:
            raise SpikeplugError(
                f"{self.name} has no circuit form: it compares integers outside of its neurons and goes on with that."
            )
        node, signal = replace(wiring, source=source), self.signals[source]
        if isinstance(signal.node, Constant):
            return self.constant(node.of(signal.node.value))
        if node == Wiring(source):
            return source
        if node.mask is not None:
            if signal.low >= 0 and signal.high <= node.mask and not node.mask & (node.mask + 1):
                return source
            low, high = (0, node.mask) if node.mask >= 0 else (min(signal.low & node.mask, 0), max(signal.high, 0))
            return self._once(node, low, high)
        ends = [node.of(end) for end in (signal.low, signal.high)]
        return self._once(node, min(ends), max(ends))

    def read(self, population: str, table: Sequence[int], source: int) -> int:
        """Return the entry of a table at the integer of a signal."""
        return self.add(Read(population, tuple(table), source), min(table), max(table))

    def bounds(self, number: int) -> tuple[int, int]:
        """Return the bounds of a signal."""
        if number < 0:
            return self.bounds(self.wire(number, Wiring(0)))
        return self.signals[number].low, self.signals[number].high

    def built(self, outputs: Sequence[Output]) -> Circuit:
        """Return the circuit of these outputs: the signals that they need, numbered anew."""
        wanted, open_ends = set[int](), [s for output in outputs for s in output.signals]
        while open_ends:
            number = open_ends.pop()
            if number not in wanted:
                wanted.add(number)
                open_ends += needed(self.signals[number].node)
        kept = [n for n, s in enumerate(self.signals) if n in wanted or isinstance(s.node, Port)]
        new = {old: place for place, old in enumerate(kept)}
        signals = tuple(replace(self.signals[n], node=_renumbered(self.signals[n].node, new)) for n in kept)
        named = tuple(Output(o.name, o.shape, tuple(new[s] for s in o.signals)) for o in outputs)
        return Circuit(self.name, signals, named)

    def _once(self, node: Node, low: int, high: int) -> int:
        if node not in self._shared:
            self._shared[node] = self.add(node, low, high)
        return self._shared[node]


class StageBuilder:
    """Build one stage, whose populations are named `name` and `name/part`."""

    def __init__(self, builder: Builder, name: str) -> None:
        self.builder, self.name = builder, name
        self._stage = Stage(name, 0)

    def train(
        self, part: str, signal: int, form: Form = "bits", steps: int = 0, *, digits: int = 1, only: int | None = None
    ) -> Source:
        """Add a train that sends a signal; see `Train`."""
        self.builder.bounds(signal)  # refuses what is no signal
        self._stage.trains.append(Train(self._population(part), signal, form, steps, digits, only))
        return Source(len(self._stage.trains) - 1, train=True)

    def neuron(
        self,
        part: str,
        kind: Kind,
        width: int,
        *,
        leak: int | None = 0,
        leaks_if: Sequence[Gate] = (),
        start: Sequence[int | Held] = (0,),
        threshold: Sequence[int | Held] | None = None,
        fires_if: Sequence[Gate] = (),
        ceiling: int | None = None,
    ) -> Source:
        """Add a neuron without synapses; see `Neuron`."""
        self._stage.neurons.append(
            Neuron(
                self._population(part),
                kind,
                min(width, 64),
                leak,
                tuple(leaks_if),
                tuple(start),
                (),
                None if threshold is None else tuple(threshold),
                tuple(fires_if),
                ceiling,
            )
        )
        return Source(len(self._stage.neurons) - 1, train=False)

    def synapse(self, neuron: Source, weight: int | Held, *gates: Source | Gate, step: int | None = None) -> None:
        """Add a synapse, or a bias if it has no gate, to a neuron."""
        opened = tuple(g if isinstance(g, Gate) else Gate(g) for g in gates)
        owner = self._stage.neurons[neuron.number]
        owner.current = (*owner.current, Term(weight, opened, step))

    def settled(self, neuron: Source, steps: int, low: int, high: int) -> int:
        """Return the signal of the membrane of a neuron after `steps` steps.

        It lies in [low, high], and within the membrane's width.
        """
        self._stage.steps, self._stage.result = steps, neuron.number
        limit = 1 << self._stage.neurons[neuron.number].width - 1
        return self.builder.add(self._stage, max(low, -limit), min(high, limit - 1))

    def counted(self, neurons: Sequence[Source], steps: int = 1) -> int:
        """Return the signal of how many of the neurons spike in the last step."""
        self._stage.steps, self._stage.result = steps, tuple(n.number for n in neurons)
        return self.builder.add(self._stage, 0, len(neurons))

    def _population(self, part: str) -> str:
        return f"{self.name}/{part}" if part else self.name


def state(neuron: Source, factor: int = 1, places: int = 0) -> Held:
    """Return the membrane of a neuron of the same stage, before the step."""
    return Held(neuron.number, True, factor, places)


def held(signal: int, factor: int = 1, places: int = 0) -> Held:
    """Return a settled signal, as a weight, a threshold or a membrane at the start."""
    return Held(signal, False, factor, places)


def _renumbered(node: Node, new: dict[int, int]) -> Node:
    if isinstance(node, Wiring | Read):
        return replace(node, source=new[node.source])
    if not isinstance(node, Stage):
        return node

    def moved(x: int | Held) -> int | Held:
        return replace(x, source=new[x.source]) if isinstance(x, Held) and not x.state else x

    return replace(
        node,
        trains=[replace(t, signal=new[t.signal]) for t in node.trains],
        neurons=[
            replace(
                n,
                start=tuple(map(moved, n.start)),
                current=tuple(replace(t, weight=moved(t.weight)) for t in n.current),
                threshold=None if n.threshold is None else tuple(map(moved, n.threshold)),
            )
            for n in node.neurons
        ],
    )
