"""Redirect torch's float functions to spiking operators while a converted module's own code runs.

`TABLE` holds every redirection: from a torch function, under each of its spellings, to its replacement.
A call that the replacement cannot reproduce (integers, complex numbers, a non-constant exponent) is left as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, overrides
from torch._dynamo.eval_frame import skip_code
from torch.nn import Parameter
from torch.overrides import TorchFunctionMode

from spikeplug.conversion import replacements
from spikeplug.conversion.auditing import stem
from spikeplug.conversion.replacements import Replacement
from spikeplug.conversion.whole.functions import FUNCTIONS
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics

_NAMESPACES = (torch, torch.Tensor, F, torch.special, torch.linalg)
# Other names that torch accepts for its arguments, as NumPy does.
_ALIASES = {
    "axis": "dim",
    "keepdims": "keepdim",
    "self": "input",
    "abs": "input",
    "x": "input",
    "x1": "input",
    "x2": "other",
    "mat1": "a",
    "batch1": "a",
    "mat2": "b",
    "batch2": "b",
}


class Redirection(TorchFunctionMode):
    """Redirect torch functions that have a spiking operator among `operators` to it; leave all other calls alone.

    numerics   of the spiking operators; None: the default
    operators  names of the spiking operators to use. With "add" among them, sums and products are redirected as well

    Enter it by `only(redirection)`, so that redirections around it do not apply.
    """

    #: It does not change an operator itself, so a call may bypass the torch op (library/direct.py).
    lets_operators_pass = True

    def __init__(self, numerics: Numerics | None, operators: frozenset[str]) -> None:
        super().__init__()
        self.numerics, self.operators = numerics, operators
        self.linear = LINEAR_TABLE if "add" in operators else {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # The fast path of nine calls in ten. (torch.compile cannot hash a property's getter, and does not need speed.)
        if not torch.compiler.is_compiling() and func in (_OTHERS_OF_WHOLE if self.linear else _OTHERS):
            return func(*args, **kwargs)
        if self.linear and (result := self._linear(func, args, kwargs)) is not NotImplemented:
            return result
        if self.linear and is_dtype_of_integers(func, args):
            return torch.float32
        entry = _entry_of(func)
        if entry is None or not (self.operators & entry.operators) or not _is_real((*args[:2], *kwargs.values())):
            return func(*args, **kwargs)
        target = kwargs.get("out")
        others = {_ALIASES.get(name, name): value for name, value in kwargs.items() if name != "out"}
        if entry.parts or self.linear:
            with self:
                result = entry.run(*args, **others, **({} if entry.parts else {"numerics": self.numerics}))
        else:
            result = entry.run(*args, **others, numerics=self.numerics)
        if result is NotImplemented:
            return func(*args, **kwargs)
        if func in _IN_PLACE or (isinstance(func, _ATEN_TYPES) and _aten_name(func).endswith("_")):
            target = args[0]
        return result if target is None else target.copy_(result)

    def _linear(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of a sum or product by its operator; NotImplemented if the call is none, or is exact."""
        run = self.linear.get(func)
        if run is None or not _is_real((*args[:2], *kwargs.values())):
            return NotImplemented
        if not kwargs:
            result = run(*args, numerics=self.numerics)
        else:
            others = {_ALIASES.get(name, name): value for name, value in kwargs.items() if name != "out"}
            result = run(*args, **others, numerics=self.numerics)
        if result is NotImplemented:
            return result
        target = args[0] if func in _IN_PLACE_SUMS else kwargs.get("out")
        return result if target is None else target.copy_(result)


class OncePerSequence(Redirection):
    """Redirect as `Redirection`, and let a temporal-difference operator evaluate its function once per sequence.

    Such an operator accumulates over time (cumsum), computes a function f of every step, and takes differences (diff).
    Here, the accumulation keeps its last step only, and the differences [f(ΣX)] are followed by T - 1 steps of zeros.
    """

    #: T of the last accumulation.
    steps = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func is Tensor.reshape and args[1:2] == (self.steps,) and math.prod(args[1:]) == args[1] * args[0].numel():
            args = (args[0], 1, *args[2:])  # time was folded into the batch, and is unfolded
        elif func in _ACCUMULATIONS and (*args, *given.values())[1:] == (0,):
            self.steps = args[0].shape[0]
            return args[0].sum(0, keepdim=True)
        elif func is torch.diff and given.get("dim") == 0:
            first = func(*args, **given)
            if not self.steps or len(first) != 1:
                raise SpikeplugError(
                    "sum_once cannot follow how a module keeps time between cumsum and diff: exclude the module, or "
                    "leave sum_once out."
                )
            return torch.cat((first, first.new_zeros(self.steps - 1, *first.shape[1:])))
        return super().__torch_function__(func, types, args, kwargs)


_ACCUMULATIONS = (torch.cumsum, Tensor.cumsum)

# Within a graph, torch.compile inlines this method. Beside one, after a graph break, it would compile the method by
# itself, and take the graph of one property's getter (x.shape) for that of another (x.device).
skip_code(Redirection.__torch_function__.__code__)


class only:  # noqa: N801
    """Apply, within the `with` block, only `redirection`, or none at all if it is None.

    Redirections entered before are suspended. Other function modes of torch stay active.
    """

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


def in_scope(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls `function` under the redirection that is active now, whenever it is called.

    Without an active redirection, returns `function` itself.
    """
    modes = (mode for mode in reversed(overrides._get_current_function_mode_stack()) if isinstance(mode, Redirection))
    active = next(modes, None)
    if active is None:
        return function

    def bound(*args: Any, **kwargs: Any) -> Any:
        with only(Redirection(active.numerics, active.operators)):
            return function(*args, **kwargs)

    return bound


def _entry_of(func: Any) -> Replacement | None:
    # torch.compile finds the functions of 1 / x and 2 ** x only by identity, not in a dict. It finds that of x ** 2
    # only by the function it wraps.
    if func is Tensor.__rdiv__:
        return _INTO
    if func is Tensor.__rpow__:
        return _OF_NUMBER
    if isinstance(func, _ATEN_TYPES):
        return _ATEN.get(stem(_aten_name(func)))
    return TABLE.get(getattr(func, "__wrapped__", func))


def _aten_name(func: Any) -> str:
    """Return the name of an op without "aten::" and overload, or an empty string if it is not of `torch.ops.aten`."""
    namespace, _, name = str(getattr(func, "overloadpacket", func)._qualified_op_name).partition("::")
    return name if namespace == "aten" else ""


def _is_real(values: Iterable[Any]) -> bool:
    """Return whether at least one of the values is a floating tensor and none is a complex tensor."""
    real = False
    for value in values:
        if isinstance(value, Tensor):
            if value.is_complex():
                return False
            real = real or value.is_floating_point()
    return real


def _functions(name: str) -> Iterator[Callable[..., Any]]:
    """Yield torch's functions of this name, in every namespace and spelling."""
    for spelling in (name, f"{name}_", f"__{name}__", f"__i{name}__"):
        for namespace in _NAMESPACES:
            function = getattr(namespace, spelling, None)
            if callable(function):
                yield from (function, getattr(function, "__wrapped__", function))


def _table() -> dict[Callable[..., Any], Replacement]:
    return {function: entry for entry in replacements.ALL for name in entry.names for function in _functions(name)}


TABLE = _table()
#: What runs in place of torch's sums and products in a whole spiking model.
LINEAR_TABLE: dict[Callable[..., Any], Callable[..., Any]] = {
    function: entry.run for entry in FUNCTIONS for name in entry.names for function in _functions(name)
}
_ATEN_TYPES = (torch._ops.OpOverload, torch._ops.OpOverloadPacket)
#: Replacements by the name of the op in `torch.ops.aten`. Its arguments are those of the torch function of that name.
_ATEN = {
    f"{prefix}{name}": entry
    for entry in replacements.ALL
    for name in entry.names
    for prefix in ("", "linalg_", "special_")
    if hasattr(torch.ops.aten, f"{prefix}{name}")
}
#: Functions that a mode receives and that have no replacement, `x.shape` included.
_OTHERS = frozenset(f for functions in overrides.get_overridable_functions().values() for f in functions) - TABLE.keys()


def is_dtype_of_integers(func: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    """Return whether a call asks an int8 weight for its dtype: models cast their inputs to it, so float32 is told."""
    return func == _DTYPE_OF and type(args[0]) is Parameter and func(*args) is torch.int8


_DTYPE_OF = Tensor.dtype.__get__  # type: ignore[attr-defined]
#: Those of them that a whole spiking model leaves alone, too.
_OTHERS_OF_WHOLE = _OTHERS - LINEAR_TABLE.keys() - {_DTYPE_OF}
_INTO, _OF_NUMBER = TABLE[Tensor.__rdiv__], TABLE[Tensor.__rpow__]
_IN_PLACE = frozenset(f for f in TABLE if f.__name__.endswith("_") and not f.__name__.endswith("__"))
_IN_PLACE_SUMS = frozenset(
    f
    for f in LINEAR_TABLE
    if f.__name__.startswith("__i") or (f.__name__.endswith("_") and not f.__name__.endswith("__"))
)
#: Every name of a redirected function in source code, and the operators that run in its place.
NAMES = {name: entry.operators for entry in replacements.ALL for stem in entry.names for name in (stem, f"{stem}_")}
NAMES |= {function.__name__: entry.operators for function, entry in TABLE.items()}
NAMES |= {name: entry.operators for name, entry in _ATEN.items()}
NAMES |= {"division": NAMES["div"], "power": NAMES["pow"] | NAMES["rpow"]}
