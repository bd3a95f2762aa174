"""Recognise temporal-difference operators, and check the sequences that they are given.

Such an operator takes x_1 ... x_T and returns y_t = f(x_1 + ... + x_t) - f(x_1 + ... + x_(t-1)): it accumulates,
computes f, and takes differences. Only the sum of its outputs, f(x_1 + ... + x_T), reaches a reader that sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from spikeplug.conversion.calls import names_of_class
from spikeplug.errors import SpikeplugError


def is_temporal_difference(module: nn.Module) -> bool:
    """Return whether a module's own code accumulates (cumsum) and takes differences (diff)."""
    return {"cumsum", "diff"} <= names_of_class(type(module))  # type: ignore[arg-type]


def is_quantiser(module: nn.Module) -> bool:
    """Return whether a module's own code rounds and clamps."""
    names = names_of_class(type(module))  # type: ignore[arg-type]
    return not names.isdisjoint({"round", "floor"}) and not names.isdisjoint({"clamp", "clamp_", "clip"})


class Sequences:
    """Check, before each run of a model with temporal-difference operators, how it is run.

    model       the converted model
    operators   its temporal-difference operators
    sum_once    whether each is evaluated once per sequence
    """

    def __init__(self, model: nn.Module, operators: list[nn.Module], sum_once: bool) -> None:
        self.model, self.operators, self.sum_once = model, operators, sum_once

    def check(self, inputs: tuple[Any, ...]) -> None:
        """Raise SpikeplugError if the step mode, the order of dimensions or the state of the model is wrong."""
        modes = {str(module.step_mode) for module in self.operators if hasattr(module, "step_mode")}
        if len(modes) > 1:
            raise SpikeplugError(
                "some temporal-difference operators are in step mode 's' and some in 'm': set one mode for all of the "
                "model (functional.set_step_mode)."
            )
        # A model that says so of itself, or whose operators are evaluated once, needs whole sequences.
        if modes == {"s"} and (self.sum_once or getattr(self.model, "online_inference", True) is False):
            raise SpikeplugError(
                "the model takes whole sequences, but is in step mode 's': set step mode 'm' "
                "(functional.set_step_mode)."
            )
        steps = getattr(self.model, "time_steps", None)
        if modes != {"m"} or not isinstance(steps, int):
            return
        sizes = next((x.shape for x in inputs if isinstance(x, Tensor) and x.is_floating_point()), ())
        if len(sizes) > 1 and sizes[0] != steps == sizes[1]:
            raise SpikeplugError(
                f"the input has its {steps} time steps in dimension 1: give sequences of shape [T, B, ...]."
            )
        if any(isinstance(value, Tensor) for module in self.operators for value in _memories(module)):
            raise SpikeplugError(
                "the model still holds the state of the sequence before: reset it before each sequence "
                "(functional.reset_net)."
            )


def _memories(module: nn.Module) -> Iterator[Any]:
    memories: Any = getattr(module, "memories", None)
    return iter(memories() if callable(memories) else ())
