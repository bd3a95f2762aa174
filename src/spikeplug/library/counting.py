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


@contextmanager
def counted(operator: str) -> Iterator[Events | None]:
    """Around one call of an operator: the events to simulate it with, or None where nobody wants them.

    A call that fails is not counted.
    """
    counters = [counter for counter in _counters.get() if counter.wants()]
    events = Events() if counters else None
    yield events
    if events is not None:
        for counter in counters:
            counter.add(operator, events)
