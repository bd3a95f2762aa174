"""The ledger of saturations: whatever an operator clamps is counted here, never silent."""

from __future__ import annotations

import threading
from collections import defaultdict

import torch
from torch import Tensor

_lock = threading.Lock()
_ledger: defaultdict[str, int] = defaultdict(int)
_pending: dict[str, list[Tensor]] = {}


def record(event: str, clamped: Tensor) -> None:
    """Add the number of true elements of the bool tensor `clamped` to `event`.

    The sum stays on its device until somebody reads the ledger, so that counting does not synchronise.
    """
    if clamped.numel() == 0:
        return
    count = clamped.sum(dtype=torch.int64)
    with _lock:
        pending = _pending.setdefault(event, [])
        pending.append(count)
        if len(pending) >= 256:
            _settle()


def saturations() -> dict[str, int]:
    """Saturated values since the start or the last reset, by event, e.g. `{"silu: exponent beyond H": 12}`."""
    with _lock:
        _settle()
        return {event: count for event, count in sorted(_ledger.items()) if count}


def reset_saturations() -> None:
    """Set every count to zero."""
    with _lock:
        _pending.clear()
        _ledger.clear()


def _settle() -> None:
    for event, counts in _pending.items():
        _ledger[event] += int(sum(int(count) for count in counts))
    _pending.clear()
