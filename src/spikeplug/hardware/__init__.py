"""Compare events with hardware: what they cost by tables of published prices, and what fits the limits of chips.

Names are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spikeplug.lazy import names_of

if TYPE_CHECKING:
    from spikeplug.hardware.chips import Chip, chip_names, load_chip
    from spikeplug.hardware.fit import Fit, fit_all
    from spikeplug.hardware.pricing import Energy, energy
    from spikeplug.hardware.tables import CostTable, load_table, table_names

__all__ = [
    "Chip",
    "CostTable",
    "Energy",
    "Fit",
    "chip_names",
    "energy",
    "fit_all",
    "load_chip",
    "load_table",
    "table_names",
]

__getattr__ = names_of(
    __name__,
    {
        "chips": ("Chip", "chip_names", "load_chip"),
        "emulators": (),
        "fit": ("Fit", "fit_all"),
        "neurobench": (),
        "nir": (),
        "pricing": ("Energy", "energy"),
        "rasters": (),
        "tables": ("CostTable", "load_table", "table_names"),
        "token": (),
        "verbs": (),
        "verilog": (),
    },
)
