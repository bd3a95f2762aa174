"""Track which module is running, by a stack that torch's hooks keep at every module's call."""

from __future__ import annotations

from threading import local
from typing import Any, Self

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

#: Trackers whose `with` block is running.
_ACTIVE: list[Running] = []


class Running:
    """Tell, within its `with` block, the path of the innermost module whose forward is running.

    The path is empty for the model itself, and while no module runs.
    For a module that is not in `model`, it is the name of its class.
    Every thread has a path of its own.
    """

    def __init__(self, model: nn.Module) -> None:
        # A report names a shared module by its first path. The modules are kept alive, so that no id is reused.
        self._modules = list(model.named_modules())
        self._paths: dict[int, str] = {id(module): path for path, module in self._modules}
        self._local = local()  # torch calls the hooks in every thread

    @property
    def _stack(self) -> list[nn.Module]:
        stack: list[nn.Module] = self._local.__dict__.setdefault("stack", [])
        return stack

    @property
    def inside(self) -> bool:
        """Return whether the model, or a module of it, is running in this thread."""
        return any(id(module) in self._paths for module in self._stack)

    @property
    def module(self) -> nn.Module | None:
        """Return the innermost running module in this thread; None while no module runs."""
        return self._stack[-1] if self._stack else None

    @property
    def path(self) -> str:
        """Return the path of the innermost running module in this thread."""
        module = self.module
        return "" if module is None else self._paths.get(id(module), type(module).__name__)

    def __enter__(self) -> Self:
        _ACTIVE.append(self)
        self._handles = (
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, always_call=True),  # a forward that raises is left, too
        )
        return self

    def __exit__(self, *_: object) -> None:
        _ACTIVE.remove(self)
        for handle in self._handles:
            handle.remove()

    def _enter(self, module: nn.Module, inputs: Any) -> None:
        if not torch.compiler.is_compiling():  # the hooks of a graph run when it does
            self._stack.append(module)

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        while not torch.compiler.is_compiling() and self._stack and self._stack.pop() is not module:
            pass


class running_in:  # noqa: N801
    """Count what runs within the `with` block as run by `module`: for a method that is called in place of forward."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __enter__(self) -> None:
        for running in _ACTIVE:
            running._enter(self.module, None)

    def __exit__(self, *_: object) -> None:
        for running in _ACTIVE:
            running._leave(self.module, None, None)
