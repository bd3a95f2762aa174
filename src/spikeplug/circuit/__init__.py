"""Circuits: integer functions as graphs of neurons, traced, and run step by step."""

from spikeplug.circuit.builder import Builder, StageBuilder, held, state
from spikeplug.circuit.graph import (
    Circuit,
    Constant,
    Form,
    Gate,
    Held,
    Neuron,
    Output,
    Population,
    Port,
    Read,
    Signal,
    Source,
    Stage,
    Term,
    Train,
    Wiring,
)
from spikeplug.circuit.run import run
from spikeplug.circuit.traced import Place, Traced, numbers_of

__all__ = [
    "Builder",
    "Circuit",
    "Constant",
    "Form",
    "Gate",
    "Held",
    "Neuron",
    "Output",
    "Place",
    "Population",
    "Port",
    "Read",
    "Signal",
    "Source",
    "Stage",
    "StageBuilder",
    "Term",
    "Traced",
    "Train",
    "Wiring",
    "held",
    "numbers_of",
    "run",
    "state",
]
