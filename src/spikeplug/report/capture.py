"""Capture real inputs of a model's spiking operators: one row per kind of call, and how many rows there are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from spikeplug.library import OPERATORS
from spikeplug.operators.attention.call import visible_keys
from spikeplug.report.arms import Change
from spikeplug.report.comparison import Comparison

#: Operators with two inputs that broadcast to one shape.
_PAIRS = frozenset({"divide", "add", "multiply"})
#: Operators whose second argument is the dimension that they run along.
_ALONG = frozenset({"softmax", "log_softmax", "vector_norm", "sum"})
#: Operators of one input, with the place of their block and their rotation among the arguments.
_IN_BLOCKS = {"linear": (6, 7), "quantise": (2, 3)}


@dataclass(frozen=True)
class Call:
    """Hold all calls of one operator that have the same width and settings.

    operator    name of the operator
    arguments   of the first of these calls, cut to one row of the chosen token: tensors (1, width). For attention: one
                query of one head, and the keys and values it may attend to. For a linear layer and a matrix product:
                one input, and the whole weight or matrix
    rows        rows per token, summed over all these calls
    """

    operator: str
    arguments: tuple[Any, ...]
    rows: float

    def cut(self, width: int, outputs: int | None = None) -> tuple[Any, ...]:
        """Return the arguments with each row cut to `elements(width)` elements; of attention, the last keys and values.

        outputs   of a linear layer or a matrix product, how many are kept; None: all
        """
        width = self.elements(width)
        if self.operator == "attention":
            query, key, value, *rest = self.arguments
            return (query, key[:, :, -width:], value[:, :, -width:], *rest)
        if self.operator == "linear":
            x, weight, threshold, unit, bias, *how = self.arguments
            bias = None if bias is None else bias[:outputs]
            return (x[..., :width], weight[:outputs, :width], threshold[:outputs], unit, bias, *how)
        if self.operator == "matmul":
            a, b = self.arguments
            return (a[..., :width], b[:width, :outputs])
        if self.operator == "rotary":
            position, frequency, quarters = self.arguments
            return (position, frequency[:width], quarters)
        return tuple(x[..., :width] if isinstance(x, Tensor) else x for x in self.arguments)

    @property
    def available(self) -> int:
        """Return the number of elements in the kept row; of attention, the number of keys."""
        if self.operator == "rotary":
            return int(self.arguments[1].shape[-1])
        first: Tensor = self.arguments[1 if self.operator == "attention" else 0]
        return first.shape[-2 if self.operator == "attention" else -1]

    def elements(self, width: int) -> int:
        """Return how many elements of a row are kept where `width` are wanted, or all of them if there are no more.

        More than `width` where a block of channels shares a step or is rotated together: a row is cut between blocks.
        """
        block = math.lcm(*(self.arguments[place] or 1 for place in _IN_BLOCKS.get(self.operator, ())))
        return min(-(-width // block) * block, self.available)

    @property
    def outputs(self) -> int:
        """Return the outputs of a linear layer or a matrix product; 0 for other operators."""
        if self.operator not in ("linear", "matmul"):
            return 0
        matrix: Tensor = self.arguments[1]
        return matrix.shape[0 if self.operator == "linear" else -1]


class Watch(TorchDispatchMode):
    """Call `observe(operator, arguments, output)` for every call of a spiking operator within the block.

    operator is its name. The numerics, its last argument, are left out of `arguments`.
    """

    def __init__(self, observe: Callable[[str, tuple[Any, ...], Tensor], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._observe = observe

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = function(*args, **(kwargs or {}))
        if function.namespace == "spikeplug" and (name := function.name().split("::")[1].split(".")[0]) in OPERATORS:
            # Else the model's own scope would redirect what the observer computes to spiking operators.
            with torch._C.DisableTorchFunction():
                self._observe(name, args[:-1], output)
        return output


@torch.inference_mode()
def calls(comparison: Comparison, token: int, change: Change | None = None) -> tuple[Call, ...]:
    """Return every kind of call that the spiking model makes on the first window, with the row of one token.

    change: the spiking form; None: that of the run
    """
    found: dict[tuple[Any, ...], Call] = {}
    tokens = comparison.settings.context

    def observe(name: str, arguments: tuple[Any, ...], _: Tensor) -> None:
        call = _KINDS.get(name, _rows)(name, arguments, token, tokens)
        plain = tuple(x for x in call.arguments if not isinstance(x, Tensor))
        key = (name, call.available, call.outputs, plain)
        found[key] = replace(found[key], rows=found[key].rows + call.rows) if key in found else call

    with comparison.converted(change or Change(comparison.numerics)) as model, Watch(observe):
        model(input_ids=comparison.windows[:1], use_cache=False)
    return tuple(found.values())


def _rows(name: str, arguments: tuple[Any, ...], token: int, tokens: int) -> Call:
    tensors = [x for x in arguments if isinstance(x, Tensor)]
    if name in _PAIRS:
        tensors = list(torch.broadcast_tensors(*tensors))
    dim = arguments[1] if name in _ALONG else -1
    tensors = [x.movedim(dim, -1) if x.dim() else x.reshape(1) for x in tensors]
    width = tensors[0].shape[-1]
    flat = [x.reshape(-1, width) for x in tensors]
    count = flat[0].shape[0]
    place = _place(count, token, tokens)
    kept = iter([x[place : place + 1].clone() for x in flat])
    rest = tuple(next(kept) if isinstance(x, Tensor) else x for x in arguments)
    if dim != -1:
        rest = (rest[0], -1, *rest[2:])
    return Call(name, rest, count / tokens)


def _place(count: int, token: int, tokens: int) -> int:
    """Return which of `count` rows is the token's: they run over tokens, and over heads or frequencies too."""
    return min(count - 1, token * count // tokens)


def _linear(name: str, arguments: tuple[Any, ...], token: int, tokens: int) -> Call:
    x, *rest = arguments
    rows = x.reshape(-1, x.shape[-1])
    place = _place(len(rows), token, tokens)
    return Call(name, (rows[place : place + 1].clone(), *rest), len(rows) / tokens)


def _matmul(name: str, arguments: tuple[Any, ...], token: int, tokens: int) -> Call:
    a, b = arguments
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    rows = a.broadcast_to((*batch, *a.shape[-2:])).reshape(-1, a.shape[-1])
    place = _place(len(rows), token, tokens)
    matrices = b.broadcast_to((*batch, *b.shape[-2:]))
    matrix = matrices[torch.unravel_index(torch.tensor(place // a.shape[-2]), batch)] if batch else b
    return Call(name, (rows[place : place + 1].clone(), matrix.clone()), len(rows) / tokens)


def _rotary(name: str, arguments: tuple[Any, ...], token: int, tokens: int) -> Call:
    position, frequency, quarters = arguments
    flat = position.reshape(-1)
    place = _place(len(flat), token, tokens)
    return Call(name, (flat[place : place + 1].clone(), frequency, quarters), len(flat) / tokens)


def _attention(name: str, arguments: tuple[Any, ...], token: int, tokens: int) -> Call:
    query, key, value, mask, scaling, softcap, sinks = arguments
    token = min(token, query.shape[2] - 1)
    visible = torch.ones(key.shape[2], dtype=torch.bool, device=key.device)
    if mask is not None:
        mask = visible_keys(mask, key.shape[2])
        seen = mask if mask.dtype == torch.bool else mask > -1e4
        seen = seen.expand(*seen.shape[:2], query.shape[2], key.shape[2])
        visible = seen[0, 0, token]
    small = (
        query[:1, :1, token : token + 1].clone(),
        key[:1, :1, visible].clone(),
        value[:1, :1, visible].clone(),
        None,
        scaling,
        softcap,
        None if sinks is None else sinks[:1].clone(),
    )
    return Call(name, small, math.prod(query.shape[:3]) / tokens)


#: How the row of one token is taken, for operators whose inputs are not rows of one width.
_KINDS: dict[str, Callable[[str, tuple[Any, ...], int, int], Call]] = {
    "attention": _attention,
    "linear": _linear,
    "matmul": _matmul,
    "rotary": _rotary,
}
