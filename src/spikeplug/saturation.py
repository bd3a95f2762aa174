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
        return _summed(pending)

    def _add(self, event: str, count: Tensor) -> None:
        counts = self._pending.setdefault((event, count.device), [])
        counts.append(count)
        if len(counts) >= _PENDING:
            counts[:] = [torch.stack(counts).sum()]


#: The counts of the process: one tensor per event and device for as long as the process lives, added to in place. So a
#: CUDA graph may hold it, and each replay counts anew.
_process: dict[tuple[str, torch.device], Tensor] = {}
_scopes: ContextVar[tuple[Counts, ...]] = ContextVar("spikeplug_saturations", default=())
_paused = ContextVar("spikeplug_saturations_paused", default=False)


def record(event: str, clamped: Tensor) -> None:
    """Add the number of true elements of the bool tensor `clamped` to `event`. Does not synchronise with the device."""
    if clamped.numel() == 0 or _paused.get():
        return
    _add(event, clamped.sum(dtype=torch.int64))


@contextmanager
def counter(event: str, device: torch.device) -> Iterator[Tensor]:
    """Yield an int64 tensor of no dimensions, on the device, for a kernel to add to in place within the block."""
    if not _scopes.get() and not _paused.get():
        yield _total(event, device)
        return
    count = torch.zeros((), dtype=torch.int64, device=device)
    yield count
    if not _paused.get():
        _add(event, count)


def _add(event: str, count: Tensor) -> None:
    total = _total(event, count.device)
    with _lock:
        total.add_(count)
        for counts in _scopes.get():
            counts._add(event, count)


def _total(event: str, device: torch.device) -> Tensor:
    """Return the int64 tensor that counts an event on a device for the whole process; it is made at first use."""
    found = _process.get((event, device))
    if found is None:
        with _lock, torch.inference_mode(False):
            found = _process.setdefault((event, device), torch.zeros((), dtype=torch.int64, device=device))
    return found


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


@contextmanager
def not_recorded() -> Iterator[None]:
    """Count no saturations of this thread within the block: for work that is done a second time."""
    token = _paused.set(True)
    try:
        yield
    finally:
        _paused.reset(token)


def saturations() -> dict[str, int]:
    """Return the saturated values of all threads since the start or the last reset, by event."""
    with _lock:
        process = {key: [count.clone()] for key, count in _process.items()}
    return _summed(process)


def reset_saturations() -> None:
    """Set the counts of the process to zero. The counts of open `counting()` blocks stay."""
    with _lock, torch.inference_mode(False):
        for count in _process.values():
            count.zero_()


def _summed(counts: Mapping[tuple[str, torch.device], list[Tensor]]) -> dict[str, int]:
    """Return the number of saturated values by event, summed over devices; events with none are left out."""
    found: dict[str, int] = {}
    for (event, _), each in sorted(counts.items(), key=lambda item: item[0][0]):
        found[event] = found.get(event, 0) + sum(int(count) for count in each)
    return {event: count for event, count in found.items() if count}
