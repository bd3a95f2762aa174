"""Show the rows of a run as tables: a line per case, with times divided by those of torch's exact op."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from spikeplug.bench.results import Row, growths
from spikeplug.measurement.table import titled

_TITLES = {
    "operators": "Operators: time over that of torch's exact op (median over interleaved rounds)",
    "simulated": "A few rows, with the simulation: time over that of torch's exact op",
    "growth": "Growth: time over that of torch's exact op",
    "layer": "One decoder layer: time over that of the exact layer",
    "model": "Whole model: time over that of the exact model",
}
_OTHERS = ("copy", "published", "closed", "simulated")


def tables(rows: Sequence[Row]) -> list[Table]:
    """Return a table per section, and one of how times grow."""
    found = [_section(section, [row for row in rows if row.section == section]) for section in _TITLES]
    return [table for table in (*found, _growth(rows)) if table.row_count]


def by_case(rows: Sequence[Row]) -> list[dict[str, Row]]:
    """Return one dict per case: its rows by the name of their arm."""
    cases: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in rows:
        cases.setdefault((*row.case, str(row.size)), {})[row.arm] = row
    return list(cases.values())


def duration(seconds: float | None) -> str:
    """Return a time as text with three digits and a unit, such as "1.23 ms"; "" for None."""
    if seconds is None:
        return ""
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.0f} ns"


def times(ratio: float | None) -> str:
    """Return a ratio as text: three digits below 100, whole numbers from 100 on; "" for None."""
    if ratio is None:
        return ""
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


def _section(section: str, rows: Sequence[Row]) -> Table:
    arms = [arm for arm in _OTHERS if any(row.arm == arm for row in rows)]
    speeds = any(row.tokens_per_second is not None for row in rows)
    copies = any(row.times_copy is not None for row in rows)
    peaks = any(row.peak_mib is not None for row in rows)
    columns = ["exact", "kernel", "kernel ×", *(f"{arm} ×" for arm in arms)]
    columns += ["kernel/copy"] * copies + ["tokens/s exact, kernel"] * speeds + ["MiB exact, kernel"] * peaks
    table = titled(_TITLES[section], "what", "shape", numbers=columns)
    for case in by_case(rows):
        kernel = case["kernel"]
        name = f"{kernel.name}{f', {kernel.axis}' if kernel.axis else ''}"
        if not kernel.equal:
            table.add_row(name, kernel.shape, "NOT EQUAL", "no figure")
            continue
        cells = [name, kernel.shape, duration(case["exact"].seconds), duration(kernel.seconds)]
        cells += [times(case[arm].times_exact) if arm in case else "" for arm in ("kernel", *arms)]
        if copies:
            cells.append(times(kernel.times_copy))
        if speeds:
            cells.append(_both(case, "tokens_per_second"))
        if peaks:
            cells.append(_both(case, "peak_mib"))
        table.add_row(*cells)
    return table


def _both(case: dict[str, Row], figure: str) -> str:
    values = [getattr(case[arm], figure) for arm in ("exact", "kernel")]
    return "" if None in values else ", ".join(f"{value:,.0f}" if value >= 10 else f"{value:.1f}" for value in values)


def _growth(rows: Sequence[Row]) -> Table:
    found = [growth for growth in growths(rows) if growth.exponent is not None]
    arms = list(dict.fromkeys(growth.arm for growth in found))
    title = "Growth: p of time ~ size^p"
    table = titled(title, "operator", "axis", "what grows", "sizes", numbers=arms)
    for operator, axis in dict.fromkeys((growth.operator, growth.axis) for growth in found):
        of = {growth.arm: growth for growth in found if (growth.operator, growth.axis) == (operator, axis)}
        first = next(iter(of.values()))
        sizes = f"{first.sizes[0]} to {first.sizes[-1]}"
        table.add_row(
            operator, axis, first.what, sizes, *(f"{of[arm].exponent:.2f}" if arm in of else "" for arm in arms)
        )
    return table
