"""State what each operator is made of: neurons, code, tables, scale, range, and its cost in events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from spikeplug.evidence.distributions import gaussian
from spikeplug.evidence.subjects import HEAD_DIM, SUBJECTS, Subject
from spikeplug.library import OPERATORS
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.presets import as_realisation
from spikeplug.realisation import Realisation

#: Elements of the vector whose neurons and events are counted.
DIMENSION = 8


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Hold what an operator is made of and what it costs, counted on one vector of DIMENSION (8) elements.

    For attention: one query and DIMENSION keys, HEAD_DIM (64) channels.

    operator              name of the operator
    populations           number of neurons by step of the computation ("exp", "divide"); all elements run side by side,
                          and steps share no neurons
    widest                bits of the widest membrane
    table_bytes           bytes of all lookup tables, bit-packed
    code                  spike code of the output: "phase", "count" or "population"
    time_steps, levels    an output is sent in `time_steps` (T) steps of up to `levels` (L) spikes
    bits                  fraction bits of an output, called n
    scale                 in words: the step of the output, fixed or a power of two per vector or element
    smallest, largest     smallest nonzero and largest output of a fixed step; None for a power-of-two scale
    input_range           in words: inputs beyond it lose something
    spikes, synops, steps
                          spikes, synaptic operations and time steps of a simulation on Gaussian inputs, whole vector

    A graded spike of value k counts as k spikes. Ordered groups, with one neuron per output level, receive their
    operands of up to 60 bits as graded spikes.
    """

    operator: str
    populations: Mapping[str, int]
    widest: int
    table_bytes: float
    code: str
    time_steps: int
    levels: int
    bits: int
    scale: str
    smallest: float | None
    largest: float | None
    input_range: str
    spikes: int
    synops: int
    steps: int

    @property
    def neurons(self) -> int:
        """Return the total number of neurons: the sum of `populations`."""
        return sum(self.populations.values())


def facts(name: str, numerics: Numerics, realisation: Realisation | None = None) -> Facts:
    """Return the facts of the operator called `name`: neurons, spikes and time steps, counted in a simulation.

    realisation  the neurons that compute it; None: those that belong to the numerics
    """
    subject, record = SUBJECTS[name], SUBJECTS[name].record
    realisation = as_realisation(realisation, numerics)
    events = Events(realisation)
    OPERATORS[name](*subject.arguments(subject.inputs(gaussian(), 1, DIMENSION)), numerics=numerics, events=events)
    neurons: Counter[str] = Counter()
    table_bits = widest = 0
    for population in events.populations.values():
        if population.kind == "table":
            table_bits += population.neurons * population.width
        elif population.kind != "input":
            neurons[population.name.split("/")[1]] += population.neurons
            widest = max(widest, population.width)
    fixed = not (record.scale == "element" or (record.scale == "vector" and numerics.shift_scaling))
    return Facts(
        operator=name,
        populations=dict(neurons),
        widest=widest,
        table_bytes=table_bits / 8,
        code=realisation.code,
        time_steps=realisation.time_steps(numerics.bits),
        levels=realisation.levels(numerics.bits),
        bits=numerics.bits,
        scale=_scale(subject, numerics),
        smallest=2.0**-numerics.bits if fixed else None,
        largest=record.largest(numerics) if fixed else None,
        input_range=record.input_range(numerics),
        spikes=events.spikes,
        synops=events.synops,
        steps=events.steps,
    )


def _scale(subject: Subject, numerics: Numerics) -> str:
    scale = subject.record.scale
    if scale == "element":
        return "a power of two per element"
    if scale == "vector" and numerics.shift_scaling:
        return "a power of two per vector"
    octaves = scale == "octaves" and (numerics.exponential == "shift" or subject.name == "log")
    return f"fixed step 2^-{numerics.bits}" + (" octaves" if octaves else "")


def mean_events(found: Facts) -> tuple[float, float]:
    """Return (spikes, synaptic operations) per output element: the counts of `found` over its number of outputs."""
    outputs = {"attention": HEAD_DIM, "vector_norm": 1}.get(found.operator, DIMENSION)
    return found.spikes / outputs, found.synops / outputs


def code_text(found: Facts) -> str:
    """Return a short text with the spike code, n (output bits), T (time steps) and L (spikes per step).

    For example "count, n = 8, T = 128, L = 2".
    """
    return f"{found.code}, n = {found.bits}, T = {found.time_steps}, L = {found.levels}"
