"""Say whether the shapes of two tensors broadcast, on any device."""

from __future__ import annotations

from functools import lru_cache

#: The refusal of a kernel whose two tensors do not fit each other.
NO_BROADCAST = "the shapes do not broadcast"


@lru_cache(maxsize=1024)
def broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of both broadcast; () if they do not. torch's own function takes longer than the kernel."""
    if len(a) < len(b):
        a, b = b, a
    missing = len(a) - len(b)
    shape = tuple([max(x, y) for x, y in zip(a[missing:], b, strict=True)])
    if any(x != y and 1 not in (x, y) for x, y in zip(a[missing:], b, strict=True)):
        return ()
    return (*a[:missing], *shape)
