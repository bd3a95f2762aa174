"""List the sections of a report, one file each: what is measured (settings -> rows) and how it is drawn.

steps(comparison) -> int        number of rows; the largest possible where it depends on the results
measure(comparison, row)        calls row(key, work) for each row, in order. `row` returns the values, from `work` or
                                an earlier run, so a study that decides by its results resumes on the same path
view(rows, header) -> Section   draws the rows that there are
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from spikeplug.measurement.section import Rows, Section
    from spikeplug.report.comparison import Comparison

#: The one list: names of files, in the order in which they are measured and shown.
STUDIES = ("propagation", "budget", "ablation", "sweeps", "location", "rasters", "effort")


class Row(Protocol):
    """Return the values of the row named `key`: those of an earlier run, or what `work()` measures now."""

    def __call__(self, key: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]: ...


class Study(Protocol):
    """Measure and draw one section of a report; each file of this folder has these three functions.

    steps    number of rows it measures
    measure  measure the rows
    view     draw them
    """

    def steps(self, comparison: Comparison) -> int: ...

    def measure(self, comparison: Comparison, row: Row) -> None: ...

    def view(self, rows: Rows, header: dict[str, Any]) -> Section: ...


def study(name: str) -> Study:
    """Import and return the study (a file of this folder) of that name, one of STUDIES."""
    return cast("Study", import_module(f"spikeplug.report.sections.{name}"))


def sections_of(header: dict[str, Any], rows: Sequence[dict[str, Any]]) -> list[Section]:
    """Return one section per study that has rows, in the order of STUDIES."""
    by_study: dict[str, dict[str, Any]] = {}
    for row in rows:
        by_study.setdefault(row["study"], {})[row["key"]] = row["values"]
    return [study(name).view(by_study[name], header) for name in STUDIES if name in by_study]
