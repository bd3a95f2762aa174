"""Read one function's byte code: the names that it uses, and the functions that they stand for.

A chain such as `torch.linalg.inv` is resolved to the function, whatever the file calls its modules.
"""

from __future__ import annotations

import builtins
import dis
import sys
import types
from collections import ChainMap
from collections.abc import Iterator
from typing import Any

import torch

#: Prefix of names that are fetched from the module itself; such a name may be one of its children.
OWN = "self."
#: Prefix of the names of functions that are known to be torch's.
OF_TORCH = "torch."
#: Prefix of the names of functions compiled by TorchScript.
SCRIPTED = "scripted: "
#: Prefix of the names of functions of libraries other than torch, which are given more than numbers.
FOREIGN = "outside of torch: "
#: Names for `a / b` and `a ** b`, which have none in byte code and are mostly arithmetic on numbers.
_SIGNS = {"/": "division", "/=": "division", "**": "power", "**=": "power"}
#: Libraries that compute without torch.
_LIBRARIES = frozenset({"math", "cmath", "numpy", "scipy", "numba", "cupy", "jax"})
#: Attributes and functions that give the sizes of a tensor, which are numbers.
_SIZES = frozenset({"shape", "size", "dim", "ndim", "numel", "dtype", "device", "config", "finfo", "len"})
_NAMESPACES = (types.ModuleType, torch._ops._Ops, torch._ops._OpNamespace, torch._ops.OpOverloadPacket)
_UNKNOWN = types.SimpleNamespace()
# What holds functions and is none.
_HOLDERS = (types.ModuleType, torch._ops._OpNamespace, types.SimpleNamespace)


def read_code(function: types.FunctionType) -> tuple[set[str], list[Any]]:
    """Return the names that a function's code uses, and the objects they stand for, as far as known before it runs.

    Names are those of globals, attributes and operators. A name fetched from the module itself begins with `OWN`.
    A name of another library begins with `FOREIGN`; it is left out if the function is given numbers only.
    """
    names: set[str] = set()
    values: list[Any] = []
    cells = dict(_cells(function))
    numbers = _numbers_given(function) | {name for name, value in cells.items() if isinstance(value, (int, float))}
    reader = _Reader(ChainMap({}, cells, function.__globals__, vars(builtins)), numbers)
    for name, value in reader.read(function.__code__):
        names.add(name)
        if not isinstance(value, _HOLDERS):
            values.append(value)
    return names, values


def _cells(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not filled yet
            continue


def is_of_torch(value: Any) -> bool:
    """Return whether a function, type or operator is torch's own."""
    owner = getattr(value, "__objclass__", getattr(value, "__self__", None))
    return _library(value) == "torch" or (isinstance(owner, type) and _library(owner) == "torch")


def _library(value: Any) -> str:
    module = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
    return str(module or type(value).__module__).partition(".")[0]


def _numbers_given(function: types.FunctionType) -> set[str]:
    """Return the names of the parameters that are numbers by their default or annotation (int or float)."""
    code, hints = function.__code__, function.__annotations__
    numbers = {name for name, hint in hints.items() if hint in (int, float, "int", "float")}
    defaults = dict(
        zip(reversed(code.co_varnames[: code.co_argcount]), reversed(function.__defaults__ or ()), strict=False)
    )
    defaults |= function.__kwdefaults__ or {}
    return numbers | {name for name, value in defaults.items() if isinstance(value, (int, float))}


class _Reader:
    """Read byte code instruction by instruction, and keep track of which objects its names stand for.

    known    objects by name: local variables, closure, globals, built-ins
    numbers  names of variables that hold numbers, not tensors
    """

    def __init__(self, known: ChainMap[str, Any], numbers: set[str]) -> None:
        self.known, self.numbers = known, numbers
        self._begin()

    def _begin(self) -> None:
        """Empty, before each statement, the lists of values and of other libraries' functions that it loads."""
        #: Of each value loaded in the statement, whether it is a number; None: it may be.
        self.given: list[bool | None] = []
        #: Functions of other libraries, and how many values were loaded before them.
        self.foreign: list[tuple[str, int]] = []
        self.measured = False  # the next value is an argument of len

    def read(self, code: types.CodeType) -> Iterator[tuple[str, Any]]:
        """Yield every name that the code uses, with the object it stands for, or `_UNKNOWN` if that cannot be told.

        Functions defined within the code are read, too.
        """
        holder, stored = "", False
        value: Any = _UNKNOWN
        imported: Any = _UNKNOWN
        for instruction in dis.get_instructions(code):
            kind, argument = instruction.opname, instruction.argval
            if kind.startswith(("STORE_FAST", "STORE_DEREF")):
                for name in argument if isinstance(argument, tuple) else (argument,):
                    self._assign(name, value)
                stored = True
                continue
            if stored or kind.startswith(("POP_TOP", "RETURN", "POP_JUMP")):
                yield from self._given_tensors()
                self._begin()
                stored = False
            if kind.startswith(("LOAD_FAST", "LOAD_DEREF")):
                # From Python 3.13 on, one instruction may load two variables; the attribute is that of the second.
                for name in argument if isinstance(argument, tuple) else (argument,):
                    holder, value = name, self._value(name, code)
                    if not self._is_foreign(name, value):
                        known = name in self.numbers or name == "self" or _is_namespace(value)
                        self._give(known or (None if self._is_parameter_of_a_helper(name, code) else False))
                continue
            if kind in ("LOAD_ATTR", "LOAD_METHOD"):
                if self.given and not (holder == "self" or _is_namespace(value)):
                    self.given[-1] = self.given[-1] or argument in _SIZES
                value = _attribute(value, argument)
                yield from self._named(argument, value, holder)
            elif kind == "IMPORT_NAME":
                value = imported = sys.modules.get(argument, _UNKNOWN)
            elif kind == "IMPORT_FROM":
                value = _attribute(imported, argument)
                yield argument, value
            elif kind in ("LOAD_GLOBAL", "LOAD_NAME"):
                value = self.known.get(argument, _UNKNOWN)
                self.measured = value is len
                yield from self._named(argument, value)
            elif kind == "LOAD_SUPER_ATTR":
                value = _UNKNOWN
                yield argument, value
            elif not kind.startswith(("PUSH_NULL", "CACHE", "EXTENDED_ARG")):
                if kind == "BINARY_OP" and instruction.argrepr in _SIGNS:
                    yield _SIGNS[instruction.argrepr], _UNKNOWN
                elif kind.startswith("CALL"):
                    yield from self._given_tensors()
                value = _UNKNOWN
            holder = ""
        yield from self._given_tensors()
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                yield from _Reader(self.known.new_child(), set(self.numbers)).read(constant)

    def _value(self, name: str, code: types.CodeType) -> Any:
        """Return what is known of the variable `name` in `code`, or `_UNKNOWN`.

        A parameter is known only if the code has assigned it: a global of the same name does not count.
        """
        given = name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        return self.known.maps[0].get(name, _UNKNOWN) if given else self.known.get(name, _UNKNOWN)

    def _assign(self, name: str, value: Any) -> None:
        self.known[name] = value
        (self.numbers.add if all(given is True for given in self.given) else self.numbers.discard)(name)

    def _is_parameter_of_a_helper(self, name: str, code: types.CodeType) -> bool:
        """Return whether `name` is a parameter of `code`, and `code` is not that of a `forward`.

        Such a parameter may be a number: where Python's math functions get one, it mostly is a size.
        """
        names = code.co_varnames[: code.co_argcount]
        return name in names and code.co_name != "forward"

    def _give(self, number: bool | None) -> None:
        self.given.append(True if self.measured else number)
        self.measured = False

    def _named(self, name: str, value: Any, holder: str = "") -> Iterator[tuple[str, Any]]:
        if self._is_foreign(name, value):
            return
        if callable(value) and is_of_torch(value) and name not in _SIZES:
            self._give(False)
        yield (f"{OWN if holder == 'self' else ''}{name}", value)

    def _is_foreign(self, name: str, value: Any) -> bool:
        """Return whether the value is a function of a library that computes without torch, such as NumPy.

        If so, it is noted in `self.foreign`, so that the arguments of its call can be looked at.
        """
        library = _library(value)
        found = library in _LIBRARIES and callable(value) and not isinstance(value, type)
        if found:
            module = getattr(value, "__module__", None) or library
            self.foreign.append((f"{FOREIGN}{module}.{getattr(value, '__name__', name)}", len(self.given)))
        return found

    def _given_tensors(self) -> Iterator[tuple[str, Any]]:
        """Yield (name, `_UNKNOWN`) for each noted function of another library that may have been given a tensor.

        A function that was given numbers only is left out. The notes in `self.foreign` are cleared.
        """
        for name, before in self.foreign:
            given = self.given[before:]
            # Python's own functions take one number; a tensor is rare.
            if False in given or (None in given and not name.startswith(f"{FOREIGN}math.")):
                yield name, _UNKNOWN
        self.foreign = []


def _is_namespace(value: Any) -> bool:
    return isinstance(value, _NAMESPACES) or (isinstance(value, type) and is_of_torch(value))


def _attribute(value: Any, name: str) -> Any:
    """Return the attribute `name` of `value`, or `_UNKNOWN` if there is none or `value` is no module or torch class.

    Outside of torch, only the module's dict is looked up: `getattr` may make a module import files.
    """
    if not _is_namespace(value):
        return _UNKNOWN
    return getattr(value, name, _UNKNOWN) if _library(value) == "torch" else vars(value).get(name, _UNKNOWN)
