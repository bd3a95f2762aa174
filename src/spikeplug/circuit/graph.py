"""Describe a circuit: named populations of neurons, their synapses, thresholds and widths, and the integers they pass.

A circuit is a list of signals. Each is one integer, settled before the next one needs it. Most come from a stage: some
neurons that run for a fixed number of time steps. In each step, neurons are evaluated in their order:

    v <- leak(v) + Σ current;   spike = [v >= threshold], if its gates are open;   v <- v - threshold · spike

A current is a sum of terms: a weight, which is a constant or an integer that is held, times the spikes that open it.
A spike is seen in the step in which it is sent; a membrane that is held by another neuron is that of the step before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from torch import Tensor

from spikeplug.neurons.events import Kind

Integers = TypeVar("Integers", int, Tensor)
#: How a train sends the integer x, in steps t = 0, 1, ...
#: bits       the digits of |x|, the most significant first, as spikes of x's sign
#: magnitude  the same, all positive
#: graded     x itself, as one graded spike in every step
#: negative   a spike in every step if x < 0
#: positive   a spike in every step if x > 0
#: until      a spike in the steps t < x
Form = Literal["bits", "magnitude", "graded", "negative", "positive", "until"]


@dataclass(frozen=True)
class Held:
    """Name an integer that is held: a settled signal, or the membrane of a neuron of the same stage before this step.

    source  number of the signal in the circuit, or of the neuron in its stage
    state   whether it is a neuron's membrane
    factor  multiplies it
    places  floor(x · 2^-places) of it is taken, before the factor
    """

    source: int
    state: bool = False
    factor: int = 1
    places: int = 0


@dataclass(frozen=True)
class Gate:
    """Open a synapse, a leak or a neuron by a spike of another population.

    source  number of the train or neuron in the stage: its spikes multiply the weight
    closes  the other way round: open while it does not spike
    """

    source: Source
    closes: bool = False


@dataclass(frozen=True)
class Source:
    """Name what spikes in a stage: a train or a neuron, by its number there."""

    number: int
    train: bool


@dataclass(frozen=True)
class Term:
    """Describe one synapse, or bias: weight times the spikes of all its gates.

    step  the only step in which it acts; None: every step
    """

    weight: int | Held
    gates: tuple[Gate, ...] = ()
    step: int | None = None


@dataclass(frozen=True)
class Train:
    """Send a settled signal as spikes. Nothing is stepped: its kind is `input`.

    digits  bits per spike of the forms `bits` and `magnitude` (a graded spike of that many bits)
    steps   the digits that are sent, in as many steps; later ones are silent
    only    the only step in which it spikes; None: any
    """

    population: str
    signal: int
    form: Form
    steps: int = 0
    digits: int = 1
    only: int | None = None


@dataclass
class Neuron:
    """Describe one neuron of a stage.

    width      bits of the membrane, sign included
    leak       the membrane is scaled by 2^leak in each step; None: it is forgotten
    leaks_if   gates of the leak: the membrane is kept while one is shut
    start      sum of these, the membrane before the first step
    current    what arrives
    threshold  sum of these; None: an accumulator
    fires_if   gates of the spike
    ceiling    the membrane saturates here; None: it never does
    """

    population: str
    kind: Kind
    width: int
    leak: int | None = 0
    leaks_if: tuple[Gate, ...] = ()
    start: tuple[int | Held, ...] = (0,)
    current: tuple[Term, ...] = ()
    threshold: tuple[int | Held, ...] | None = None
    fires_if: tuple[Gate, ...] = ()
    ceiling: int | None = None


@dataclass
class Stage:
    """Run neurons for `steps` time steps; its signal is the membrane of one neuron, or how many of some fire.

    result  number of the neuron whose membrane is read after the last step; or those whose spikes of the last step are
            counted
    """

    name: str
    steps: int
    trains: list[Train] = field(default_factory=list)
    neurons: list[Neuron] = field(default_factory=list)
    result: int | tuple[int, ...] = ()


@dataclass(frozen=True)
class Port:
    """An operand: an integer that is given from outside, by its name and its place in the tensor of that name."""

    name: str
    place: int


@dataclass(frozen=True)
class Constant:
    """A constant."""

    value: int


@dataclass(frozen=True)
class Wiring:
    """A signal in other words, which takes no neuron: (x >> places, or x << -places) · sign + offset, masked.

    mask  the bits kept, of the two's complement; None: all
    """

    source: int
    places: int = 0
    sign: int = 1
    offset: int = 0
    mask: int | None = None

    def of(self, x: Integers) -> Integers:
        """Return integers, one or a tensor of them, in these words."""
        x = x >> self.places if self.places >= 0 else x << -self.places
        x = x * self.sign + self.offset
        return x if self.mask is None else x & self.mask


@dataclass(frozen=True)
class Read:
    """An entry of a table in memory, by the integer of a signal: kind `table`."""

    population: str
    table: tuple[int, ...]
    source: int


#: What a signal comes from.
Node = Port | Constant | Wiring | Read | Stage


@dataclass(frozen=True)
class Signal:
    """One integer of a circuit: what it comes from, and the bounds within which it lies."""

    node: Node
    low: int
    high: int

    @property
    def width(self) -> int:
        """Return the bits of a two's complement number that holds it, its sign included if it can be negative."""
        most = max(self.high, -self.low - 1 if self.low < 0 else 0)
        return max(1, most.bit_length() + (self.low < 0))


@dataclass(frozen=True)
class Output:
    """Name integers that a circuit gives: signals in the order of a tensor of the given shape."""

    name: str
    shape: tuple[int, ...]
    signals: tuple[int, ...]


@dataclass(frozen=True)
class Population:
    """One population of a circuit, summed over its stages: what hardware has to hold.

    neurons   neurons, trains or entries of all its stages
    synapses  synapses that its neurons receive
    """

    name: str
    kind: Kind
    width: int
    neurons: int
    synapses: int


@dataclass(frozen=True)
class Circuit:
    """Hold the signals of an integer function, each after those that it needs; and its outputs."""

    name: str
    signals: tuple[Signal, ...]
    outputs: tuple[Output, ...]

    @property
    def ports(self) -> dict[str, tuple[int, ...]]:
        """Return the signals of each operand, by the operand's name, in the order of its elements."""
        found: dict[str, dict[int, int]] = {}
        for number, signal in enumerate(self.signals):
            if isinstance(signal.node, Port):
                found.setdefault(signal.node.name, {})[signal.node.place] = number
        return {name: tuple(places[place] for place in sorted(places)) for name, places in found.items()}

    @property
    def stages(self) -> Iterator[tuple[int, Stage]]:
        """Yield the stages with the number of their signal."""
        return ((number, s.node) for number, s in enumerate(self.signals) if isinstance(s.node, Stage))

    @property
    def populations(self) -> dict[str, Population]:
        """Return what the circuit is made of, by the name of each population."""
        found: dict[str, Population] = {}

        def add(name: str, kind: Kind, width: int, neurons: int, synapses: int) -> None:
            before = found.get(name, Population(name, kind, 0, 0, 0))
            found[name] = Population(
                name, kind, max(width, before.width), before.neurons + neurons, before.synapses + synapses
            )

        tables: set[str] = set()
        for signal in self.signals:
            node = signal.node
            if isinstance(node, Read):
                width = max(map(abs, node.table)).bit_length() + 1
                add(node.population, "table", width, 0 if node.population in tables else len(node.table), 0)
                tables.add(node.population)
            elif isinstance(node, Stage):
                for train in node.trains:
                    add(train.population, "input", train.digits, 1, 0)
                for neuron in node.neurons:
                    add(neuron.population, neuron.kind, neuron.width, 1, len(neuron.current))
        return found

    @property
    def steps(self) -> int:
        """Return the time steps of all stages one after the other."""
        return sum(stage.steps for _, stage in self.stages)

    def __str__(self) -> str:
        neurons = sum(p.neurons for p in self.populations.values() if p.kind in ("threshold", "accumulator"))
        return f"{self.name}: {neurons:,} neurons in {len(self.populations)} populations, {self.steps:,} time steps"


def needed(node: Node) -> Sequence[int]:
    """Return the numbers of the signals that a node needs."""
    if isinstance(node, Wiring | Read):
        return (node.source,)
    if not isinstance(node, Stage):
        return ()
    held = [x for n in node.neurons for x in (*n.start, *(t.weight for t in n.current), *(n.threshold or ()))]
    return [t.signal for t in node.trains] + [x.source for x in held if isinstance(x, Held) and not x.state]
