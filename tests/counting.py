"""Compare predicted events with simulated ones; and how many random cases a test draws."""

from __future__ import annotations

import os

from spikeplug.neurons import Events


def cases(few: int) -> int:
    """Return `few`, or the number in the environment variable SPIKEPLUG_CASES, as `make counting` sets it."""
    return int(os.environ.get("SPIKEPLUG_CASES", few))


def same_events(counted: Events, simulated: Events) -> None:
    """Check that every field of every population is equal, and their order."""
    assert counted.predicted
    assert not simulated.predicted
    assert list(counted.populations.values()) == list(simulated.populations.values())
