"""Audit what a model still computes in floating point: every nonlinear operation executed, by module path."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spikeplug.conversion.neurons import neurons_in
from spikeplug.conversion.report import fold_layers, grouped
from spikeplug.conversion.tracking import Running
from spikeplug.errors import SpikeplugError
from spikeplug.fixedpoint import is_power_of_two
from spikeplug.kernels import closed_forms
from spikeplug.library import OPERATORS
from spikeplug.operators import RECORDS

#: ATen's names of nonlinear operations, without the underscore of in-place forms. The operators' records name those
#: that a spiking operator computes. Composite operations are missing: they are seen in their parts.
#: Not nonlinear here:
#: - linear or affine: matrix products, sums, differences, multiplication or division by a number
#: - computed by thresholds: abs, sign, clamp, comparison, maximum, rounding, where, relu, hardsigmoid and similar
#: - a product of tensors (gate * up, prod, cumprod)
#: - sums and maxima of magnitudes: the norms of order 0, 1 and infinity
#: - moving, drawing or casting data, and frexp
NONLINEAR = frozenset(
    name
    for line in (
        # exponentials, logarithms, powers, roots and quotients
        "xlogy logit logaddexp logaddexp2 logsumexp logcumsumexp",
        "ldexp pow floor_divide addcdiv fmod remainder hypot",
        # norms and distances
        "var std var_mean std_mean dist",
        "_cdist_forward _euclidean_dist _pdist_forward renorm embedding_renorm",
        # matrix factors and inverses beyond `linalg_`
        "cholesky cholesky_inverse cholesky_solve triangular_solve geqrf ormqr",
        # losses
        "mse_loss smooth_l1_loss huber_loss soft_margin_loss _ctc_loss",
        "binary_cross_entropy binary_cross_entropy_with_logits",
        # activations
        "erf erfc erfinv elu celu",
        "_addmm_activation _transformer_encoder_layer_fwd",
        # trigonometric and special functions
        "tan sinc asin acos atan atan2 sinh cosh asinh acosh atanh angle polar",
        "lgamma mvlgamma digamma polygamma igamma igammac i0",
    )
    for name in line.split()
) | frozenset(name for record in RECORDS.values() for name in record.aten)
#: Families of nonlinear operations, by a part of their names.
NONLINEAR_FAMILIES = ("softmax", "attention", "batch_norm", "special_", "linalg_", "_rnn", "lstm", "gru")
_QUOTIENTS = frozenset({*RECORDS["divide"].aten, "floor_divide", "fmod", "remainder"})
#: Operations that move, choose, compare or round numbers to whole ones, or flip their sign: threshold neurons do these.
LOSSLESS = frozenset(
    name
    for line in (
        "view _unsafe_view reshape _reshape_alias expand permute transpose t unsqueeze squeeze select slice split",
        "split_with_sizes unsafe_split unbind chunk narrow alias detach as_strided diagonal unfold movedim lift_fresh",
        "clone contiguous copy cat stack index index_select gather embedding take repeat repeat_interleave roll flip",
        "constant_pad_nd im2col index_put scatter index_copy slice_scatter select_scatter",
        "reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d",
        "empty empty_like empty_strided new_empty zeros zeros_like new_zeros ones ones_like new_ones full full_like",
        "new_full scalar_tensor fill zero arange",
        "neg abs sign where masked_fill triu tril max min amax amin argmax argmin topk sort maximum minimum clamp",
        "clamp_min clamp_max relu threshold eq ne lt le gt ge isfinite isnan isinf isin any all nonzero",
        "floor ceil round trunc signbit logical_not logical_and logical_or logical_xor masked_scatter masked_select",
        "complex view_as_complex view_as_real real imag _nested_tensor_from_mask_left_aligned",
        "_local_scalar_dense is_nonzero equal allclose",
    )
    for name in line.split()
)
#: Orders of norms that take no root and no power.
_LINEAR_ORDERS = (0, 1, math.inf, -math.inf)
# Namespaces that only move data or keep time. Any other namespace could hide what it computes.
_TRANSPARENT = frozenset({"prim", "prims", "c10d", "_c10d_functional", "profiler"})


@dataclass(frozen=True)
class AuditEntry:
    """Count the executions of one float nonlinearity in one module.

    path   module path in the audited model
    op     name of the operation, as in ATen
    count  number of executions

    The path is empty for the model itself, and for what runs outside of any module.
    Children of the module have their own entries. A module outside of the model is named by its class.
    """

    path: str
    op: str
    count: int


class Audit:
    """Hold what an audit found so far; complete when the `with` block is left."""

    def __init__(self) -> None:
        self._counter: Counter[tuple[str, str]] = Counter()

    def add(self, path: str, op: str) -> None:
        """Count one execution of the operation `op` in the module at `path`."""
        self._counter[path, op] += 1

    @property
    def entries(self) -> tuple[AuditEntry, ...]:
        """Return one entry per path and op, in order of first execution."""
        return tuple(AuditEntry(path, op, count) for (path, op), count in self._counter.items())

    @property
    def counts(self) -> dict[str, int]:
        """Return the executions per op, over all paths."""
        counts: Counter[str] = Counter()
        for entry in self.entries:
            counts[entry.op] += entry.count
        return dict(counts)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"counts": self.counts, "entries": [asdict(entry) for entry in self.entries]}

    def table(self) -> Table:
        """Return a Rich table with one row per op. Layer numbers become `*`, and executions are added up."""
        table = Table("op", "where", title="float nonlinearities executed")
        table.add_column("count", justify="right")
        for (op,), members in grouped(self.entries, lambda entry: (entry.op,)).items():
            where = fold_layers({entry.path: entry.count for entry in members})
            table.add_row(op, where, str(self.counts[op]))
        return table

    def __str__(self) -> str:
        return ", ".join(f"{count} {op}" for op, count in self.counts.items()) or "no float nonlinearity executed"


@contextmanager
def audit(model: nn.Module, *, linear: bool = False) -> Iterator[Audit]:
    """Record every float nonlinearity executed in the block: `with audit(model) as found: model(**x)`.

    linear: record also what is linear. Then every operation on floats counts that is no spiking operator and can change
    a number's digits. Not counted are moves, choices, comparisons, signs, and scalings by a power of two.

    An operation counts if its name in ATen is that of a nonlinear one, such as exp, rsqrt or a softmax, and one of its
    tensors is floating or complex.
    A quotient counts only if its divisor is a tensor.
    2^n with n of an integer dtype is an exact scaling and does not count.
    What a neuron of another pipeline executes does not count: it spikes (see `neurons`).
    An operation of a library other than ATen could hide anything: it counts, under its full name.
    Spiking modules are watched like all others. Compiled graphs and code outside of torch (NumPy, Numba) are not seen.

    Errors: SpikeplugError if `model` is not a torch module.
    """
    if not isinstance(model, nn.Module):
        raise SpikeplugError(f"audit takes a torch module, not a {type(model).__name__}: give it the model.")
    found = Audit()
    with Running(model) as running, _Watch(_adding_to(found, model, running), linear):
        yield found


def executed_in_float(model: nn.Module, inputs: Mapping[str, Any]) -> Audit:
    """Return what `audit(model, linear=True)` finds in one run of the model, our own operators taken on trust.

    So operators run by their kernels, and the run takes no longer than any other.
    """
    found = Audit()
    with torch.no_grad(), Running(model) as running, _Watch(_adding_to(found, model, running), True, False):
        model(**inputs)
    return found


def _adding_to(found: Audit, model: nn.Module, running: Running) -> Callable[[str], None]:
    """Return a function that counts an operation of the running module in `found`, unless a neuron executes it."""
    neurons = neurons_in(model)

    def add(op: str) -> None:
        if id(running.module) not in neurons:
            found.add(running.path, op)

    return add


class _Watch(TorchDispatchMode):
    """Call `report(name)` for every nonlinear operation on floats that torch executes while this mode is active.

    linear: for every other one that can change a number's digits, too; inside our own operators, nonlinear ones only.
    inside: look inside our own operators
    """

    def __init__(self, report: Callable[[str], None], linear: bool = False, inside: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._report, self._linear, self._inside = report, linear, inside

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        namespace, _, name = func.overloadpacket._qualified_op_name.partition("::")
        if namespace == "spikeplug" and name in OPERATORS:
            if not self._inside:
                return func(*args, **kwargs)
            # Our own operators are opaque ops; the audit looks inside them, too. It runs their closed forms, because a
            # kernel dispatches nothing.
            with _Watch(self._report), closed_forms():
                return OPERATORS[name].kernel(*args)
        # Under inference_mode, composite operations are dispatched whole: decompose them, so that their parts are seen
        # under the usual names.
        with self:
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
        result = func(*args, **kwargs)
        operands = (*args, *(value for key, value in kwargs.items() if key != "out"))
        name = _suspect(func, operands) or (_changed_digits(func, operands, result) if self._linear else "")
        if name and any(_is_float(leaf) for leaf in tree_leaves((args, kwargs, result))):
            self._report(name)
        return result


def _suspect(func: Any, operands: tuple[Any, ...]) -> str:
    """Return the name under which to report a call if it is nonlinear, else the empty string.

    func      the operation, as torch dispatches it
    operands  its arguments, except for `out`
    """
    namespace, _, name = func.overloadpacket._qualified_op_name.partition("::")
    if namespace in _TRANSPARENT:
        return ""
    if namespace != "aten":
        return f"{namespace}::{name}"
    name = stem(name)
    if not is_nonlinear(name):
        return ""
    affine = name in _QUOTIENTS and not any(isinstance(leaf, Tensor) for leaf in tree_leaves(operands[1:]))
    linear = name == "linalg_vector_norm" and len(operands) > 1 and operands[1] in _LINEAR_ORDERS
    return "" if affine or linear or _is_exact_scaling(name, operands) else str(name)


def _changed_digits(func: Any, operands: tuple[Any, ...], result: Any) -> str:
    """Return the name of a call that is not nonlinear but can change the digits of floats, else the empty string.

    func      the operation, as torch dispatches it
    operands  its arguments, except for `out`
    result    what it returned
    """
    namespace, _, name = func.overloadpacket._qualified_op_name.partition("::")
    name = stem(name)
    if namespace != "aten" or name in LOSSLESS or _is_exact_scaling(name, operands):
        return ""
    if name == "_to_copy":
        given, kept = (x.dtype for x in (operands[0], result))
        narrowed = given.is_floating_point and kept.is_floating_point and kept.itemsize < given.itemsize
        return str(name) if narrowed else ""
    factors = [leaf for leaf in tree_leaves(operands) if not isinstance(leaf, (Tensor, bool, str, type(None)))]
    if name in ("mul", "div") and factors and (factors[0] == 0 or is_power_of_two(float(factors[0]))):
        return ""
    if name in ("add", "sub") and factors and factors[0] == 0:
        return ""
    return str(name)


def stem(name: str) -> str:
    """Return the name of a torch operation without `_foreach_` (list form) and the underscore at its end (in-place)."""
    name = name.removeprefix("_foreach_")
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def is_nonlinear(name: str) -> bool:
    """Return whether an operation of this name is nonlinear. The name is torch's own, as `stem` gives it."""
    return name in NONLINEAR or any(family in name for family in NONLINEAR_FAMILIES)


def may_hide_anything(namespace: str) -> bool:
    """Return whether operations of a namespace (`mylib` in `mylib::op`) may hide a nonlinearity.

    Not those of ATen and spikeplug, which are known, and of namespaces that only move data.
    """
    return namespace not in _TRANSPARENT | {"aten", "spikeplug"}


def _is_exact_scaling(name: str, operands: tuple[Any, ...]) -> bool:
    """Return whether a call is 2^n (pow) or x·2^n (ldexp) with a tensor n of an integer dtype.

    Such a call only shifts the exponent of a float.

    name      name of the operation
    operands  its arguments
    """
    if name not in ("pow", "ldexp"):
        return False
    base, exponent = operands
    power_of_two = name == "ldexp" or (not isinstance(base, Tensor) and base == 2)
    return power_of_two and isinstance(exponent, Tensor) and not _is_float(exponent)


def _is_float(leaf: object) -> bool:
    return isinstance(leaf, Tensor) and (torch.is_floating_point(leaf) or leaf.is_complex())
