"""torch's float functions, redirected to the operators while a converted module's own code runs.

`TABLE` is the whole of it: a torch function, whichever of its spellings is called, and what is done instead. A call
that an entry cannot honour (integers, complex numbers, an exponent that is no constant) is left as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, overrides
from torch.overrides import TorchFunctionMode

from spikeplug.conversion import replacements
from spikeplug.conversion.replacements import Replacement
from spikeplug.numerics import Numerics

_NAMESPACES = (torch, torch.Tensor, F, torch.special, torch.linalg)
# Other names that torch takes for its arguments, after NumPy.
_ALIASES = {
    "axis": "dim",
    "keepdims": "keepdim",
    "self": "input",
    "abs": "input",
    "x": "input",
    "x1": "input",
    "x2": "other",
}


class Redirection(TorchFunctionMode):
    """Calls of `operators` go to the spiking operators of `numerics`; all others are left alone.

    Enter it by `only(redirection)`, so that no scope around reaches in.
    """

    #: Of an operator itself it changes nothing (library/direct.py).
    lets_operators_pass = True

    def __init__(self, numerics: Numerics | None, operators: frozenset[str]) -> None:
        super().__init__()
        self.numerics, self.operators = numerics, operators

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # Nine of ten calls. (torch.compile can't hash what reads a property, and has no need to be quick.)
        if not torch.compiler.is_compiling() and func in _OTHERS:
            return func(*args, **kwargs)
        entry = _entry_of(func)
        if entry is None or not (self.operators & entry.operators) or not _is_real((*args[:2], *kwargs.values())):
            return func(*args, **kwargs)
        target = kwargs.get("out")
        others = {_ALIASES.get(name, name): value for name, value in kwargs.items() if name != "out"}
        if entry.parts:
            with self:
                result = entry.run(*args, **others)
        else:
            result = entry.run(*args, **others, numerics=self.numerics)
        if result is NotImplemented:
            return func(*args, **kwargs)
        if func in _IN_PLACE:
            target = args[0]
        return result if target is None else target.copy_(result)


class only:  # noqa: N801
    """Context: of all redirections, this one alone is in force, or with None, none is. Other function modes stay."""

    def __init__(self, redirection: Redirection | None) -> None:
        self.redirection = redirection

    def __enter__(self) -> None:
        self.before = [overrides._pop_mode() for _ in overrides._get_current_function_mode_stack()]
        for mode in reversed(self.before):
            if not isinstance(mode, Redirection):
                overrides._push_mode(mode)
        if self.redirection is not None:
            overrides._push_mode(self.redirection)

    def __exit__(self, *_: object) -> None:
        for _mode in overrides._get_current_function_mode_stack():
            overrides._pop_mode()
        for mode in reversed(self.before):
            overrides._push_mode(mode)


def _entry_of(func: Any) -> Replacement | None:
    # torch.compile finds the functions behind 1 / x and 2 ** x by identity only, not in a dict, and that behind x ** 2
    # only by what it wraps.
    if func is Tensor.__rdiv__:
        return _INTO
    if func is Tensor.__rpow__:
        return _OF_NUMBER
    return TABLE.get(getattr(func, "__wrapped__", func))


def _is_real(values: Iterable[Any]) -> bool:
    """At least one floating tensor, and no complex one."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    return any(x.is_floating_point() for x in tensors) and not any(x.is_complex() for x in tensors)


def _table() -> dict[Callable[..., Any], Replacement]:
    table = {}
    for entry in replacements.ALL:
        for name in entry.names:
            for spelling in (name, f"{name}_", f"__{name}__", f"__i{name}__"):
                for namespace in _NAMESPACES:
                    function = getattr(namespace, spelling, None)
                    if callable(function):
                        table[function] = table[getattr(function, "__wrapped__", function)] = entry
    return table


TABLE = _table()
#: What torch lets a mode see and no entry is for, `x.shape` included.
_OTHERS = frozenset(f for functions in overrides.get_overridable_functions().values() for f in functions) - TABLE.keys()
_INTO, _OF_NUMBER = TABLE[Tensor.__rdiv__], TABLE[Tensor.__rpow__]
_IN_PLACE = frozenset(f for f in TABLE if f.__name__.endswith("_") and not f.__name__.endswith("__"))
#: Every name that stands for a redirected function in source code, and the operators that run in its place.
NAMES = {name: entry.operators for entry in replacements.ALL for stem in entry.names for name in (stem, f"{stem}_")}
NAMES |= {function.__name__: entry.operators for function, entry in TABLE.items()}
NAMES |= {"division": NAMES["div"], "power": NAMES["pow"] | NAMES["rpow"]}
