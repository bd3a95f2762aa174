"""From the rows of a run to sections for people: one view a study."""

from __future__ import annotations

from typing import Any, Protocol, cast

from spikeplug.report.section import Rows, Section
from spikeplug.report.settings import STUDIES
from spikeplug.report.views import ablation, effort, location, propagation, rasters, sweeps


class View(Protocol):
    """A module of `views`."""

    def view(self, rows: Rows, header: dict[str, Any]) -> Section: ...


_VIEWS = cast(
    "dict[str, View]",
    {
        module.__name__.rpartition(".")[2]: module
        for module in (propagation, ablation, sweeps, location, rasters, effort)
    },
)


def sections_of(header: dict[str, Any], rows: list[dict[str, Any]]) -> list[Section]:
    """One section a study that has rows, in the order of STUDIES."""
    by_study: dict[str, dict[str, Any]] = {}
    for row in rows:
        by_study.setdefault(row["study"], {})[row["key"]] = row["values"]
    return [_VIEWS[name].view(by_study[name], header) for name in STUDIES if name in by_study]
