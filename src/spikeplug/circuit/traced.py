"""Trace integers through moves and wirings of torch: a tensor whose elements are signals of a circuit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from spikeplug.circuit.builder import Builder, StageBuilder
from spikeplug.circuit.graph import Wiring
from spikeplug.errors import SpikeplugError

aten = torch.ops.aten

#: Ops that only move elements; they move signals likewise.
_MOVES = frozenset(
    {
        aten.alias.default,
        aten.cat.default,
        aten.clone.default,
        aten.detach.default,
        aten.expand.default,
        aten.gather.default,
        aten.index.Tensor,
        aten.index_select.default,
        aten.permute.default,
        aten.repeat.default,
        aten.select.int,
        aten.slice.Tensor,
        aten.split.Tensor,
        aten.split_with_sizes.default,
        aten.squeeze.default,
        aten.squeeze.dim,
        aten.stack.default,
        aten.t.default,
        aten.transpose.int,
        aten.unbind.int,
        aten.unsqueeze.default,
        aten.view.default,
        aten._unsafe_view.default,
        aten._reshape_alias.default,
    }
)
#: Ops whose result depends on shape and dtype alone.
_FACTORIES = frozenset(
    {
        aten.empty_like.default,
        aten.full_like.default,
        aten.new_full.default,
        aten.new_zeros.default,
        aten.ones_like.default,
        aten.zeros_like.default,
    }
)
#: Comparisons outside of the neurons. Only the ledger of saturations makes them, and no signal comes from them.
_COMPARISONS = frozenset(
    getattr(aten, name)
    for name in ("eq", "ge", "gt", "le", "lt", "ne", "bitwise_and", "bitwise_or", "logical_and", "logical_or")
)
_NONE = -1


class Traced(Tensor):
    """Integers that a circuit computes. `signals` holds the number of each one's signal, int64, in the same shape."""

    signals: Tensor
    builder: Builder

    @staticmethod
    def __new__(cls, signals: Tensor, builder: Builder, dtype: torch.dtype) -> Traced:
        made: Traced = torch.Tensor._make_wrapper_subclass(cls, signals.shape, dtype=dtype)
        made.signals, made.builder = signals, builder
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Traced({self.signals.tolist()}, dtype={self.dtype})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, op: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Move or rewire signals as `op` would move or change integers. Errors: SpikeplugError for any other op."""
        kwargs = kwargs or {}
        traced = next(x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Traced))
        builder = traced.builder
        if op in _FACTORIES:
            shape = torch.empty(traced.shape, dtype=traced.dtype)
            return op(shape, *args[1:], **{k: v for k, v in kwargs.items() if k != "device"})
        if op is aten._to_copy.default:
            return Traced(traced.signals.clone(), builder, kwargs.get("dtype") or traced.dtype)
        if op is aten.constant_pad_nd.default:
            value = int(args[2]) if len(args) > 2 else 0
            return Traced(op(traced.signals, args[1], builder.constant(value)), builder, traced.dtype)
        if op in _MOVES:
            moved = op(*tree_map(lambda x: _numbers(x, op, builder), args), **kwargs)
            dtype = _dtype(args)
            return tree_map(lambda x: Traced(x, builder, dtype) if isinstance(x, Tensor) else x, moved)
        if op.overloadpacket in _COMPARISONS and not _masks(op, args):
            shape = torch.broadcast_shapes(*(x.shape for x in args if isinstance(x, Tensor)))
            return Traced(torch.full(shape, _NONE), builder, torch.bool)
        wiring = _wiring(op, args)
        if wiring is None:
            raise SpikeplugError(
                f"{builder.name} has no circuit form: it computes {op} between its neurons, on integers that they hold."
            )
        return _wired(traced, *wiring, dtype=_dtype(args))


def _masks(op: Any, args: Any) -> bool:
    """Return whether an op takes some bits of signals: a wiring."""
    return bool(op.overloadpacket is aten.bitwise_and and args[0].dtype != torch.bool)


def _dtype(args: Any) -> torch.dtype:
    found = [x.dtype for x in tree_flatten(args)[0] if isinstance(x, Traced)]
    dtype = found[0]
    for other in found[1:]:
        dtype = torch.promote_types(dtype, other)
    return dtype


def _numbers(x: Any, op: Any, builder: Builder) -> Any:
    """Return the numbers of signals in place of traced integers; of constants in place of others that join them."""
    if isinstance(x, Traced):
        return x.signals
    if isinstance(x, Tensor) and op in (aten.cat.default, aten.stack.default):
        return numbers_of(x, builder)
    return x


def numbers_of(x: Tensor | int, builder: Builder) -> Tensor:
    """Return the numbers of the signals of x, int64, in its shape: its own if it is traced, else those of constants."""
    if isinstance(x, Traced):
        return x.signals
    plain = torch.as_tensor(x)
    flat = [builder.constant(int(value)) for value in plain.flatten().tolist()]
    return torch.tensor(flat, dtype=torch.int64).view(plain.shape)


def _wiring(op: Any, args: Any) -> tuple[Tensor | int, Callable[[int], Wiring]] | None:
    """Return the constant operand and a function from it to the wiring (of signal 0); None if the op is no wiring."""
    packet = op.overloadpacket
    if packet is aten.neg:
        return 0, lambda _: Wiring(0, sign=-1)
    if len(args) < 2 or (isinstance(args[0], Traced) and isinstance(args[1], Traced)):
        return None
    first, constant = isinstance(args[0], Traced), args[1] if isinstance(args[0], Traced) else args[0]
    if isinstance(constant, float) or (isinstance(constant, Tensor) and constant.dtype.is_floating_point):
        return None
    forms: dict[Any, Callable[[int], Wiring]] = {
        aten.add: lambda c: Wiring(0, offset=c),
        aten.sub: (lambda c: Wiring(0, offset=-c)) if first else (lambda c: Wiring(0, sign=-1, offset=c)),
        aten.rsub: lambda c: Wiring(0, sign=-1, offset=c),
        aten.bitwise_and: lambda c: Wiring(0, mask=c),
        **(
            {packet: (lambda c: Wiring(0, places=-c)) for packet in (aten.bitwise_left_shift, aten.__lshift__)}
            | {packet: (lambda c: Wiring(0, places=c)) for packet in (aten.bitwise_right_shift, aten.__rshift__)}
            if first
            else {}
        ),
    }
    form = forms.get(packet)
    return None if form is None else (constant, form)


def _wired(x: Traced, constant: Tensor | int, form: Callable[[int], Wiring], dtype: torch.dtype) -> Traced:
    numbers, constants = torch.broadcast_tensors(x.signals, torch.as_tensor(constant))
    flat = [
        x.builder.wire(number, form(value))
        for number, value in zip(numbers.flatten().tolist(), constants.flatten().tolist(), strict=True)
    ]
    if isinstance(constant, Tensor):
        dtype = torch.promote_types(dtype, constant.dtype)
    return Traced(torch.tensor(flat, dtype=torch.int64).view(numbers.shape), x.builder, dtype)


@dataclass(frozen=True)
class Place:
    """Name the populations of one verb in a circuit, as `neurons.Scope` does in a simulation."""

    builder: Builder
    name: str

    def __truediv__(self, part: str) -> Place:
        return Place(self.builder, f"{self.name}/{part}")

    def stage(self) -> StageBuilder:
        """Return a new stage with this name."""
        return StageBuilder(self.builder, self.name)

    def each(self, build: Callable[..., int], *operands: Tensor | int, dtype: torch.dtype = torch.int64) -> Traced:
        """Return, for each element of the operands, which broadcast, the signal build(stage, *signals)."""
        numbers = torch.broadcast_tensors(*(numbers_of(x, self.builder) for x in operands))
        flat = [build(self.stage(), *row) for row in zip(*(x.flatten().tolist() for x in numbers), strict=True)]
        return Traced(torch.tensor(flat, dtype=torch.int64).view(numbers[0].shape), self.builder, dtype)

    def rows(self, build: Callable[[StageBuilder, list[int]], int], x: Tensor, *, dtype: torch.dtype) -> Traced:
        """Return, for each row along the last dimension, the signal build(stage, signals); (..., d) gives (..., 1)."""
        numbers = numbers_of(x, self.builder)
        flat = [build(self.stage(), row) for row in numbers.reshape(-1, numbers.shape[-1]).tolist()]
        return Traced(torch.tensor(flat, dtype=torch.int64).view(*numbers.shape[:-1], 1), self.builder, dtype)

    def bounds(self, number: int) -> tuple[int, int]:
        """Return the bounds of a signal."""
        return self.builder.bounds(number)
