"""What a model still computes in floating point: every nonlinear operation executed, by module path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spikeplug.conversion.report import fold_layers, grouped
from spikeplug.conversion.tracking import Running
from spikeplug.errors import SpikeplugError
from spikeplug.kernels import closed_forms
from spikeplug.library import OPERATORS
from spikeplug.operators import RECORDS

# Those of our operators stand in their records. ATen's names, without the underscore that ends in-place forms and without composite operations, which are seen in
# their parts. Not here: what is linear or affine (matrix products, sums, differences, multiplication or division by a
# number), what a threshold does (abs, sign, clamp, comparison, maximum, rounding, where), what moves, draws or casts
# data, frexp, the product of two tensors (gate * up), and what is a threshold or two
# (relu, hardsigmoid and their kin), or the product of one with its input (hardswish).
NONLINEAR = frozenset(
    name
    for line in (
        # exponentials, logarithms, powers, roots and quotients
        "xlogy logit logaddexp logaddexp2 logsumexp logcumsumexp",
        "ldexp pow floor_divide addcdiv fmod remainder hypot prod cumprod",
        # norms and distances
        "var std var_mean std_mean dist",
        "_cdist_forward _euclidean_dist _pdist_forward",
        # activations
        "erf erfc erfinv elu celu",
        "_addmm_activation _transformer_encoder_layer_fwd",
        # trigonometric and special functions
        "tan sinc asin acos atan atan2 sinh cosh asinh acosh atanh angle polar",
        "lgamma mvlgamma digamma polygamma igamma igammac i0",
    )
    for name in line.split()
) | frozenset(name for record in RECORDS.values() for name in record.aten)
# Whole families, by a part of their names.
NONLINEAR_FAMILIES = ("softmax", "attention", "batch_norm", "special_", "linalg_", "_rnn", "lstm", "gru")
_QUOTIENTS = frozenset({"div", "floor_divide", "fmod", "remainder"})
# Other namespaces hide what they compute; these only move data or keep time.
_TRANSPARENT = frozenset({"prim", "prims", "c10d", "_c10d_functional", "profiler"})


@dataclass(frozen=True)
class AuditEntry:
    """`count` executions of the float nonlinearity `op` in the module at `path` (in none of its children).

    `path` is the module path in the audited model; empty for the model itself and for what runs outside any module. A
    module that is no part of the model goes by its class name.
    """

    path: str
    op: str
    count: int


class Audit:
    """What an audit found so far; complete when its block is left."""

    def __init__(self) -> None:
        self._counter: Counter[tuple[str, str]] = Counter()

    def add(self, path: str, op: str) -> None:
        """Count one execution."""
        self._counter[path, op] += 1

    @property
    def entries(self) -> tuple[AuditEntry, ...]:
        """One entry per path and op, in order of first execution."""
        return tuple(AuditEntry(path, op, count) for (path, op), count in self._counter.items())

    @property
    def counts(self) -> dict[str, int]:
        """Executions by op, over all paths."""
        counts: Counter[str] = Counter()
        for entry in self.entries:
            counts[entry.op] += entry.count
        return dict(counts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"counts": self.counts, "entries": [asdict(entry) for entry in self.entries]}

    def table(self) -> Table:
        """A Rich table with one row per op; layer numbers become `*`, and executions are added up."""
        table = Table("op", "where", title="float nonlinearities executed")
        table.add_column("count", justify="right")
        for (op,), members in grouped(self.entries, lambda entry: (entry.op,)).items():
            where = fold_layers({entry.path: entry.count for entry in members})
            table.add_row(op, where, str(self.counts[op]))
        return table

    def __str__(self) -> str:
        return ", ".join(f"{count} {op}" for op, count in self.counts.items()) or "no float nonlinearity executed"


@contextmanager
def audit(model: nn.Module) -> Iterator[Audit]:
    """Record every float nonlinearity executed in the block: `with audit(model) as found: model(**x)`.

    An operation counts when its name is in `NONLINEAR` or one of the families, and a tensor it takes or gives is
    floating or complex; quotients only when divided by a tensor; 2^n with n of an integer dtype is an exact scaling and
    does not count. An operation out of another library than ATen could hide anything: it counts, under its full name.
    Spiking modules are watched like all others. What leaves torch (NumPy, Numba) and compiled graphs are not seen.

    Errors: SpikeplugError if `model` is not a torch module.
    """
    if not isinstance(model, nn.Module):
        raise SpikeplugError(f"audit takes a torch module, not a {type(model).__name__}: give it the model.")
    found = Audit()
    with Running(model) as running, _Watch(lambda op: found.add(running.path, op)):
        yield found


class _Watch(TorchDispatchMode):
    """Calls `report(op)` for every float nonlinearity dispatched."""

    def __init__(self, report: Callable[[str], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._report = report

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        namespace, _, name = func.overloadpacket._qualified_op_name.partition("::")
        if namespace == "spikeplug" and name in OPERATORS:
            # Our own operators are opaque to everyone else; here they are watched inside, like everything: their closed
            # forms, which are what they mean, since a kernel's loops dispatch nothing.
            with self, closed_forms():
                return OPERATORS[name].kernel(*args)
        # Under inference_mode composite operations arrive whole: take them apart, so that the parts are seen, under the
        # same names as elsewhere.
        with self:
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
        result = func(*args, **kwargs)
        name = _suspect(func, (*args, *(value for key, value in kwargs.items() if key != "out")))
        if name and any(_is_float(leaf) for leaf in tree_leaves((args, kwargs, result))):
            self._report(name)
        return result


def _suspect(func: Any, operands: tuple[Any, ...]) -> str:
    """The name to report if this call is nonlinear on floats, else the empty string."""
    namespace, _, name = func.overloadpacket._qualified_op_name.partition("::")
    if namespace in _TRANSPARENT:
        return ""
    if namespace != "aten":
        return f"{namespace}::{name}"
    name = name.removeprefix("_foreach_")
    if name.endswith("_") and not name.endswith("__"):
        name = name[:-1]
    if name not in NONLINEAR and not any(family in name for family in NONLINEAR_FAMILIES):
        return ""
    affine = name in _QUOTIENTS and not any(isinstance(leaf, Tensor) for leaf in tree_leaves(operands[1:]))
    return "" if affine or _is_exact_scaling(name, operands) else str(name)


def _is_exact_scaling(name: str, operands: tuple[Any, ...]) -> bool:
    """2^n or x·2^n with n of an integer dtype: moves an exponent, as frexp reads it."""
    if name not in ("pow", "ldexp"):
        return False
    base, exponent = operands
    power_of_two = name == "ldexp" or (not isinstance(base, Tensor) and base == 2)
    return power_of_two and isinstance(exponent, Tensor) and not _is_float(exponent)


def _is_float(leaf: object) -> bool:
    return isinstance(leaf, Tensor) and (torch.is_floating_point(leaf) or leaf.is_complex())
