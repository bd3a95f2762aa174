"""Give memory that is free back to the system, and read how much of it there is."""

from __future__ import annotations

import ctypes
import sys

import psutil  # type: ignore[import-untyped]


def give_back() -> None:
    """Let the C library return the memory that it keeps between tensors which stay. Does nothing without glibc.

    Work on many layers leaves small results between large temporaries, and glibc returns only what lies above the last.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def available_memory() -> int:
    """Return how many bytes of this machine's memory programs can get without swapping."""
    return int(psutil.virtual_memory().available)
