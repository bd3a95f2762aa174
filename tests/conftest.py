"""Shared by all tests: two threads at most, a clean ledger before each."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

#: Numba keeps a file's compiled code while that file is unchanged, whatever it imports: a cache for each state of all.
_KERNELS = Path(__file__).parents[1] / "src" / "spikeplug" / "kernels" / "cpu"
_STATE = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(_KERNELS.glob("*.py")))).hexdigest()[:16]

os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"spikeplug-kernels-{_STATE}"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch: as the command line does
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def clean_ledger() -> Iterator[None]:
    """Saturations of one test must not be seen by another."""
    from spikeplug.saturation import reset_saturations

    reset_saturations()
    yield
    reset_saturations()
