"""Find layers whose weight is read outside of their own forward: such a weight has to stay a float parameter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from spikeplug.conversion.tracking import Running

#: What a tensor says of itself without its numbers being read.
_FACTS = frozenset({"dtype", "device", "shape", "ndim", "is_meta", "layout", "requires_grad", "grad", "is_cuda"})
_QUESTIONS = frozenset({"size", "dim", "numel", "is_floating_point", "element_size", "stride", "__len__"})


def read_outside(model: nn.Module, paths: Iterable[str], inputs: Mapping[str, Any]) -> frozenset[str]:
    """Return those of the layers at `paths` whose weight some other module's code reads when the model runs.

    inputs: arguments of the model's forward. The model runs once, exact, without gradients.
    """
    owners: dict[int, set[str]] = {}  # tied layers share a weight
    for path in paths:
        owners.setdefault(id(model.get_submodule(path)._parameters["weight"]), set()).add(path)
    found: set[str] = set()
    with torch.no_grad(), Running(model) as running, _Watch(owners, running, found):
        model(**inputs)
    return frozenset(found)


class _Watch(TorchFunctionMode):
    def __init__(self, owners: Mapping[int, set[str]], running: Running, found: set[str]) -> None:
        super().__init__()
        self.owners, self.running, self.found = owners, running, found

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        fact = getattr(getattr(func, "__self__", None), "__name__", "") if name == "__get__" else name
        if fact not in _FACTS and fact not in _QUESTIONS:
            for leaf in tree_leaves((args, kwargs)):
                layers = self.owners.get(id(leaf), set()) if isinstance(leaf, Tensor) else set()
                if self.running.path not in layers:
                    self.found |= layers
        return func(*args, **(kwargs or {}))
