"""Whether the operators that run now are to be simulated, and who counts: asked by every operator when it runs.

Kept in a context variable: whoever counts hears of its own thread (or asyncio task) only, and other threads run as
ever, in closed form.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from spikeplug.neurons import Events


class Counter(Protocol):
    """Someone who wants operators simulated."""

    def wants(self) -> bool:
        """Whether the operator that is about to run is to be simulated and counted."""

    def add(self, operator: str, events: Events) -> None:
        """One call of an operator has been simulated, and caused these events."""


_counters: ContextVar[tuple[Counter, ...]] = ContextVar("spikeplug_counters", default=())


@contextmanager
def heard_by(counter: Counter) -> Iterator[None]:
    """Within the block, operators ask `counter` too; blocks may be nested, and then each hears."""
    token = _counters.set((*_counters.get(), counter))
    try:
        yield
    finally:
        _counters.reset(token)


def counters() -> list[Counter]:
    """Those who want the operator that is about to run simulated; each is to be told its events once it has run."""
    return [counter for counter in _counters.get() if counter.wants()]
