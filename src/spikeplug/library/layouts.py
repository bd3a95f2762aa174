"""Run operators on jagged tensors, through their values; refuse sparse and other nested tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spikeplug.errors import SpikeplugError


def is_plain(x: Tensor) -> bool:
    """Return whether x holds one block of numbers: it is not sparse, nested or jagged."""
    return x.layout is torch.strided and not x.is_nested


def on_values(operator: str, names: list[str], run: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """Run an operator on the values that jagged tensors hold, and return a jagged tensor of the same rows.

    run: called with `arguments`, each jagged tensor replaced by its values.
    names: the names of the operator's own arguments, with which `arguments` begin; weight and bias follow them.
    A vector is a row of the values, so the last dimension must be the operator's, and may not be the ragged one.
    Errors: SpikeplugError for other layouts, and for jagged tensors that are of several structures or have holes.
    """
    tensors = [x for x in arguments if isinstance(x, Tensor)]
    for x in tensors:
        if not is_plain(x) and x.layout is not torch.jagged:
            remedy = "torch.nested.nested_tensor(..., layout=torch.jagged)" if x.is_nested else ".to_dense()"
            kind = "nested" if x.is_nested else str(x.layout).removeprefix("torch.")
            raise SpikeplugError(f"{operator} takes dense or jagged tensors, not {kind} ones; use {remedy}.")
    first: Any = next(x for x in tensors if x.layout is torch.jagged)
    dim = dict(zip(names, arguments, strict=False)).get("dim", -1)
    fits = dim in (-1, first.dim() - 1) and first._ragged_idx < first.dim() - 1 and first.lengths() is None
    fits = fits and "query" not in names
    for x in tensors:
        fits = fits and (x.shape == first.shape if x.layout is torch.jagged else x.dim() <= 1)
    if not fits:
        raise SpikeplugError(
            f"{operator} takes jagged tensors of one structure, along a last dimension that is not ragged; use "
            "x.unbind() and run it part by part, or torch.nested.to_padded_tensor(x, 0.0)."
        )
    values = [x.values() if isinstance(x, Tensor) and x.layout is torch.jagged else x for x in arguments]
    if "dim" in names:
        values[names.index("dim")] = -1
    return torch.nested.nested_tensor_from_jagged(run(*values), first.offsets(), jagged_dim=first._ragged_idx)
