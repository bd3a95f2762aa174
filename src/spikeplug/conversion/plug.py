"""Change a module in the one way there is: a plug, an object that holds only the module, replaces its `forward`.

Class, parameters, buffers, names, hooks, mode and device stay as they are.
So everything that finds modules by class or parameters by name keeps working.
Weights may be moved, sharded, offloaded or loaded later. Copies and pickles of a model stay converted.
Where accelerate has wrapped `forward` already, the plug sits inside its hook: offloaded weights are there when it runs.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from spikeplug import library
from spikeplug.conversion.attention import check_implementation
from spikeplug.conversion.norms import Norm
from spikeplug.conversion.redirection import Redirection, only
from spikeplug.numerics import Numerics


class Plug:
    """Run in place of `module.forward`. Subclasses define what; the module's repr shows `label`."""

    label = "spiking"

    def __init__(self, module: nn.Module, numerics: Numerics | None) -> None:
        self.module, self.numerics = module, numerics
        self.before: Callable[..., Any] | None = None

    def attach(self) -> None:
        """Replace the module's forward by this plug."""
        state, cell = vars(self.module), _wrapped(self.module)
        if cell is not None:
            self.before, cell.cell_contents = cell.cell_contents, self
        else:
            self.before = state.get(_slot(self.module))
            state[_slot(self.module)] = self
        state["extra_repr"] = self.extra_repr

    def detach(self) -> None:
        """Undo `attach`."""
        state, cell, slot = vars(self.module), _wrapped(self.module), _slot(self.module)
        if cell is not None:
            cell.cell_contents = self.before
        else:
            state.pop(slot)
            if self.before is not None:
                state[slot] = self.before
            elif slot != "forward":  # accelerate wrapped the plug later, and calls what it keeps here
                state[slot] = type(self.module).forward.__get__(self.module)
        state.pop("extra_repr", None)

    def original(self, *args: Any, **kwargs: Any) -> Any:
        """Run what the module ran before.

        Errors: SpikeplugError if the module's attention implementation was changed after the conversion.
        """
        check_implementation(self.module)
        if self.before is not None:
            return self.before(*args, **kwargs)
        return type(self.module).forward(self.module, *args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def extra_repr(self) -> str:
        own = type(self.module).extra_repr(self.module)
        return f"{own}, {self.label}" if own else self.label

    # generate() and torch.export read the signature of forward.
    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.before or type(self.module).forward.__get__(self.module))

    @property
    def __code__(self) -> Any:
        return inspect.unwrap(type(self.module).forward).__code__


class HostPlug(Plug):
    """Run the module's own code, which calls our attention through transformers' interface."""

    label = "spiking attention"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.original(*args, **kwargs)


class ScopePlug(Plug):
    """Run the module's own code with only the calls of `operators` redirected; scopes around it do not apply.

    With numerics None, the module runs as outside of any scope, torch's fused fast paths included.
    With numerics but no operators, torch takes no fused fast path, so that plugs in the children run.
    """

    def __init__(self, module: nn.Module, numerics: Numerics | None, operators: frozenset[str]) -> None:
        super().__init__(module, numerics)
        self.operators = operators
        self.label = "spiking calls" if operators else "exact"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with only(None if self.numerics is None else Redirection(self.numerics, self.operators)):
            return self.original(*args, **kwargs)


class ActivationPlug(Plug):
    """Run one operator on one tensor."""

    def __init__(self, module: nn.Module, numerics: Numerics, operator: str, arguments: tuple[Any, ...]) -> None:
        super().__init__(module, numerics)
        self.operator, self.arguments, self.label = operator, arguments, f"spiking {operator}"

    def __call__(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        (input,) = (*args, *kwargs.values())  # by any name
        output = library.OPERATORS[self.operator](input, *self.arguments, numerics=self.numerics)
        return input.copy_(output) if getattr(self.module, "inplace", False) else output


class NormPlug(Plug):
    """Run a norm over the last dimension, with the module's own weights, read at every call."""

    def __init__(self, module: nn.Module, numerics: Numerics, norm: Norm) -> None:
        super().__init__(module, numerics)
        self.norm, self.label = norm, f"spiking {norm.operator}"

    def __call__(self, *args: Any, gate: Tensor | None = None, **kwargs: Any) -> Tensor:
        x, *rest = (*args, *kwargs.values())  # by any name
        gate = rest[0] if rest else gate
        # Reading a tensor's attribute calls every active function mode, so each is read once.
        norm, dtype = self.norm, x.dtype
        inner = torch.float32 if dtype.itemsize < 4 else dtype
        wide = x if inner is dtype else x.to(inner)
        if gate is not None:
            # The gate's activation is SiLU in every gated norm that the probe knows.
            gate = library.OPERATORS["silu"](gate.to(inner), numerics=self.numerics)
            wide = wide * gate if norm.gate == "before" else wide
        weight, bias = (None if name is None else getattr(self.module, name) for name in (norm.weight, norm.bias))
        others = torch.float32
        if weight is not None:
            others = weight.dtype
            weight = weight if others is inner else weight.to(inner)
            weight = weight + norm.offset if norm.offset else weight
        bias = None if bias is None else bias.to(inner)
        output = library.OPERATORS[norm.operator](wide, norm.eps, numerics=self.numerics, weight=weight, bias=bias)
        if gate is not None and norm.gate == "after":
            output = output * gate
        if others is not dtype and (norm.dtype == "promoted" or others.itemsize >= 4):
            others = torch.promote_types(dtype, others)
        outer = dtype if norm.dtype == "input" else others
        return output if outer is inner else output.to(outer)


def plug_of(module: nn.Module) -> Plug | None:
    """Return the plug of a module, or None."""
    cell, state = _wrapped(module), vars(module)
    for place in (None if cell is None else cell.cell_contents, state.get("forward"), state.get("_old_forward")):
        if isinstance(place, Plug):
            return place
    return None


def is_foreign(module: nn.Module) -> bool:
    """Return whether the module has a forward of a third party that does not wrap its own; only a scope can keep it."""
    forward = vars(module).get(_slot(module))
    own = isinstance(forward, Plug) or getattr(forward, "__func__", None) is type(module).forward
    return forward is not None and not own and _wrapped(module) is None


def _wrapped(module: nn.Module) -> types.CellType | None:
    """Return the cell in which a wrapper keeps the module's forward, or None.

    transformers' tensor parallelism has such wrappers.
    """
    for cell in getattr(vars(module).get("forward"), "__closure__", None) or ():
        held = cell.cell_contents
        if isinstance(held, Plug) or (isinstance(held, types.MethodType) and held.__self__ is module):
            return cell  # type: ignore[no-any-return]
    return None


def _slot(module: nn.Module) -> str:
    """Return the attribute that holds the module's own forward; accelerate keeps it next to its wrapper."""
    return "_old_forward" if "_hf_hook" in vars(module) else "forward"
