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
from spikeplug.report.comparison import Change, Comparison

#: Operators with two inputs of one shape.
_PAIRS = frozenset({"divide"})


@dataclass(frozen=True)
class Call:
    """Hold all calls of one operator that have the same width and settings.

    operator    name of the operator
    arguments   of the first of these calls, cut to one row of the chosen token: tensors (1, width). For attention: one
                query of one head, and the keys and values it may attend to
    rows        rows per token, summed over all these calls
    """

    operator: str
    arguments: tuple[Any, ...]
    rows: float

    def cut(self, width: int) -> tuple[Any, ...]:
        """Return the arguments with each row cut to `width` elements, or all of them if the row is shorter.

        Of attention, the last `width` keys and values are kept.
        """
        if self.operator != "attention":
            return tuple(x[..., :width] if isinstance(x, Tensor) else x for x in self.arguments)
        query, key, value, *rest = self.arguments
        return (query, key[:, :, -width:], value[:, :, -width:], *rest)

    @property
    def available(self) -> int:
        """Return the number of elements in the kept row; of attention, the number of keys."""
        first: Tensor = self.arguments[1 if self.operator == "attention" else 0]
        return first.shape[-2 if self.operator == "attention" else -1]


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
def calls(comparison: Comparison, token: int) -> tuple[Call, ...]:
    """Return every kind of call that the converted model makes on the first window, with the row of one token."""
    found: dict[tuple[Any, ...], Call] = {}
    tokens = comparison.settings.context

    def observe(name: str, arguments: tuple[Any, ...], _: Tensor) -> None:
        call = (_attention if name == "attention" else _rows)(name, arguments, token, tokens)
        plain = tuple(x for x in call.arguments if not isinstance(x, Tensor))
        key = (name, call.available, plain)
        found[key] = replace(found[key], rows=found[key].rows + call.rows) if key in found else call

    with comparison.converted(Change(comparison.numerics)), Watch(observe):
        comparison.model(input_ids=comparison.windows[:1], use_cache=False)
    return tuple(found.values())


def _rows(name: str, arguments: tuple[Any, ...], token: int, tokens: int) -> Call:
    tensors = [x for x in arguments if isinstance(x, Tensor)]
    if name in _PAIRS:
        tensors = list(torch.broadcast_tensors(*tensors))
    dim = arguments[1] if name in ("softmax", "log_softmax", "vector_norm") else -1
    tensors = [x.movedim(dim, -1) if x.dim() else x.reshape(1) for x in tensors]
    width = tensors[0].shape[-1]
    flat = [x.reshape(-1, width) for x in tensors]
    count = flat[0].shape[0]
    # Rows run over tokens, and over heads or rotary frequencies too: take the one at the token's place.
    place = min(count - 1, token * count // tokens)
    kept = iter([x[place : place + 1].clone() for x in flat])
    rest = tuple(next(kept) if isinstance(x, Tensor) else x for x in arguments)
    if dim != -1:
        rest = (rest[0], -1, *rest[2:])
    return Call(name, rest, count / tokens)


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
