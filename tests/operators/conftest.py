"""Here operators run their closed forms; kernels are compared with these in tests/kernels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from spikeplug import kernels


@pytest.fixture(autouse=True)
def closed_forms() -> Iterator[None]:
    """Leave no operator to a kernel."""
    with kernels.closed_forms():
        yield
