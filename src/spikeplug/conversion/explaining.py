"""Explain which kernel runs each operator of a converted model, or why its closed form does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from spikeplug.conversion.report import fold_layers, grouped
from spikeplug.conversion.simulation import is_spiking
from spikeplug.conversion.tracking import Running
from spikeplug.errors import SpikeplugError
from spikeplug.kernels import Call
from spikeplug.kernels.registry import reported_to

CLOSED_FORM = "closed form"


@dataclass(frozen=True)
class ExplainedEntry:
    """Count the executions of one operator in one module that ran the same way: same device, dtype, kernel and reason.

    path      module path in the model; empty for the model itself; children of the module have their own entries
    operator  name of the spiking operator
    device    of the operator's first argument, such as "cpu" or "cuda:0"
    dtype     of the operator's first argument, such as "float32"
    kernel    name of the kernel that ran, or "closed form" if none did
    reason    why no kernel ran; empty if one did
    calls     number of executions
    """

    path: str
    operator: str
    device: str
    dtype: str
    kernel: str
    reason: str
    calls: int


@dataclass(frozen=True)
class Explanation:
    """Hold the operators that one run of a model executed, in order of first execution."""

    entries: tuple[ExplainedEntry, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {"entries": [asdict(entry) for entry in self.entries]}

    def table(self) -> Table:
        """Return a Rich table with one row per operator, device, dtype, kernel and reason; layer numbers become `*`."""
        table = Table(
            "operator", "where", "input", "runs", "why not a kernel", title="kernels of the spiking operators"
        )
        table.add_column("calls", justify="right")
        for (operator, given, kernel, reason), members in grouped(self.entries, _row).items():
            where = fold_layers(Counter(entry.path for entry in members))
            table.add_row(operator, where, given, kernel, reason, str(sum(entry.calls for entry in members)))
        return table

    def __str__(self) -> str:
        calls: Counter[str] = Counter()
        for entry in self.entries:
            calls[entry.kernel + (f" ({entry.reason})" if entry.reason else "")] += entry.calls
        return ", ".join(f"{count} {name}" for name, count in calls.items()) or "no spiking operator executed"


def explain(model: nn.Module, inputs: Mapping[str, Any] | tuple[Any, ...] | Tensor) -> Explanation:
    """Run a converted model once, without gradients, and return which kernel ran each of its operators, or why none.

    inputs: keyword arguments as a mapping, positional ones as a tuple, or one tensor.
    Raises SpikeplugError if `model` is not a torch module or has no spiking operator, or for other inputs.
    """
    if not isinstance(model, nn.Module):
        raise SpikeplugError(f"explain takes a torch module, not a {type(model).__name__}: give it a converted model.")
    if not any(is_spiking(module) for module in model.modules()):
        raise SpikeplugError(f"{type(model).__name__} is not converted: call spikeplug.convert(model) first.")
    positional, named = _arguments(inputs)
    calls: Counter[tuple[str, str, str, str, str, str]] = Counter()
    with Running(model) as running:

        def count(call: Call, kernel: str, reason: str) -> None:
            x = call.arguments[0]
            dtype = str(x.dtype).removeprefix("torch.")
            calls[running.path, call.operator, str(x.device), dtype, kernel or CLOSED_FORM, reason] += 1

        with torch.no_grad(), reported_to(count):
            model(*positional, **named)
    return Explanation(tuple(ExplainedEntry(*place, number) for place, number in calls.items()))


def _arguments(inputs: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    if isinstance(inputs, tuple):
        return inputs, {}
    if isinstance(inputs, Mapping) and all(isinstance(name, str) for name in inputs):
        return (), dict(inputs)
    raise SpikeplugError(
        f"explain takes a model's inputs as a mapping of keyword arguments, a tuple or a tensor, not a "
        f"{type(inputs).__name__}: give, for example, {{'input_ids': ids}}."
    )


def _row(entry: ExplainedEntry) -> tuple[str, ...]:
    return entry.operator, f"{entry.dtype} on {entry.device}", entry.kernel, entry.reason
