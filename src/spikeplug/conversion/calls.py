"""Read from byte code which functions a module's own code can call, without running it.

It over-estimates: a name on a branch that is never taken counts.
It under-estimates where a function is fetched in ways that byte code does not show.
The audit reports what was executed.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Iterator
from concurrent.futures import Executor
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from spikeplug.conversion.byte_code import OF_TORCH, OWN, SCRIPTED, is_of_torch, read_code

#: transformers calls attention through its interface, or, for "eager", through this function of the model's own file.
ATTENTION_INTERFACE, EAGER_ATTENTION = "ALL_ATTENTION_FUNCTIONS", "eager_attention_forward"
#: Base classes of models, whose methods are not a model's own.
_BASES = ("transformers.modeling_utils",)
#: Packages whose functions count by name: code from other files of theirs is not read.
_FRAMEWORKS = sys.stdlib_module_names | {"torch", "transformers", "accelerate", "numpy"}


def called_names(module: nn.Module) -> frozenset[str]:
    """Return the names of globals, attributes and operators that the module's forward, and what it calls, may use.

    Followed: methods, functions of the same file or of a package that is not a framework, and functions in attributes.
    Not followed: the module's children, which are modules of their own, and the eager version of attention.
    """
    # `self.norm(x)` calls a child, even if a function has the same name.
    children = {*vars(module), *module._modules, *module._parameters, *module._buffers}
    own, others = names_read(module)
    return others | (own - children)


def names_read(module: nn.Module) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names that `called_names` is made from: those fetched from the module itself, and all others."""
    cls, state = type(module), vars(module)
    given = tuple(each for value in state.values() for each in _functions_in(value) if not _is_made_by(each, cls))
    names = _names_of(cls, given) if given else names_of_class(cls)  # type: ignore[arg-type]
    if any(isinstance(value, Executor) for value in state.values()):
        names |= {Executor.__name__}
    own = frozenset(name.removeprefix(OWN) for name in names if name.startswith(OWN))
    return own, frozenset(name for name in names if not name.startswith(OWN))


@lru_cache(maxsize=4096)
def names_of_class(cls: type[nn.Module]) -> frozenset[str]:
    """Return the names that the class's forward, and what it calls, may use. Own names begin with `OWN`."""
    return _names_of(cls, ())


@lru_cache(maxsize=4096)
def methods_that_call(cls: type[nn.Module], wanted: frozenset[str]) -> tuple[str, ...]:
    """Return the public methods of a module's class, other than `forward`, that may call a function of these names.

    Not those of torch's and transformers' base classes and mixins, such as `generate`: they run the model, and do their
    own arithmetic on its outputs.
    """
    found: dict[str, bool] = {}
    for base in cls.__mro__:
        if not issubclass(base, nn.Module) or base is nn.Module or base.__module__ in _BASES:
            continue
        for name, method in vars(base).items():
            if name in found or name.startswith("_"):
                continue
            # Not nn.Module's housekeeping, such as `to`; nor class and static methods, which have no self.
            own = isinstance(method, types.FunctionType) and name != "forward" and not hasattr(nn.Module, name)
            called = (called.removeprefix(OWN) for called in (_names_of(cls, (), method) if own else ()))
            found[name] = not wanted.isdisjoint(called)
    return tuple(name for name, calls in found.items() if calls)


def _names_of(cls: type[nn.Module], given: tuple[Any, ...], start: Any = None) -> frozenset[str]:
    """Return the names of globals, attributes and operators that a method of `cls`, and all it calls, may use.

    given  functions that the module holds in attributes, which the method may call as well
    start  the method; None: `forward`
    """
    names: set[str] = set()
    seen: set[types.CodeType] = set()
    todo: list[Any] = list(_functions_in(cls.forward if start is None else start))
    for function in given:
        if _is_followed(function, cls):
            todo.append(function)
        else:
            names |= _names_for(function)
    while todo:
        function = todo.pop()
        if function.__code__ in seen:
            continue
        seen.add(function.__code__)
        used, values = read_code(function)
        names |= used
        plain = {name.removeprefix(OWN) for name in used} - {EAGER_ATTENTION}
        reached = [(method, isinstance(method, types.FunctionType)) for method in _methods(plain, cls)]
        values = [each for value in values if value is not _eager_of(function) for each in _functions_in(value)]
        reached += [(value, _is_followed(value, function)) for value in (*values, *_cells(function))]
        todo += [value for value, followed in reached if followed]
        names = names.union(*(_names_for(value) for value, followed in reached if not followed))
    return frozenset(names)


def _eager_of(function: types.FunctionType) -> Any:
    """Return the `eager_attention_forward` of the file that defines `function`, or `function` itself if it has none.

    No converted model runs that function, so its code is not read.
    """
    return function.__globals__.get(EAGER_ATTENTION, function)


def _names_for(function: Any) -> set[str]:
    """Return the names under which a function counts whose code is not read, such as one of torch's.

    A function of torch counts by its plain name and with the prefix `OF_TORCH`, a compiled one with `SCRIPTED`.
    """
    if isinstance(function, torch.jit.ScriptFunction):
        return {f"{SCRIPTED}{function.name}"}
    if isinstance(function, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)):
        packet: Any = getattr(function, "overloadpacket", function)
        name = packet._qualified_op_name.removeprefix("aten::")
        return {f"{OF_TORCH}{name}", name}
    name = getattr(function, "__name__", type(function).__name__)
    return {f"{OF_TORCH}{name}", name} if is_of_torch(function) else {name}


def _methods(names: set[str], cls: type[nn.Module]) -> Iterator[Any]:
    """Yield the functions behind the methods and properties of these names: those that `cls` has or inherits.

    Where the names include `super` or a base class, the overridden versions in the bases are yielded, too.
    """
    # nn.Module's own methods do no arithmetic.
    classes = [base for base in cls.__mro__ if base not in (nn.Module, object)]
    calls_bases = not names.isdisjoint({"super", *(base.__name__ for base in classes[1:])})
    for name in names:
        found = [vars(base)[name] for base in classes if name in vars(base)]
        for method in found if calls_bases else found[:1]:
            yield from _functions_in(method)


def _cells(function: types.FunctionType) -> Iterator[Any]:
    """Yield the functions in the function's closure."""
    for cell in function.__closure__ or ():
        try:
            yield from _functions_in(cell.cell_contents)
        except ValueError:  # a cell not filled yet
            continue


def _functions_in(value: Any) -> Iterator[Any]:
    """Yield the plain functions that a value is, wraps, or holds in a list, tuple or dict.

    Of an autograd function, that is its forward.
    """
    if type(value) in (list, tuple, dict):
        for each in value.values() if type(value) is dict else value:
            if not isinstance(each, (list, tuple, dict)):
                yield from _functions_in(each)
    elif isinstance(value, _PLAIN):
        yield value
        if hasattr(value, "__wrapped__"):
            yield inspect.unwrap(value)
    elif isinstance(value, (types.MethodType, staticmethod, classmethod)):
        yield from _functions_in(value.__func__)
    elif isinstance(value, property):
        yield from _functions_in(value.fget)
    elif isinstance(value, (functools.partial, functools.cached_property)):
        yield from _functions_in(value.func)
    elif hasattr(value, "cache_info"):
        yield inspect.unwrap(value)
    elif isinstance(value, type) and issubclass(value, torch.autograd.Function):
        yield from _functions_in(value.forward)


#: Functions as they are, those written in C and compiled ones included.
_PLAIN = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    torch.jit.ScriptFunction,
    torch._ops.OpOverload,
    torch._ops.OpOverloadPacket,
)


def _is_followed(value: Any, user: Any) -> bool:
    """Return whether `value` is a Python function whose code is read, rather than counted by its name.

    It is read if it is in the same module as `user`, or in no framework (torch, transformers, the standard library).

    user  the function or class that uses it
    """
    if not isinstance(value, types.FunctionType):
        return False
    return value.__module__ == user.__module__ or str(value.__module__).partition(".")[0] not in _FRAMEWORKS


def _is_made_by(function: Any, cls: type[nn.Module]) -> bool:
    """Return whether `function` is a method of `cls` or of its bases. Methods count only where they are called."""
    return any(function is each for base in cls.__mro__ for each in _functions_in(vars(base).get(function.__name__)))
