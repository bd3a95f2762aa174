"""Convert a Hugging Face model into a spiking one, revert it, simulate it, and audit what it computes in floats."""

from spikeplug.conversion import entrances, recipes
from spikeplug.conversion.auditing import Audit, AuditEntry, audit
from spikeplug.conversion.explaining import ExplainedEntry, Explanation, explain
from spikeplug.conversion.quantizer import SpikingQuantizer, reverted
from spikeplug.conversion.recipes.online import Online, online
from spikeplug.conversion.recipes.recipe import Pipeline
from spikeplug.conversion.report import Entry, Report
from spikeplug.conversion.simulation import SimulatedEntry, Simulation, count, simulate
from spikeplug.conversion.spiking_config import SpikingConfig
from spikeplug.conversion.swap import convert, revert
from spikeplug.conversion.whole.recipe import Whole
from spikeplug.conversion.whole.spikes import counting_spikes

entrances.install()

__all__ = [
    "Audit",
    "AuditEntry",
    "Entry",
    "ExplainedEntry",
    "Explanation",
    "Online",
    "Pipeline",
    "Report",
    "SimulatedEntry",
    "Simulation",
    "SpikingConfig",
    "SpikingQuantizer",
    "Whole",
    "audit",
    "convert",
    "count",
    "counting_spikes",
    "explain",
    "online",
    "recipes",
    "revert",
    "reverted",
    "simulate",
]
