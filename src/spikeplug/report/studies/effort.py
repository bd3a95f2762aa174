"""The least that is enough: the smallest n, table and working width that still meet a perplexity target, searched.

Coordinate search: from a numerics that meets the target, first the fewest bits, then the fewest working_bits, then the
smallest table, each by bisection with the others as found so far. Every answer was measured as a whole, and is minimal
in this sense: one step less of segments misses the target, and so did one less of the others when they were searched.
Bisection supposes that more is not worse. A target is met if the change of perplexity, up or down, and its standard
error together stay within it: what a few tokens cannot tell from luck does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from spikeplug.numerics import Numerics
from spikeplug.report.bench import Bench, Change
from spikeplug.report.capture import calls
from spikeplug.report.cost import updates_per_token
from spikeplug.report.studies import Row
from spikeplug.report.studies.sweeps import with_parameter

#: Allowed change of perplexity, up or down, in per cent.
TARGETS = (1.0, 0.5, 0.1)
PARAMETERS = ("bits", "working_bits", "segments")
# Where a search starts if the numerics of the run misses the target.
_ROOM = {"bits": 16, "working_bits": 24, "segments": 256}


def steps(bench: Bench) -> int:
    """At most: bisections of about four tries."""
    return len(TARGETS) * (2 + 4 * len(PARAMETERS))


def measure(bench: Bench, row: Row) -> None:
    """try/BITS,WORKING_BITS,SEGMENTS for each numerics that was tried, then target/PERCENT."""
    tried: dict[Numerics, dict[str, Any]] = {}

    def figures_of(numerics: Numerics) -> dict[str, Any]:
        if numerics not in tried:
            key = f"try/{','.join(str(getattr(numerics, name)) for name in PARAMETERS)}"
            tried[numerics] = row(key, partial(_try, bench, numerics))
        return tried[numerics]

    for target in TARGETS:
        found = search(bench.numerics, partial(_is_enough, figures_of, target))
        row(f"target/{target:g}", partial(_answer, bench, target, found))


def search(numerics: Numerics, enough: Callable[[Numerics], bool]) -> Numerics | None:
    """The smallest numerics that is enough; None if neither `numerics` nor one with much room is."""
    if not enough(numerics):
        roomy = numerics
        for name in ("working_bits", "bits", "segments"):
            wider = with_parameter(roomy, name, max(_ROOM[name], getattr(roomy, name)))
            roomy = wider or roomy
        if roomy == numerics or not enough(roomy):
            return None
        numerics = roomy
    for name in PARAMETERS:
        numerics = _least(numerics, name, enough)
    return numerics


def _least(numerics: Numerics, name: str, enough: Callable[[Numerics], bool]) -> Numerics:
    """Bisection; `numerics` is enough."""
    now = getattr(numerics, name)
    # Chords of fewer than 8 segments over the whole range of the piecewise form are no exponential any more.
    fewest = 1 if numerics.exponential == "shift" else 8
    below: Sequence[int] = [2**k for k in range(now.bit_length()) if fewest <= 2**k < now]
    if name != "segments":
        below = range(2 if name == "bits" else numerics.bits + 1, now)
    options = [option for value in below if (option := with_parameter(numerics, name, value)) is not None]
    low, high = 0, len(options)  # the answer is options[high], or `numerics` where high is beyond
    while low < high:
        middle = (low + high) // 2
        if enough(options[middle]):
            high = middle
        else:
            low = middle + 1
    return options[high] if high < len(options) else numerics


def _is_enough(figures_of: Callable[[Numerics], dict[str, Any]], target: float, numerics: Numerics) -> bool:
    figures = figures_of(numerics)
    change, deviation = figures["change_percent"], figures["standard_error_percent"]
    return change is not None and deviation is not None and abs(change) + deviation <= target


def _try(bench: Bench, numerics: Numerics) -> dict[str, Any]:
    return _fields(numerics) | bench.figures(Change(numerics))


def _fields(numerics: Numerics) -> dict[str, Any]:
    return {name: getattr(numerics, name) for name in PARAMETERS}


def _answer(bench: Bench, target: float, numerics: Numerics | None) -> dict[str, Any]:
    if numerics is None:
        return {"target_percent": target, "met": False}
    kinds = calls(bench)
    own = updates_per_token(kinds, bench.numerics)["updates_per_token"]
    found = updates_per_token(kinds, numerics)["updates_per_token"]
    return {
        "target_percent": target,
        "met": True,
        **_fields(numerics),
        **bench.figures(Change(numerics)),
        "updates_per_token": found,
        "updates_per_token_of_the_run": own,
        "numerics": numerics.to_dict(),
    }
