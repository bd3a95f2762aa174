"""Count saturations: every value that an operator clamps is counted by event, for the process and for each scope."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

#: Counts kept apart before they are added up, so that memory stays bounded.
_PENDING = 256
_lock = threading.Lock()


class Counts(Mapping[str, int]):
    """Saturated values by event, sorted, e.g. `{"silu: exponent beyond H": 12}`. Events without any are absent.

    Counts stay on their device until they are read: recording never synchronises, reading does.
    """

    def __init__(self) -> None:
        self._pending: dict[tuple[str, torch.device], list[Tensor]] = {}

    def __getitem__(self, event: str) -> int:
        return self.to_dict()[event]

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    def __len__(self) -> int:
        return len(self.to_dict())

    def __repr__(self) -> str:
        return repr(self.to_dict())

    def to_dict(self) -> dict[str, int]:
        """Return the counts so far as plain numbers."""
        with _lock:
            pending = {key: list(counts) for key, counts in self._pending.items()}
        found: dict[str, int] = {}
        for (event, _), counts in sorted(pending.items(), key=lambda item: item[0][0]):
            found[event] = found.get(event, 0) + sum(int(count) for count in counts)
        return {event: count for event, count in found.items() if count}

    def _add(self, event: str, count: Tensor) -> None:
        counts = self._pending.setdefault((event, count.device), [])
        counts.append(count)
        if len(counts) >= _PENDING:
            counts[:] = [torch.stack(counts).sum()]

    def _clear(self) -> None:
        self._pending.clear()


_process = Counts()
_scopes: ContextVar[tuple[Counts, ...]] = ContextVar("spikeplug_saturations", default=())


def record(event: str, clamped: Tensor) -> None:
    """Add the number of true elements of the bool tensor `clamped` to `event`. Does not synchronise with the device."""
    if clamped.numel() == 0:
        return
    count = clamped.sum(dtype=torch.int64)
    with _lock:
        for counts in (_process, *_scopes.get()):
            counts._add(event, count)


@contextmanager
def counting() -> Iterator[Counts]:
    """Yield the counts of what this thread (or asyncio task) saturates within the block.

    Scopes may be nested; each counts everything inside its own block. The counts of the process go on as well.
    """
    counts = Counts()
    token = _scopes.set((*_scopes.get(), counts))
    try:
        yield counts
    finally:
        _scopes.reset(token)


def saturations() -> dict[str, int]:
    """Return the saturated values of all threads since the start or the last reset, by event."""
    return _process.to_dict()


def reset_saturations() -> None:
    """Set the counts of the process to zero. Scopes keep theirs."""
    with _lock:
        _process._clear()
