"""Count every value that an operator clamps: the ledger of saturations."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_lock = threading.Lock()
_counters: dict[tuple[str, torch.device], Tensor] = {}
_paused = ContextVar("spikeplug_saturations_paused", default=False)


def counter(event: str, device: torch.device) -> Tensor:
    """Return the count of `event` on a device, int64 of no dimensions, to be added to in place.

    The same tensor lives as long as the process, so a CUDA graph may hold it: each replay then counts anew.
    """
    found = _counters.get((event, device))
    if found is None:
        with _lock, torch.inference_mode(False):
            found = _counters.setdefault((event, device), torch.zeros((), dtype=torch.int64, device=device))
    return found


def record(event: str, clamped: Tensor) -> None:
    """Add the number of true elements of the bool tensor `clamped` to `event`.

    The count stays on its device until somebody reads the ledger, so that counting never waits for the device.
    """
    if clamped.numel() == 0 or _paused.get():
        return
    total, count = counter(event, clamped.device), clamped.sum(dtype=torch.int64)
    with _lock:
        total.add_(count)


@contextmanager
def not_recorded() -> Iterator[None]:
    """Record nothing within the block, in this thread: for work that is done a second time."""
    token = _paused.set(True)
    try:
        yield
    finally:
        _paused.reset(token)


def saturations() -> dict[str, int]:
    """Return saturated values since the start or the last reset, by event: `{"silu: exponent beyond H": 12}`."""
    found: defaultdict[str, int] = defaultdict(int)
    with _lock:
        for (event, _), count in _counters.items():
            found[event] += int(count)
    return {event: count for event, count in sorted(found.items()) if count}


def reset_saturations() -> None:
    """Set every count to zero."""
    with _lock, torch.inference_mode(False):
        for count in _counters.values():
            count.zero_()
