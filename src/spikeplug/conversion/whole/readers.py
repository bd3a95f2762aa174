"""Find layers whose weight is read in a way that no plug replaces: such a weight has to stay a float parameter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from spikeplug.conversion.tracking import Running
from spikeplug.conversion.whole.coded import OWN_CALLS, has_own_forward

#: What a tensor says of itself without its numbers being read.
_FACTS = frozenset({"dtype", "device", "shape", "ndim", "is_meta", "layout", "requires_grad", "grad", "is_cuda"})
_QUESTIONS = frozenset({"size", "dim", "numel", "is_floating_point", "element_size", "stride", "__len__"})


def read_otherwise(model: nn.Module, paths: Iterable[str], inputs: Mapping[str, Any] | None) -> frozenset[str]:
    """Return those of the layers at `paths` whose weight is read in a way that no plug replaces, when the model runs.

    That is: by another module's code, or by an own forward that does more with it than `OWN_CALLS`. A layer with an own
    forward that did not run counts, too: nobody knows what it does.

    inputs: arguments of the model's forward, which runs once, exact, without gradients; None: it is not run.
    """
    layers = {path: model.get_submodule(path) for path in paths}
    watch = _Watch(layers)
    if inputs is not None:
        with torch.no_grad(), Running(model) as watch.running, watch:
            model(**inputs)
    own = {path for path, layer in layers.items() if has_own_forward(layer)}
    if inputs is None:  # torch's attention reads the weight of such a layer
        own |= {path for path, layer in layers.items() if isinstance(layer, NonDynamicallyQuantizableLinear)}
    return frozenset(watch.otherwise | (own - watch.understood))


class _Watch(TorchFunctionMode):
    """Note every layer whose weight is read otherwise, and the layers with an own forward that is understood."""

    running: Running

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.layers = layers
        self.otherwise: set[str] = set()
        self.understood: set[str] = set()
        self.owners: dict[int, set[str]] = {}  # tied layers share a weight
        for path, layer in layers.items():
            self.owners.setdefault(id(layer._parameters["weight"]), set()).add(path)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        name = getattr(getattr(func, "__self__", None), "__name__", "") if name == "__get__" else name
        if name not in _FACTS and name not in _QUESTIONS:
            for leaf in tree_leaves((args, kwargs)):
                if isinstance(leaf, Tensor) and (paths := self.owners.get(id(leaf))):
                    self._read(name, args, paths)
        return func(*args, **(kwargs or {}))

    def _read(self, name: str, args: tuple[Any, ...], paths: set[str]) -> None:
        running = self.running.path
        if running not in paths:
            self.otherwise |= paths
            return
        layer = self.layers[running]
        if not has_own_forward(layer):
            return
        allowed = next((calls for kind, calls in OWN_CALLS.items() if isinstance(layer, kind)), frozenset[str]())
        rows = name != "__getitem__" or not isinstance(args[1], tuple)
        (self.understood if name in allowed and rows else self.otherwise).add(running)
