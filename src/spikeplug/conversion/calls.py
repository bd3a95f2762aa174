"""Which functions a module's own code can call: read from its byte code, without running it.

An over-estimate (a name on a branch never taken counts) and, where a function is fetched in ways byte code does not
show, an under-estimate: what was executed is the audit's business.
"""

from __future__ import annotations

import dis
import functools
import inspect
import sys
import types
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import nn

#: `a / b` and `a ** b` have no name in byte code, and are mostly arithmetic on numbers.
_SIGNS = {"/": "division", "/=": "division", "**": "power", "**=": "power"}
#: transformers calls attention through its interface, or, if that says "eager", this function of the model's own file.
ATTENTION_INTERFACE, EAGER_ATTENTION = "ALL_ATTENTION_FUNCTIONS", "eager_attention_forward"
#: Marks what is fetched from the module itself, and may be one of its children.
_OWN = "self."
#: Packages whose functions go by their names: those of other files are not followed.
_FRAMEWORKS = sys.stdlib_module_names | {"torch", "transformers", "accelerate", "numpy"}


def called_names(module: nn.Module) -> frozenset[str]:
    """Names of globals, attributes and operators that the module's forward, and what it calls, may use.

    Followed: methods, functions of the same file or of no framework, and those given to the module as attributes. Not
    followed: its children, which are modules of their own, and the attention interface's eager twin.
    """
    cls, state = type(module), vars(module)
    given = tuple(each for value in state.values() for each in _functions_in(value) if not _is_made_by(each, cls))
    names = _names_of(cls, given) if given else _names_of_class(cls)  # type: ignore[arg-type]
    # `self.norm(x)` calls a child, whatever function shares its name.
    children = {*state, *module._modules, *module._parameters, *module._buffers}
    own = {name.removeprefix(_OWN) for name in names if name.startswith(_OWN)}
    return frozenset(name for name in names if not name.startswith(_OWN)) | (own - children)


@lru_cache(maxsize=4096)
def _names_of_class(cls: type[nn.Module]) -> frozenset[str]:
    return _names_of(cls, ())


def _names_of(cls: type[nn.Module], given: tuple[Any, ...]) -> frozenset[str]:
    """Names used by the class's forward and the functions given to it, and by all that they call."""
    names: set[str] = set()
    seen: set[types.CodeType] = set()
    todo: list[Any] = list(_functions_in(cls.forward))
    for function in given:
        if _is_followed(function, cls):
            todo.append(function)
        else:
            names.add(function.__name__)
    while todo:
        function = todo.pop()
        if function.__code__ in seen:
            continue
        seen.add(function.__code__)
        used = set(_names_in(function.__code__))
        names |= used
        plain = {name.removeprefix(_OWN) for name in used} - {EAGER_ATTENTION}
        reached = [(method, isinstance(method, types.FunctionType)) for method in _methods(plain, cls)]
        reached += [(value, _is_followed(value, function)) for value in _values(function, plain)]
        todo += [value for value, followed in reached if followed]
        names |= {value.__name__ for value, followed in reached if not followed}
    return frozenset(names)


def _names_in(code: types.CodeType) -> Iterator[str]:
    holder = ""
    for instruction in dis.get_instructions(code):
        if instruction.opname == "BINARY_OP" and instruction.argrepr in _SIGNS:
            yield _SIGNS[instruction.argrepr]
        elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            yield f"{_OWN if holder == 'self' else ''}{instruction.argval}"
        elif instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_SUPER_ATTR", "IMPORT_FROM"):
            yield instruction.argval
        # From 3.13 on, one instruction loads two variables; the attribute is the second one's.
        loaded = instruction.argval if instruction.opname.startswith(("LOAD_FAST", "LOAD_DEREF")) else ""
        holder = loaded[-1] if isinstance(loaded, tuple) else loaded
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_in(constant)


def _methods(names: set[str], cls: type[nn.Module]) -> Iterator[Any]:
    """Methods and properties of these names, wherever the class inherits them from."""
    # nn.Module's own methods are housekeeping, not arithmetic.
    classes = [base for base in cls.__mro__ if base not in (nn.Module, object)]
    calls_bases = not names.isdisjoint({"super", *(base.__name__ for base in classes[1:])})
    for name in names:
        found = [vars(base)[name] for base in classes if name in vars(base)]
        for method in found if calls_bases else found[:1]:
            yield from _functions_in(method)


def _values(function: types.FunctionType, names: set[str]) -> Iterator[Any]:
    """Functions among the globals of these names, and in the function's closure."""
    for name in names:
        yield from _functions_in(function.__globals__.get(name))
    for cell in function.__closure__ or ():
        try:
            yield from _functions_in(cell.cell_contents)
        except ValueError:  # a cell not filled yet
            continue


def _functions_in(value: Any) -> Iterator[Any]:
    """The plain functions that a value is, wraps, or holds as a list, tuple or dict; an autograd function's forward."""
    if type(value) in (list, tuple, dict):
        for each in value.values() if type(value) is dict else value:
            if not isinstance(each, (list, tuple, dict)):
                yield from _functions_in(each)
    elif isinstance(value, (types.FunctionType, types.BuiltinFunctionType)) or type(value) in _DESCRIPTORS:
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


#: Methods of classes written in C, such as torch.Tensor.exp.
_DESCRIPTORS = (types.MethodDescriptorType, types.WrapperDescriptorType)


def _is_followed(value: Any, user: Any) -> bool:
    """Whether the code of a function used by another, or by a class, is read: of the same file, or no framework's."""
    if not isinstance(value, types.FunctionType):
        return False
    return value.__module__ == user.__module__ or str(value.__module__).partition(".")[0] not in _FRAMEWORKS


def _is_made_by(function: Any, cls: type[nn.Module]) -> bool:
    """One of the class's own functions, which count where they are called."""
    return any(function is each for base in cls.__mro__ for each in _functions_in(vars(base).get(function.__name__)))
