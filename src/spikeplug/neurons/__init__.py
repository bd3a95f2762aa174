"""Neurons: one exact step of a population, and the events it causes."""

from spikeplug.neurons.events import COUNTS, Events, Kind, Observer, Population, Scope, total
from spikeplug.neurons.lif import blocks, integrate, lif_step, population_step, reached, row_blocks, ternary_step
from spikeplug.neurons.needs import Needs

__all__ = [
    "COUNTS",
    "Events",
    "Kind",
    "Needs",
    "Observer",
    "Population",
    "Scope",
    "blocks",
    "integrate",
    "lif_step",
    "population_step",
    "reached",
    "row_blocks",
    "ternary_step",
    "total",
]
