"""Define what the registry and every kernel agree on: a call, and what a kernel does with it."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from spikeplug.numerics import Numerics

#: The inputs of a kernel. Anything else (float64) is left to the closed form.
DTYPES = frozenset({torch.float32, torch.bfloat16, torch.float16})
#: What an argument may be besides: masks are bool or count keys.
TAKEN = DTYPES | {torch.bool, torch.int64}
#: What an argument of a linear operator may be besides: weights and thresholds.
INTEGERS = frozenset({torch.int8, torch.int32})
#: Operators that take keys and values in bytes, see `codes.pack`.
PACKED = frozenset({"attention", "attention_weights"})
#: Types of arguments that are no tensors. To ask whether a value is a tensor takes as long as five look-ups.
VALUES = frozenset({int, float, bool, str, type(None)})
#: Tensors that are not a subclass with a meaning of its own.
PLAIN = frozenset({Tensor, torch.nn.Parameter})
#: What a kernel returns as rare rows to leave the whole call.
EVERY_ROW = torch.ones((), dtype=torch.bool, device="cpu")

#: The refusal of a kernel that gives the decoded result as it is.
NO_AFFINE = "this kernel applies no weight or bias"


def with_settings(given: tuple[Any, ...], settings: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the settings of a call: those that are given, and after them the operator's own."""
    return given if len(given) == len(settings) else given + settings[len(given) :]


class Call(NamedTuple):
    """Hold one call of an operator: its arguments, its numerics, and a weight and bias for its result.

    operator      name of the operator, such as "softmax"
    arguments     the arguments as the operator's torch op takes them, the input tensor first
    weight, bias  the decoded result is multiplied by `weight`, then `bias` is added; both broadcast to it
    """

    operator: str
    arguments: tuple[Any, ...]
    numerics: Numerics
    weight: Tensor | None = None
    bias: Tensor | None = None

    def rows(self, chosen: Tensor) -> Call:
        """Return the call over some rows only, in order of the rows.

        chosen: bool, in the shape of the first argument's leading dimensions; True keeps a row. A tensor is cut if it
        has as many dimensions as the first argument and its shape begins with that of `chosen`. Others stay as they
        are, since all rows share them.
        """
        dimensions, shape = self.arguments[0].dim(), chosen.shape

        def cut(x: Any) -> Any:
            if isinstance(x, Tensor) and x.dim() == dimensions and x.shape[: len(shape)] == shape:
                return x[chosen]
            return x

        arguments = tuple(cut(x) for x in self.arguments)
        return Call(self.operator, arguments, self.numerics, cut(self.weight), cut(self.bias))


class Kernel(Protocol):
    """A fast form of an operator on one type of device, equal to the closed form bit for bit."""

    def supports(self, call: Call) -> str | None:
        """Return None if the kernel can run the call, else the reason why not, as a phrase shown to users.

        The caller, `registry.choose`, also checks what all kernels share: the numerics, devices and dtypes.
        """

    def run(self, call: Call) -> tuple[Tensor, Tensor | None]:
        """Return (result, rare): the operator's result, and the rows of it that the kernel did not compute.

        rare: None if every row was computed; else bool, in the shape of the first argument's leading dimensions (any
        number of them), True where the closed form must compute the rows. `EVERY_ROW` (one True) leaves the whole call.
        Saturations in a row that is left have not been counted yet.
        Errors: SpikeplugError for arguments that the operator refuses, in the operator's words.
        """
