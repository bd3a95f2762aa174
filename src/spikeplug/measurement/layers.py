"""Find the decoder layers of a model, record what passes through them, and name all modules outside some of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from spikeplug.errors import SpikeplugError


@dataclass(frozen=True)
class Layers:
    """The decoder layers of a model, and the module path of the list that holds them, such as "model.layers"."""

    path: str
    modules: tuple[nn.Module, ...]

    def __len__(self) -> int:
        return len(self.modules)

    def all_but(self, kept: Iterable[int]) -> str:
        """Return a regular expression, for `exclude` of `convert`: it matches module paths outside the layers `kept`.

        kept   indices of layers, from 0
        """
        numbers = "|".join(str(number) for number in kept)
        return rf"^(?!{re.escape(self.path)}\.({numbers})(\.|$))"

    def spread(self, count: int) -> tuple[int, ...]:
        """Return the indices (from 0, rising) of up to `count` layers, evenly spread over the depth of the model."""
        return tuple(sorted({round((i + 0.5) * len(self) / count - 0.5) for i in range(count)})) if count else ()

    @contextmanager
    def recorded(self) -> Iterator[list[Tensor]]:
        """Yield a list that one forward within the block fills: the first layer's input, then each layer's output.

        Each entry is a copy of the first sequence of the batch, (tokens, channels).
        """
        kept: list[Tensor] = []

        # A hook runs inside the converted model, where torch functions are redirected to spiking operators: it only
        # copies.
        def enter(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            kept.append(_stream((*given, *named.values()))[0].clone())

        def leave(_: nn.Module, given: Any, output: Any) -> None:
            kept.append(_stream(output)[0].clone())

        handles = [self.modules[0].register_forward_pre_hook(enter, with_kwargs=True)]
        handles += [module.register_forward_hook(leave) for module in self.modules]
        try:
            yield kept
        finally:
            for handle in handles:
                handle.remove()


def find_layers(model: nn.Module) -> Layers:
    """Find the decoder layers: the members of the `nn.ModuleList` with the most parameters, the outermost if some tie.

    Errors: SpikeplugError if the model has no such list with parameters.
    """
    lists = [(path, list(module)) for path, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    sizes = [sum(p.numel() for module in modules for p in module.parameters()) for _, modules in lists]
    if not any(sizes):
        raise SpikeplugError(
            f"{type(model).__name__} has no list of layers: give a Transformer, whose layers lie in an nn.ModuleList."
        )
    path, modules = lists[sizes.index(max(sizes))]
    return Layers(path, tuple(modules))


def _stream(value: Any) -> Tensor:
    """Return the first tensor among a layer's inputs or outputs: the residual stream."""
    for part in value if isinstance(value, (tuple, list)) else (value,):
        if isinstance(part, Tensor):
            return part
    raise SpikeplugError(
        "a layer of the model returns no tensor, so its residual stream cannot be followed: give another model."
    )
