"""Give operators the rules of torch's transforms: forward mode, torch.func's gradients, and batching by vmap.

A torch op that a library defines has a gradient but none of these. So where a transform or a dual level is active,
it runs through an autograd function, whose derivative is that of the exact function at the operator's own inputs:
straight through the integers, forwards as backwards.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import retrieve_current_functorch_interpreter
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from spikeplug.errors import SpikeplugError

#: Stands in the saved arguments where a tensor was.
_TENSOR = object()


def has_duals() -> bool:
    """Return whether code runs inside `torch.autograd.forward_ad.dual_level()` and no torch.func transform."""
    return forward_ad._current_level >= 0 and torch._C._functorch.peek_interpreter_stack() is None


def run(name: str, exact: Callable[..., Tensor], given: tuple[Any, ...]) -> Tensor:
    """Run the torch op `name` under the innermost transform of torch.func; given: its arguments, then `Numerics.token`.

    Without this rule, torch drops the tangents of an op that has only a gradient, and says nothing.
    """
    if torch._C._functorch.peek_interpreter_stack().key() == torch._C._functorch.TransformType.Functionalize:
        return _functional(name, given)
    return apply(name, exact, given)


def apply(name: str, exact: Callable[..., Tensor], given: tuple[Any, ...]) -> Tensor:
    """Run the torch op `name` so that forward mode, torch.func and vmap work; exact gives the derivatives.

    given: the arguments of the op, then the numerics as a string (`Numerics.token`).
    """
    *arguments, token = given
    result: Tensor = Differentiable.apply(name, exact, token, *arguments)  # type: ignore[no-untyped-call]
    return result


def _functional(name: str, given: tuple[Any, ...]) -> Tensor:
    """Run the torch op `name` under torch.func.functionalize: on the unwrapped tensors; the result is wrapped again."""
    functorch = torch._C._functorch
    plain = [
        functorch._unwrap_functional_tensor(x, True)
        if isinstance(x, Tensor) and functorch.is_functionaltensor(x)
        else x
        for x in given
    ]
    level = functorch.peek_interpreter_stack().level()
    with retrieve_current_functorch_interpreter().lower():
        output = getattr(torch.ops.spikeplug, name)(*plain)
    result: Tensor = functorch._wrap_functional_tensor(output, level)
    return result


class Differentiable(torch.autograd.Function):
    """Run a spiking operator so that torch can differentiate and batch it: apply(name, exact, token, *arguments).

    name: the operator's. exact: the float function of the arguments, whose derivative it takes.
    token: the numerics as a string, `Numerics.token`. Returns the output tensor.
    """

    @staticmethod
    def forward(name: str, exact: Callable[..., Tensor], token: str, *arguments: Any) -> Tensor:
        op = getattr(torch.ops.spikeplug, name)
        with torch._C._AutoDispatchBelowAutograd() if has_duals() else nullcontext():
            result: Tensor = op(*arguments, token)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, exact, _, *arguments = inputs
        ctx.exact = exact
        ctx.given = tuple(_TENSOR if _is_differentiable(x) else x for x in arguments)
        tensors = [x for x in arguments if _is_differentiable(x)]
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        exact, tensors = _of_tensors(ctx)
        output, pull_back = _vjp(exact, *tensors)
        return (None, None, None, *_in_place(ctx, pull_back(gradient.to(output.dtype))))

    @staticmethod
    def jvp(ctx: Any, _name: Any, _exact: Any, _token: Any, *tangents: Any) -> Tensor:
        if has_duals() and get_proxy_mode() is not None:
            # torch folds constants of such a graph into leaves, and then fails at the operations in place on them.
            raise SpikeplugError(
                "torch.func.linearize cannot record the derivative of a spiking operator: use torch.func.jvp, which "
                "computes it."
            )
        exact, tensors = _of_tensors(ctx)
        directions = [
            torch.zeros_like(x) if tangent is None else tangent
            for x, tangent in zip(tensors, _kept(ctx, tangents), strict=True)
        ]
        # The transpose of the transpose: forward mode cannot be entered twice, reverse mode can.
        output, pull_back = _vjp(exact, *tensors)
        _, push_forward = _vjp(pull_back, torch.zeros_like(output))
        result: Tensor = push_forward(tuple(directions))[0]
        return result

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], name: str, exact: Callable[..., Tensor], token: str, *arguments: Any
    ) -> tuple[Tensor, int]:
        """Run the whole batch at once: one more leading dimension, which no operator's vectors reach into."""
        size, batched = info.batch_size, [dim is not None for dim in in_dims[3:]]
        front = [x if dim is None else x.movedim(dim, 0) for x, dim in zip(arguments, in_dims[3:], strict=True)]

        def whole(*given: Any) -> Tensor:
            return apply(name, exact, (*given, token))

        if name.startswith("attention"):
            if batched[-1]:  # sinks belong to heads, which a batch does not extend: sample by sample
                samples = ((x[i] if b else x for x, b in zip(front, batched, strict=True)) for i in range(size))
                return torch.stack([whole(*sample) for sample in samples]), 0
            entries = front[0].shape[batched[0]]
            joined = [_joined(x, b, size, entries) for x, b in zip(front, batched, strict=True)]
            return whole(*joined).unflatten(0, (size, entries)), 0
        rank = max(x.dim() - b for x, b in zip(front, batched, strict=True) if isinstance(x, Tensor))
        aligned = [_aligned(x, b, max(rank, 1)) for x, b in zip(front, batched, strict=True)]
        # A dimension that is counted from the first one lies one further.
        given = (x + 1 if type(x) is int and x >= 0 else x for x in aligned)
        output = whole(*given)
        return (output if rank else output.reshape(size)), 0


def _vjp(function: Callable[..., Any], *primals: Tensor) -> tuple[Any, Callable[..., tuple[Tensor, ...]]]:
    """Return function(*primals), and its vector-Jacobian product."""
    # The exact function must stay exact where a converted model's own function mode is active.
    with torch._C.DisableTorchFunction():
        output, pull_back = torch.func.vjp(function, *primals)[:2]
    return output, pull_back


def _is_differentiable(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


def _of_tensors(ctx: Any) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """Return the exact function with every other argument filled in, and the float tensors that it still takes."""
    given, whole = ctx.given, ctx.exact

    def exact(*tensors: Tensor) -> Tensor:
        rest = iter(tensors)
        result: Tensor = whole(*(next(rest) if x is _TENSOR else x for x in given))
        return result

    return exact, ctx.saved_tensors


def _in_place(ctx: Any, values: tuple[Tensor, ...]) -> list[Tensor | None]:
    """Return a list with an entry per argument: the next of `values` for a float tensor, None for any other."""
    rest = iter(values)
    return [next(rest) if x is _TENSOR else None for x in ctx.given]


def _kept(ctx: Any, values: tuple[Any, ...]) -> list[Any]:
    """Return those of `values`, one per argument, whose argument is a float tensor."""
    return [value for value, given in zip(values, ctx.given, strict=True) if given is _TENSOR]


def _joined(x: Any, batched: bool, size: int, entries: int) -> Any:
    """Return an argument of attention with vmap's samples joined to its batch dimension; sinks stay as they are.

    batched: whether x has the samples as its first dimension. size: the number of samples.
    entries: the size of the batch dimension.
    """
    if not isinstance(x, Tensor) or x.dim() - batched == 1:
        return x
    x = x if batched else x.unsqueeze(0)
    x = x.reshape(x.shape[0], *[1] * (5 - x.dim()), *x.shape[1:])
    return x.expand(size, entries, *x.shape[2:]).flatten(0, 1)


def _aligned(x: Any, batched: bool, rank: int) -> Any:
    """Return x with `rank` dimensions after vmap's batch dimension, so that arguments broadcast as single samples do.

    batched: whether x has the batch dimension in front. What is no tensor is returned as it is.
    """
    if not isinstance(x, Tensor):
        return x
    x = x if batched else x.unsqueeze(0)
    return x.reshape(x.shape[0], *[1] * (rank + 1 - x.dim()), *x.shape[1:])
