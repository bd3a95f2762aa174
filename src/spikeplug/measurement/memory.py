"""Read how much memory this process has used."""

from __future__ import annotations

import sys


def peak_memory() -> int | None:
    """Return the largest memory that was resident in this process so far, in bytes; None where nothing says it."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
