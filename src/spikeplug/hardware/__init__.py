"""Compare events with hardware: what they cost by tables of published prices, and what fits the limits of chips.

Names are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spikeplug.lazy import names_of

if TYPE_CHECKING:
    from spikeplug.hardware.pricing import Energy, energy
    from spikeplug.hardware.tables import CostTable, load_table, table_names

__all__ = ["CostTable", "Energy", "energy", "load_table", "table_names"]

__getattr__ = names_of(
    __name__,
    {
        "pricing": ("Energy", "energy"),
        "tables": ("CostTable", "load_table", "table_names"),
    },
)
