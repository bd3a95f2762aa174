"""Run a model in float64 with changed weights, without changing the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from spikeplug.weights.recorder import returned

_NARROW = (torch.float32, torch.bfloat16, torch.float16)


class Wide(TorchFunctionMode):
    """Run torch functions in float64, with other weights than the model's.

    A parameter or buffer is read from `weight` when a function uses it, so that only one wide weight exists at a time.
    Conversions to shorter formats become conversions to float64.

    model   the model that runs; its modules have to be watched (`watching`)
    weight  returns the float64 weight to use, given its name and the model's own tensor
    """

    def __init__(self, model: nn.Module, weight: Callable[[str, Tensor], Tensor]) -> None:
        super().__init__()
        self._weight = weight
        self._path: list[str] = [""]
        self._names: dict[int, list[str]] = {}
        for named in (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)):
            for name, tensor in named:
                if tensor.is_floating_point():
                    self._names.setdefault(id(tensor), []).append(name)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name == "__get__":
            owner = getattr(func.__self__, "__name__", "")
            if owner == "dtype" and id(args[0]) in self._names:
                return torch.float64
            return func(*args) if owner not in ("T", "mT", "data") else func(*self._widened(args))
        if name in ("float", "half", "bfloat16"):
            return self._widened(args[0]).double()
        if name in ("grouped_mm", "_grouped_mm"):
            func = _grouped_product
        return func(*self._widened(args), **self._widened(kwargs or {}))

    def _widened(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            names = self._names.get(id(value))
            if names is None:
                return value
            own = [name for name in names if name.rpartition(".")[0] == self._path[-1]]
            return self._weight((own or names)[0], value)
        if isinstance(value, torch.dtype):
            return torch.float64 if value in _NARROW else value
        if type(value) in (tuple, list):
            return type(value)(self._widened(item) for item in value)
        if type(value) is dict:
            return {key: self._widened(item) for key, item in value.items()}
        return value

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Know which module's code runs within the block."""

        def entering(path: str) -> Callable[..., None]:
            return lambda *_: self._path.append(path)

        def leaving(*_: Any) -> None:
            self._path.pop()

        handles = []
        for path, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(entering(path)))
            handles.append(module.register_forward_hook(leaving, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _grouped_product(rows: Tensor, matrices: Tensor, offs: Tensor, **_: Any) -> Tensor:
    """Return what torch's `grouped_mm` gives, which takes no float64: rows of group i times matrix i.

    rows      (n, in)
    matrices  (groups, in, out)
    offs      (groups,): the row at which each group ends
    """
    output = rows.new_zeros(rows.shape[0], matrices.shape[-1])
    start = 0
    for index, end in enumerate(offs.tolist()):
        output[start:end] = rows[start:end] @ matrices[index]
        start = end
    return output


def run_wide(
    model: nn.Module,
    inputs: Mapping[str, Any],
    weight: Callable[[str, Tensor], Tensor],
    before: Mapping[str, Callable[[Tensor], Tensor]],
    instead: Mapping[str, Callable[[Tensor, Tensor], Tensor]],
) -> list[Tensor]:
    """Return the floating outputs of a model, run in float64 on the CPU or wherever it is. The model is not changed.

    inputs   arguments of its forward
    weight   returns the float64 weight to use, given its name and the model's own tensor
    before   what to do with the input of a module, by path
    instead  what a module gives in place of its output, from its input and its output, by path
    """
    wide = Wide(model, weight)
    modules = dict(model.named_modules())
    handles = []
    for path, change in before.items():
        handles.append(modules[path].register_forward_pre_hook(_before(change)))
    for path, replace in instead.items():
        handles.append(modules[path].register_forward_hook(_instead(replace)))
    modes = {module: module.training for module in model.modules()}
    model.train(False)
    try:
        with torch.no_grad(), wide.watching(model), wide:
            arguments = {
                key: value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
                for key, value in inputs.items()
            }
            return returned(model(**arguments))
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training


def _before(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    return lambda module, args: (change(args[0]), *args[1:])


def _instead(replace: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Any]:
    return lambda module, args, output: replace(args[0], output)


def relative_difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest difference over the largest magnitude, of the worst pair; infinity if they do not compare."""
    if len(found) != len(expected) or any(a.shape != b.shape for a, b in zip(found, expected, strict=True)):
        return float("inf")
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        finite = b.isfinite()
        if not torch.equal(a.isfinite(), finite):
            return float("inf")
        difference = (a.double() - b.double())[finite].abs()
        largest = b.double()[finite].abs()
        if difference.numel():
            worst = max(worst, float(difference.max() / largest.max().clamp(min=1e-300)))
    return worst
