"""Check the contract: a timing is reported only if the output equals the closed form bit for bit in the same run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

#: Arms whose output must equal the closed form.
BOUND = ("kernel", "simulated")


def kept(arms: Mapping[str, Callable[[], Tensor]]) -> bool:
    """Run each integer arm once; return True if every output equals that of the closed form bit for bit.

    arms  functions by name, "closed" among them
    """
    closed = arms["closed"]()
    return all(same(arms[name](), closed) for name in BOUND if name in arms)


def same(output: Tensor, closed: Tensor) -> bool:
    """Return True if both tensors are equal in shape, dtype and every number."""
    return output.dtype == closed.dtype and torch.equal(output, closed)
