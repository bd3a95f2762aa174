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
#: Tensors that are not a subclass with a meaning of its own.
PLAIN = frozenset({Tensor, torch.nn.Parameter})
#: What a kernel returns as rare rows to leave the whole call.
EVERY_ROW = torch.ones((), dtype=torch.bool, device="cpu")

#: The refusal of a kernel that gives the decoded result as it is.
NO_AFFINE = "this kernel applies no weight or bias"


class Call(NamedTuple):
    """One call of an operator: `arguments` as its torch op takes them, and what is applied to the decoded result.

    weight, bias: the result is multiplied by `weight`, then `bias` is added; both broadcast to it.
    """

    operator: str
    arguments: tuple[Any, ...]
    numerics: Numerics
    weight: Tensor | None = None
    bias: Tensor | None = None

    def rows(self, chosen: Tensor) -> Call:
        """Return the call over some rows only, in order of the rows.

        chosen: bool, in the shape of the first argument's leading dimensions. Every tensor of as many dimensions as the
        first argument that begins with this shape is cut; what the rows share stays as it is.
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
        """Return None if the kernel can run the call, else the reason why not, for users.

        The registry has checked before what all kernels share: `registry.choose`.
        """

    def run(self, call: Call) -> tuple[Tensor, Tensor | None]:
        """Return the result and the rare rows that it lacks: None, or a bool tensor as `Call.rows` takes it.

        A row that is left has not been counted in the ledger of saturations. `EVERY_ROW` leaves the whole call.
        Raises SpikeplugError for arguments that the operator refuses, in the operator's words.
        """
