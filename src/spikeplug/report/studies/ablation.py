"""What does the damage: each operator alone, each layer alone, and a growing share of the layers."""

from __future__ import annotations

from functools import partial
from typing import Any

from spikeplug.report.bench import Bench, Change
from spikeplug.report.studies import Row

SHARES = (0, 25, 50, 75, 100)
_QUICK_LAYERS = 8


def steps(bench: Bench) -> int:
    """Operators, all of them, layers, shares."""
    return len(bench.operators) + 1 + len(_layers(bench)) + len(SHARES)


def measure(bench: Bench, row: Row) -> None:
    """operator/NAME, operator/all, share/PERCENT and layer/NUMBER (counted from 1)."""
    for name in bench.operators:
        row(f"operator/{name}", partial(bench.figures, Change(bench.numerics, operators=(name,))))
    row("operator/all", partial(bench.figures, Change(bench.numerics)))
    for percent in SHARES:
        row(f"share/{percent}", partial(_share, bench, percent))
    for index in _layers(bench):
        change = Change(bench.numerics, exclude=bench.layers.all_but([index]))
        row(f"layer/{index + 1}", partial(bench.figures, change))


def _layers(bench: Bench) -> tuple[int, ...]:
    count = len(bench.layers)
    return bench.layers.spread(min(count, _QUICK_LAYERS) if bench.settings.quick else count)


def _share(bench: Bench, percent: int) -> dict[str, Any]:
    """That share of the layers, evenly spread; what lies outside the layers stays exact."""
    chosen = bench.layers.spread(round(len(bench.layers) * percent / 100))
    change = Change(bench.numerics, exclude=bench.layers.all_but(chosen)) if chosen else None
    return {"layers": [index + 1 for index in chosen], **bench.figures(change)}
