"""Operators that treat each vector on its own are run over blocks of vectors, so that temporaries stay in cache."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from spikeplug.errors import SpikeplugError

#: Elements per block. The result does not depend on it.
BLOCK = 1 << 17


def by_rows(operator: Callable[..., Tensor], x: Tensor, *others: Tensor) -> Tensor:
    """operator applied to x of shape (..., d), and to `others` of shape (..., any), as (rows, .) blocks.

    The result has x's dtype and x's shape, but for the last dimension, which is what the operator makes it.
    """
    rows = [part.reshape(-1, part.shape[-1]) for part in (x, *others)]
    step = max(1, BLOCK // x.shape[-1])
    count = rows[0].shape[0]
    first = operator(*(part[:step] for part in rows)).to(x.dtype)
    output = first
    if count > step:
        output = first.new_empty(count, first.shape[-1])
        output[:step] = first
    for start in range(step, count, step):
        output[start : start + step] = operator(*(part[start : start + step] for part in rows))
    return output.reshape(*x.shape[:-1], first.shape[-1])


def along(dim: int, x: Tensor, operator: str) -> Tensor:
    """x with dimension `dim` moved last; a scalar becomes a vector of one.

    Errors: SpikeplugError for a dim that x does not have.
    """
    if not isinstance(dim, int) or isinstance(dim, bool) or not -max(x.dim(), 1) <= dim < max(x.dim(), 1):
        raise SpikeplugError(f"{operator} got dim={dim} for a tensor of {x.dim()} dimensions; choose one it has.")
    return x.reshape(1) if x.dim() == 0 else x.movedim(dim, -1)
