"""A comparison of lm-eval results as tables for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table

from spikeplug.harness.compare import HarnessComparison
from spikeplug.harness.rows import Row
from spikeplug.measurement.table import headline, saturation_table, titled

_LEGEND = (
    "± standard error; of the difference, paired by item. p, two-sided: McNemar's exact test for 0/1 metrics, paired "
    "t for other means and for perplexities (on log-likelihoods), random swaps for the rest, normal for groups and "
    "means. In brackets: items only the exact model had right, and only the spiking one."
)


def comparison_tables(found: HarnessComparison) -> list[RenderableType]:
    """Return a comparison as texts and tables in display order: title, metrics, legend, saturations (if any)."""
    counts = found.conversion["counts"]
    replaced = ", ".join(f"{count['replaced']} {name}" for name, count in counts.items() if count["replaced"])
    title = headline(found.model)
    tables: list[RenderableType] = [f"{title}\nReplaced: {replaced}", comparison_table(found.rows), _LEGEND]
    if found.saturations:
        tables.append(saturation_table(found.saturations))
    return tables


def comparison_table(rows: Sequence[Row]) -> Table:
    """Return a table of both models with a row per metric of each task, then rows of groups and means."""
    numbers = ("items", "exact", "spiking", "difference", "p", "changed")
    table = titled("Exact and spiking", "task", "metric", numbers=numbers)
    last = None
    for row in rows:
        if row.kind != "task" and last == "task":
            table.add_section()
        last = row.kind
        found = row.found
        arrow = {True: "↑", False: "↓", None: ""}[row.higher_is_better]
        metric = row.metric if row.filter == "none" else f"{row.metric}, {row.filter}"
        table.add_row(
            row.name,
            f"{metric} {arrow}".strip(),
            f"{found.items}",
            _with_error(found.exact, found.exact_error),
            _with_error(found.spiking, found.spiking_error),
            _with_error(found.difference, found.difference_error, sign="+"),
            "" if found.p is None else f"{found.p:.2g}",
            f"{found.changed} (-{found.lost} +{found.gained})" if found.lost or found.gained else f"{found.changed}",
        )
    return table


def _with_error(value: float, error: float | None, sign: str = "") -> str:
    return _number(value, sign) if error is None else f"{_number(value, sign)} ± {_number(error)}"


def _number(value: float, sign: str = "") -> str:
    """Return a number as text with four decimals, one from 100 on, or an exponent below 5e-5 and from 1e5 on.

    sign   "+" to show the sign of positive numbers too
    """
    if value != 0 and not 5e-5 <= abs(value) < 1e5:
        return f"{value:{sign}.1e}"
    return f"{value:{sign}.4f}" if abs(value) < 100 else f"{value:{sign}.1f}"
