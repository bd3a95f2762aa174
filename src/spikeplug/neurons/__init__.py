"""Neurons: one exact step of a population, and the events it causes. Names are imported when they are first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spikeplug.lazy import names_of

if TYPE_CHECKING:
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

__getattr__ = names_of(
    __name__,
    {
        "events": ("COUNTS", "Events", "Kind", "Observer", "Population", "Scope", "total"),
        "lif": ("blocks", "integrate", "lif_step", "population_step", "reached", "row_blocks", "ternary_step"),
        "needs": ("Needs",),
    },
)
