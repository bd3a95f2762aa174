"""Replace a module's `forward` by a plug: an object that holds only the module. Nothing else of a module changes.

Class, parameters, buffers, names, hooks, mode and device stay as they are.
So everything that finds modules by class or parameters by name keeps working.
Weights may be moved, sharded, offloaded or loaded later. Copies and pickles of a model stay converted.
Where accelerate has wrapped `forward` already, the plug sits inside its hook: offloaded weights are there when it runs.
"""

from __future__ import annotations

import copy
import inspect
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from spikeplug import library
from spikeplug.conversion.attention import check_implementation
from spikeplug.conversion.calls import methods_that_call
from spikeplug.conversion.norms import Norm
from spikeplug.conversion.redirection import NAMES, OncePerSequence, Redirection, only
from spikeplug.conversion.sequences import Sequences
from spikeplug.conversion.tracking import running_in
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics

#: Attribute of a module: its plug, wherever that sits.
_PLUG = "spikeplug_plug"


class Plug:
    """Run in place of `module.forward`. What runs, each subclass defines by `__call__`.

    module    the module whose forward it replaces
    numerics  of the operators that it runs; None for a plug that runs the exact code
    label     text that the module's repr shows
    before    the forward that the module had as an attribute (a wrapper's, for example), or None
    detached  True after `detach`: the plug then runs the original
    """

    label = "spiking"

    def __init__(self, module: nn.Module, numerics: Numerics | None) -> None:
        self.module, self.numerics = module, numerics
        self.before: Callable[..., Any] | None = None
        self.detached = False

    def attach(self) -> None:
        """Replace the module's forward by this plug."""
        state, cell = vars(self.module), _wrapped(self.module)
        if cell is not None:
            self.before, cell.cell_contents = cell.cell_contents, self
        else:
            self.before = state.get(_slot(self.module))
            state[_slot(self.module)] = self
        state[_PLUG] = self
        state.update(self.overrides())

    def overrides(self) -> dict[str, Callable[..., Any]]:
        """Return the functions that the module gets as attributes while the plug is attached, by attribute name."""
        return {"extra_repr": self.extra_repr, "__prepare_scriptable__": self.refuse_script}

    def detach(self) -> None:
        """Undo `attach`. If somebody has wrapped the plug since, it stays in the wrapper and runs the original."""
        state, cell, slot = vars(self.module), _wrapped(self.module), _slot(self.module)
        self.detached = True
        own = type(self.module).forward.__get__(self.module) if self.before is None else self.before
        if cell is not None and cell.cell_contents is self:
            cell.cell_contents = own  # in a wrapper, made before or after the plug
        elif state.get(slot) is self:
            state.pop(slot)
            if self.before is not None or slot != "forward":  # accelerate calls what it keeps in its slot
                state[slot] = own
        for name in (*self.overrides(), _PLUG):
            state.pop(name, None)

    def moved_to(self, module: nn.Module) -> None:
        """Put a plug of its own into `module`, a shallow copy of this plug's module that still holds this one."""
        state, slot = vars(module), _slot(module)
        plug = copy.copy(self)
        plug.module = module
        if isinstance(plug.before, types.MethodType) and plug.before.__self__ is self.module:
            plug.before = types.MethodType(plug.before.__func__, module)
        state[_PLUG] = plug
        if state.get(slot) is self:
            state[slot] = plug
        state.update(plug.overrides())

    def refuse_script(self) -> Any:
        """Raise SpikeplugError: TorchScript would compile the module's class, without its plug."""
        raise SpikeplugError(
            f"torch.jit.script would compile {type(self.module).__name__} without its spiking operators: use "
            "torch.jit.trace or torch.export, or revert the model first."
        )

    def original(self, *args: Any, **kwargs: Any) -> Any:
        """Run the forward that the module had before the plug, with these arguments, and return its result.

        Errors: SpikeplugError if the module's attention implementation was changed after the conversion.
        """
        if not self.detached:
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
    """Run an attention module's own code, which calls spiking attention through transformers' attention interface."""

    label = "spiking attention"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.original(*args, **kwargs)


class ScopePlug(Plug):
    """Run the module's own code, with its calls of torch functions redirected to the spiking `operators` only.

    Redirections of the modules around it do not apply inside it.

    With numerics None, the module runs as outside of any scope, torch's fused fast paths included.
    With numerics but no operators, torch takes no fused fast path, so that plugs in the children run.

    sum_once   True: evaluate what the module accumulates over time once per sequence, see `OncePerSequence`
    sequences  what checks the inputs of a whole model that works on sequences, or None
    """

    def __init__(self, module: nn.Module, numerics: Numerics | None, operators: frozenset[str]) -> None:
        super().__init__(module, numerics)
        self.operators = operators
        self.label = "spiking calls" if operators else "exact"
        self.sum_once = False
        self.sequences: Sequences | None = None

    def overrides(self) -> dict[str, Callable[..., Any]]:
        """Return the functions that the module gets as attributes while the plug is attached, by attribute name.

        Among them are its public methods other than forward that may call a function that is redirected within the plug
        or, for an exact plug, around it.
        """
        chosen = self.operators or frozenset().union(*NAMES.values())
        names = frozenset(name for name, operators in NAMES.items() if operators & chosen)
        names |= {"cumsum"} if self.sum_once else frozenset()
        methods = methods_that_call(type(self.module), names) if names else ()  # type: ignore[arg-type]
        return super().overrides() | {name: ScopedMethod(self, name) for name in methods}

    def scope(self) -> only:
        """Return the context manager in which calls of the plug's operators are redirected, and of no others."""
        kind = OncePerSequence if self.sum_once else Redirection
        return only(None if self.numerics is None else kind(self.numerics, self.operators))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.detached:
            return self.original(*args, **kwargs)
        refuse_proxies(self.module, args)
        if self.sequences is not None:
            self.sequences.check((*args, *kwargs.values()))
        with self.scope():
            return self.original(*args, **kwargs)


class ScopedMethod:
    """Run a method other than forward, such as `encode`, with the same calls redirected as in the module's forward.

    plug  the module's plug
    name  name of the method
    """

    def __init__(self, plug: ScopePlug, name: str) -> None:
        self.plug, self.name = plug, name
        self.__name__ = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        refuse_proxies(self.plug.module, args)
        method = getattr(type(self.plug.module), self.name)
        with running_in(self.plug.module), self.plug.scope():
            return method(self.plug.module, *args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(getattr(type(self.plug.module), self.name).__get__(self.plug.module))


class ActivationPlug(Plug):
    """Run one spiking operator in place of an activation module such as `nn.GELU`, on the one tensor that it takes.

    operator   name of the operator
    arguments  its arguments after the tensor
    """

    def __init__(self, module: nn.Module, numerics: Numerics, operator: str, arguments: tuple[Any, ...]) -> None:
        super().__init__(module, numerics)
        self.operator, self.arguments, self.label = operator, arguments, f"spiking {operator}"

    def __call__(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        if self.detached:
            return self.original(*args, **kwargs)  # type: ignore[no-any-return]
        (input,) = (*args, *kwargs.values())  # by any name
        refuse_proxies(self.module, (input,))
        output = library.OPERATORS[self.operator](input, *self.arguments, numerics=self.numerics)
        return input.copy_(output) if getattr(self.module, "inplace", False) else output


class NormPlug(Plug):
    """Run the spiking norm that `norm` describes, over the last dimension, in place of a norm module.

    The module's own weight and bias are read at every call.
    """

    def __init__(self, module: nn.Module, numerics: Numerics, norm: Norm) -> None:
        super().__init__(module, numerics)
        self.norm, self.label = norm, f"spiking {norm.operator}"
        #: In a whole spiking model, the gain and the bias are operators, too.
        self.whole = False

    def __call__(self, *args: Any, gate: Tensor | None = None, **kwargs: Any) -> Tensor:
        if self.detached:
            return self.original(*args, **kwargs | ({} if gate is None else {"gate": gate}))  # type: ignore[no-any-return]
        x, *rest = (*args, *kwargs.values())  # by any name
        refuse_proxies(self.module, (x,))
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
        if self.whole:
            output = library.OPERATORS[norm.operator](wide, norm.eps, numerics=self.numerics)
            output = _applied("multiply", output, weight, self.numerics)
            output = _applied("add", output, bias, self.numerics)
        else:
            output = library.OPERATORS[norm.operator](wide, norm.eps, numerics=self.numerics, weight=weight, bias=bias)
        if gate is not None and norm.gate == "after":
            output = output * gate
        if others is not dtype and (norm.dtype == "promoted" or others.itemsize >= 4):
            others = torch.promote_types(dtype, others)
        outer = dtype if norm.dtype == "input" else others
        return output if outer is inner else output.to(outer)


def _applied(operator: str, x: Tensor, constant: Tensor | None, numerics: Numerics | None) -> Tensor:
    return x if constant is None else library.OPERATORS[operator](x, constant, numerics=numerics)


def refuse_proxies(module: nn.Module, values: tuple[Any, ...]) -> None:
    """Raise SpikeplugError if a value is a proxy of torch.fx's tracer, which would record the exact functions.

    module  named in the message
    """
    for value in values:
        if isinstance(value, fx.Proxy):
            raise SpikeplugError(
                f"torch.fx would trace {type(module).__name__} without its spiking operators: use torch.export.export, "
                "or revert the model first."
            )


def plug_of(module: nn.Module) -> Plug | None:
    """Return the plug of a module, or None."""
    return vars(module).get(_PLUG)


def is_plugged(module: nn.Module) -> bool:
    """Return whether a module has a plug that is still in place: as its forward, or where a known wrapper keeps that.

    False if somebody has since replaced the forward, or wrapped it in a way that hides the plug.
    """
    cell, state, plug = _wrapped(module), vars(module), plug_of(module)
    places = (None if cell is None else cell.cell_contents, state.get("forward"), state.get("_old_forward"))
    return plug is not None and any(place is plug for place in places)


def is_foreign(module: nn.Module) -> bool:
    """Return whether somebody has put a forward into the module that is not its class's and does not wrap it.

    Such a forward may compute anything: it has to run, and only the torch functions it calls can be redirected.
    """
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
    """Return which attribute holds the module's own forward: "forward", or "_old_forward" if accelerate wrapped it."""
    return "_old_forward" if "_hf_hook" in vars(module) else "forward"
