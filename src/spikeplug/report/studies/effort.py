"""The least that is enough: the smallest n, table and working width that still meet a perplexity target, searched.

Coordinate search: from a config that meets the target, first the fewest bits, then the fewest working_bits, then the
smallest table, each by bisection with the others as found so far. Every answer was measured as a whole, and is minimal
in this sense: one step less of segments misses the target, and so did one less of the others when they were searched.
Bisection supposes that more is not worse. A target is met if the change of perplexity, up or down, and its standard
error together stay within it: what a few tokens cannot tell from luck does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from spikeplug.config import SpikeConfig
from spikeplug.report.bench import Bench, Change
from spikeplug.report.capture import calls
from spikeplug.report.cost import updates_per_token
from spikeplug.report.studies import Row
from spikeplug.report.studies.sweeps import with_parameter

#: Allowed change of perplexity, up or down, in per cent.
TARGETS = (1.0, 0.5, 0.1)
PARAMETERS = ("bits", "working_bits", "segments")
# Where a search starts if the config of the run misses the target.
_ROOM = {"bits": 16, "working_bits": 24, "segments": 256}


def steps(bench: Bench) -> int:
    """At most: bisections of about four tries."""
    return len(TARGETS) * (2 + 4 * len(PARAMETERS))


def measure(bench: Bench, row: Row) -> None:
    """try/BITS,WORKING_BITS,SEGMENTS for each config that was tried, then target/PERCENT."""
    tried: dict[SpikeConfig, dict[str, Any]] = {}

    def figures_of(config: SpikeConfig) -> dict[str, Any]:
        if config not in tried:
            key = f"try/{','.join(str(getattr(config, name)) for name in PARAMETERS)}"
            tried[config] = row(key, partial(_try, bench, config))
        return tried[config]

    for target in TARGETS:
        found = search(bench.config, partial(_is_enough, figures_of, target))
        row(f"target/{target:g}", partial(_answer, bench, target, found))


def search(config: SpikeConfig, enough: Callable[[SpikeConfig], bool]) -> SpikeConfig | None:
    """The smallest config that is enough; None if neither `config` nor one with much room is."""
    if not enough(config):
        roomy = config
        for name in ("working_bits", "bits", "segments"):
            wider = with_parameter(roomy, name, max(_ROOM[name], getattr(roomy, name)))
            roomy = wider or roomy
        if roomy == config or not enough(roomy):
            return None
        config = roomy
    for name in PARAMETERS:
        config = _least(config, name, enough)
    return config


def _least(config: SpikeConfig, name: str, enough: Callable[[SpikeConfig], bool]) -> SpikeConfig:
    """Bisection; `config` is enough."""
    now = getattr(config, name)
    # Chords of fewer than 8 segments over the whole range of the piecewise form are no exponential any more.
    fewest = 1 if config.exponential == "shift" else 8
    below: Sequence[int] = [2**k for k in range(now.bit_length()) if fewest <= 2**k < now]
    if name != "segments":
        below = range(2 if name == "bits" else config.bits + 1, now)
    options = [option for value in below if (option := with_parameter(config, name, value)) is not None]
    low, high = 0, len(options)  # the answer is options[high], or `config` where high is beyond
    while low < high:
        middle = (low + high) // 2
        if enough(options[middle]):
            high = middle
        else:
            low = middle + 1
    return options[high] if high < len(options) else config


def _is_enough(figures_of: Callable[[SpikeConfig], dict[str, Any]], target: float, config: SpikeConfig) -> bool:
    figures = figures_of(config)
    change, deviation = figures["change_percent"], figures["standard_error_percent"]
    return change is not None and deviation is not None and abs(change) + deviation <= target


def _try(bench: Bench, config: SpikeConfig) -> dict[str, Any]:
    return _fields(config) | bench.figures(Change(config))


def _fields(config: SpikeConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in PARAMETERS}


def _answer(bench: Bench, target: float, config: SpikeConfig | None) -> dict[str, Any]:
    if config is None:
        return {"target_percent": target, "met": False}
    kinds = calls(bench)
    own = updates_per_token(kinds, bench.config)["updates_per_token"]
    found = updates_per_token(kinds, config)["updates_per_token"]
    return {
        "target_percent": target,
        "met": True,
        **_fields(config),
        **bench.figures(Change(config)),
        "updates_per_token": found,
        "updates_per_token_of_the_run": own,
        "config": config.to_dict(),
    }
