"""How time grows with a size: the p of time ~ size^p, by operator, axis and arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spikeplug.bench.cases import AXES
from spikeplug.bench.results import Row
from spikeplug.bench.timing import exponent


@dataclass(frozen=True)
class Growth:
    """One arm's times over one axis. exponent: by least squares over all sizes; None of fewer than two."""

    operator: str
    axis: str
    what: str
    arm: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    exponent: float | None


def growths(rows: Sequence[Row]) -> list[Growth]:
    """Of the rows with figures in the section "growth"."""
    points: dict[tuple[str, str, str], list[tuple[int, float]]] = {}
    for row in rows:
        if row.section == "growth" and row.size is not None and row.seconds is not None:
            points.setdefault((row.name, row.axis, row.arm), []).append((row.size, row.seconds))
    found = []
    for (operator, axis, arm), measured in points.items():
        sizes, seconds = zip(*measured, strict=True)
        what = AXES.get((operator, axis), axis)
        found.append(Growth(operator, axis, what, arm, sizes, seconds, exponent(sizes, seconds)))
    return found
