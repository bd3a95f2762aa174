"""Measure ratios of times by interleaved runs in one process.

Imports only the standard library: other environments load it.
A round runs every arm once, one right after the other, and gives one ratio for each pair of arms. A figure is the
median of these ratios. What slows the machine down for a while slows both sides of a ratio.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

#: Seconds from which on a first call is not repeated to warm up: most of it was work. Compiled code has run before,
#: when its output was checked.
_LONG = 2.0


@dataclass(frozen=True)
class Timing:
    """Hold the seconds of one call of each arm, by round; None in rounds in which a slow arm did not run."""

    rounds: Mapping[str, Sequence[float | None]]

    def count(self, arm: str) -> int:
        """Return the number of rounds in which the arm ran."""
        return len(self._measured(arm))

    def seconds(self, arm: str) -> float:
        """Return the median time of one call of the arm, in seconds."""
        return statistics.median(self._measured(arm))

    def ratio(self, arm: str, base: str) -> tuple[float, float, float]:
        """Return first quartile, median and third quartile of (time of `arm`) / (time of `base`) over the rounds."""
        pairs = zip(self.rounds[arm], self.rounds[base], strict=True)
        ratios = sorted(a / b for a, b in pairs if a is not None and b is not None)
        if len(ratios) == 1:
            return (ratios[0],) * 3
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return low, middle, high

    def _measured(self, arm: str) -> list[float]:
        return [value for value in self.rounds[arm] if value is not None]


def interleaved(
    arms: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    bases: Sequence[str] = ("exact", "copy"),
    budget: float = 10.0,
    others: float = 4.0,
    least: int = 3,
    shortest: float = 5e-4,
    clock: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Run the arms in turn, `rounds` times; the arm that begins changes from round to round.

    Every arm runs before anything is timed, so that it compiles, allocates and fills its caches. In a round, an arm is
    called often enough to take `shortest` seconds. Arms in `bases` run in all rounds; if one of them would take more
    than `budget` seconds in total, there are fewer rounds. Any other arm that would take more than `others` seconds
    runs in fewer rounds, spread evenly. No arm runs in fewer than `least`, so that one disturbed round decides nothing.
    """
    once = {name: _warm(function, clock) for name, function in arms.items()}
    calls = {name: min(1000, max(1, math.ceil(shortest / max(seconds, 1e-9)))) for name, seconds in once.items()}

    def affordable(name: str, seconds: float) -> int:
        return min(rounds, max(least, int(seconds / max(calls[name] * once[name], 1e-9))))

    rounds = min([rounds, *(affordable(name, budget) for name in arms if name in bases)])
    shares = {name: rounds if name in bases else affordable(name, others) for name in arms}
    found: dict[str, list[float | None]] = {name: [] for name in arms}
    names, collecting = list(arms), gc.isenabled()
    gc.disable()
    try:
        for turn in range(rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                due = (turn + 1) * shares[name] // rounds > turn * shares[name] // rounds
                found[name].append(_timed(arms[name], calls[name], clock) if due else None)
    finally:
        if collecting:
            gc.enable()
    return Timing(found)


def _warm(function: Callable[[], object], clock: Callable[[], float]) -> float:
    """Call the function twice; return the seconds of the second call.

    If the first call took over 2 s, there is no second: its seconds are returned.
    """
    first = _timed(function, 1, clock)
    return first if first > _LONG else _timed(function, 1, clock)


def _timed(function: Callable[[], object], calls: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(calls):
        function()
    return (clock() - start) / calls


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float | None:
    """Return p of seconds ~ size^p, by least squares over the logarithms; None for fewer than two sizes."""
    if len(sizes) < 2:
        return None
    slope, _ = statistics.linear_regression([math.log(x) for x in sizes], [math.log(y) for y in seconds])
    return slope
