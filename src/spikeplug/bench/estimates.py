"""Estimate how long the steps of a run take on one thread, for the progress bar."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from spikeplug.bench.cases import BASES, Case, wanted
from spikeplug.bench.contract import BOUND

if TYPE_CHECKING:
    from spikeplug.bench.model import Pair, Work
    from spikeplug.bench.settings import Settings

#: Seconds per element of an operator's input.
_OPERATOR = {
    "kernel": 5e-9,
    "exact": 4e-9,
    "copy": 1e-9,
    "published": 8e-8,
    "closed": 3e-8,
    "simulated": 2e-6,
}
#: Factors on the time of the exact model.
_MODEL = {"kernel": 1.2, "exact": 1.0, "copy": 0.2, "closed": 2.0, "simulated": 8.0}
#: Seconds of an exact model per parameter: for a call, and for each of its tokens.
_CALL, _TOKEN = 8e-10, 4e-11
#: Seconds until a process can measure an operator, and seconds per parameter until it has loaded a model.
_PROCESS, _LOADING = 4.0, 2.5e-7
#: Seconds of everything else in a step.
_STEP = 0.3


def of_case(case: Case, settings: Settings) -> float:
    """Return the estimated seconds to check and time one case."""
    names = wanted(case.arms, settings.arms)
    return _STEP + _timed({name: _OPERATOR[name] * case.elements for name in names}, settings)


def of_work(work: Work, pair: Pair, settings: Settings) -> float:
    """Return the estimated seconds to check and time some work of a model.

    For decoding, both models fill a cache first.
    """
    names = wanted(work.names, settings.arms)
    seconds = _exact(pair, work.tokens)
    if work.section == "layer":
        seconds /= pair.depth
    filling = 2 * _exact(pair, work.length) if work.name == "decode" else 0.0
    return _STEP + filling + _timed({name: _MODEL[name] * seconds for name in names}, settings)


def of_peaks(cases: Iterable[Case], arm: str) -> float:
    """Return the estimated seconds of the process that measures the memory of one arm in these cases."""
    return _PROCESS + sum(_OPERATOR[arm] * case.elements for case in cases)


def of_model_peaks(lengths: Iterable[int], arm: str, pair: Pair) -> float:
    """Return the estimated seconds of the process that measures the memory of one arm in prefills of these lengths."""
    return _PROCESS + _LOADING * pair.parameters + sum(_MODEL[arm] * _exact(pair, length) for length in lengths)


def _exact(pair: Pair, tokens: int) -> float:
    return pair.parameters * (_CALL + _TOKEN * tokens)


def _timed(each: Mapping[str, float], settings: Settings) -> float:
    """Return the estimated seconds of output check, warm-up and all rounds.

    each  seconds of one call, by arm
    """
    total = 0.0
    for name, seconds in each.items():
        total += seconds * (name in (*BOUND, "closed"))
        if name in settings.timed:
            most = settings.budget if name in BASES else settings.others
            total += 2 * seconds + min(settings.rounds * seconds, max(most, 3 * seconds))
    return total
