"""Free memory is read, and what the C library keeps can be given back."""

from __future__ import annotations

import psutil

from spikeplug.memory import available_memory, give_back


def test_free_memory_is_part_of_all() -> None:
    assert 0 < available_memory() <= psutil.virtual_memory().total


def test_memory_can_be_given_back_at_any_time() -> None:
    kept = [bytearray(b"x") * 1000 for _ in range(100)]
    give_back()
    give_back()
    assert all(part == b"x" * 1000 for part in kept)
