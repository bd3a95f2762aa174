"""Run an operator over blocks of vectors, so that temporaries stay in cache. No result depends on it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from spikeplug.codes import as_real
from spikeplug.errors import SpikeplugError
from spikeplug.primitives.arithmetic import Arithmetic

#: Elements per block.
BLOCK = 1 << 17


def by_rows(operator: Callable[..., Tensor], x: Tensor, *others: Tensor) -> Tensor:
    """Return operator(x, *others), computed block by block so that temporaries stay in cache.

    x is (..., d), and each of `others` (..., any size). A block is (rows, d) of x and the same rows of the others.
    The result has x's dtype. It has x's shape, except for the last dimension, which the operator decides.
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


def by_elements(operator: Callable[[Tensor], Tensor], x: Tensor, on: Arithmetic) -> Tensor:
    """Return operator(x) element by element, in x's shape and dtype.

    `operator` gets blocks of any number of elements, shape (N, 1), as float32 or float64.
    Every element has a power-of-two scale of its own.
    So precision is relative over the whole dynamic range, and `shift_scaling` does not matter here.
    Errors: SpikeplugError if x is not a floating-point tensor.
    """
    as_real(x, on.operator)
    if x.numel() == 0:
        return torch.empty_like(x)
    return by_rows(lambda block: operator(as_real(block, on.operator)), x.reshape(-1, 1)).view(x.shape)


def by_vectors(operator: Callable[[Tensor], Tensor], x: Tensor, dim: int, on: Arithmetic) -> Tensor:
    """Return operator(x) vector by vector along `dim`, in x's shape and dtype.

    `operator` gets blocks of vectors, shape (N, d), as float32 or float64, and keeps their shape.
    Errors: SpikeplugError if x is not a floating-point tensor, or does not have that dim.
    """
    as_real(x, on.operator)
    rows = along(dim, x, on.operator)
    if x.numel() == 0:
        return torch.empty_like(x)
    output = by_rows(lambda block: operator(as_real(block, on.operator)), rows)
    return output.reshape(()) if x.dim() == 0 else output.movedim(-1, dim)


def along(dim: int, x: Tensor, operator: str) -> Tensor:
    """Return x with dimension `dim` moved last; a 0-dimensional x becomes a vector of one element.

    operator: its name, for the error's message.
    Errors: SpikeplugError for a dim that x does not have.
    """
    if not isinstance(dim, int) or isinstance(dim, bool) or not -max(x.dim(), 1) <= dim < max(x.dim(), 1):
        raise SpikeplugError(f"{operator} got dim={dim} for a tensor of {x.dim()} dimensions; choose one it has.")
    return x.reshape(1) if x.dim() == 0 else x.movedim(dim, -1)
