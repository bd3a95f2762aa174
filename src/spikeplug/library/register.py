"""One opaque torch op per operator, `torch.ops.spikeplug.<name>`, with fake and autograd rules.

Opaque, so that torch.compile, torch.export and whatever watches dispatched ops see one integer operator, not the
hundreds of integer verbs it is made of. The numerics travels as a string, which every graph can hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spikeplug import kernels
from spikeplug.codes import affine, as_real
from spikeplug.library.counting import counters
from spikeplug.library.direct import may_go_direct
from spikeplug.library.transforms import Differentiable, is_transformed
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.presets import as_numerics

_library = torch.library.Library("spikeplug", "FRAGMENT")


@dataclass(frozen=True)
class Operator:
    """An operator and the float function it stands for.

    name        of the torch op and of the public function
    arguments   the op's schema, without the numerics: "Tensor x, int dim"
    spiking     (*arguments, numerics=..., events=...) -> Tensor
    exact       (*arguments) -> Tensor: gives the output's shape and dtype, and the straight-through gradient
    """

    name: str
    arguments: str
    spiking: Callable[..., Tensor]
    exact: Callable[..., Tensor]

    def __call__(
        self,
        *arguments: Any,
        numerics: Numerics | None = None,
        events: Events | None = None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """Run the torch op, or what it would run; with `events`, simulate neuron by neuron instead (no gradient).

        The decoded result times `weight`, plus `bias`, which broadcast to it; a kernel may do so on its way out.
        """
        numerics = as_numerics(numerics)
        if events is None and may_go_direct((*arguments, weight, bias)):
            after = {name: value for name, value in (("weight", weight), ("bias", bias)) if value is not None}
            return self._run(arguments, numerics, after)
        as_real(arguments[0], self.name)
        if events is not None:
            return affine(self.spiking(*arguments, numerics=numerics, events=events), weight, bias)
        if not torch.compiler.is_compiling() and is_transformed():
            result: Tensor = Differentiable.apply(self.name, self.exact, numerics.token, *arguments)
        else:
            result = getattr(torch.ops.spikeplug, self.name)(*arguments, numerics.token)
        return affine(result, weight, bias)

    def kernel(self, *arguments: Any) -> Tensor:
        """What the torch op runs: `arguments`, then the numerics's token. Its strides are the fake rule's."""
        output = self._run(arguments[:-1], Numerics.from_token(arguments[-1]), {})
        return output if _has_plain_strides(output) else output.contiguous().flatten().view(output.shape)

    def _run(self, given: tuple[Any, ...], numerics: Numerics, after: dict[str, Tensor]) -> Tensor:
        """The kernel there is, or the closed form: a new tensor, of any strides."""
        # Function modes of whoever calls (such as a converted model's own) must not reach into the operator.
        with torch._C.DisableTorchFunction():
            as_real(given[0], self.name)
            heard, output = counters(), None
            if not heard and (kernel := kernels.find(self.name, (*given, *after.values()), numerics)) is not None:
                output = kernel(*given, numerics=numerics, **after)
            if output is None:
                events = Events()
                output = affine(self.spiking(*given, numerics=numerics, events=events if heard else None), **after)
                for counter in heard:
                    counter.add(self.name, events)
            # An op's output may not be its input.
            return output.clone() if any(output is x for x in given) else output

    def register(self) -> None:
        """Define the torch op."""
        name = f"spikeplug::{self.name}"
        _library.define(f"{self.name}({self.arguments}, str numerics) -> Tensor")
        _library.impl(self.name, self.kernel, "CompositeExplicitAutograd")
        torch.library.register_fake(name, self._fake, lib=_library)
        torch.library.register_autograd(name, self._backward, setup_context=_keep_inputs, lib=_library)

    def _fake(self, *arguments: Any) -> Tensor:
        return torch.empty_like(self.exact(*arguments[:-1]), memory_format=torch.contiguous_format)

    def _backward(self, context: Any, gradient: Tensor) -> tuple[Any, ...]:
        """Straight through the integers: the vector-Jacobian product of the exact function."""
        tensors = iter(context.saved_tensors)
        inputs = [next(tensors) if given is _TENSOR else given for given in context.given]
        wanted = [place for place, needed in enumerate(context.needs_input_grad) if needed]
        again = torch.is_grad_enabled()  # this gradient is to be differentiated in its turn
        with torch.enable_grad():
            for place in wanted:
                # One tensor may be several inputs: each is a leaf, or a view, of its own.
                x = inputs[place]
                inputs[place] = x.view_as(x) if again else x.detach().requires_grad_()
            output = self.exact(*inputs)
        wrt = [inputs[place] for place in wanted]
        found = torch.autograd.grad(output, wrt, gradient.to(output.dtype), create_graph=again)
        gradients: list[Any] = [None] * (len(inputs) + 1)
        for place, value in zip(wanted, found, strict=True):
            gradients[place] = value
        return tuple(gradients)


def _has_plain_strides(x: Tensor) -> bool:
    """Contiguous, with the strides of a new tensor: of a dimension of size 1, contiguous() keeps whatever was there."""
    expected = 1
    for size, stride in zip(reversed(x.shape), reversed(x.stride()), strict=True):
        if stride != expected:
            return False
        expected *= max(size, 1)
    return True


#: Stands in the saved arguments where a tensor was.
_TENSOR = object()


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    arguments = inputs[:-1]
    ctx.given = tuple(_TENSOR if isinstance(value, Tensor) else value for value in arguments)
    ctx.save_for_backward(*(value for value in arguments if isinstance(value, Tensor)))
