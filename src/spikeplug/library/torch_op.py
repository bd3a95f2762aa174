"""Define one opaque torch op per operator, `torch.ops.spikeplug.<name>`, with fake and autograd rules.

Opaque, so that torch.compile, torch.export and whatever watches dispatched ops see one integer operator, not the
hundreds of integer verbs inside. The numerics travel as a string, which every graph can hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._library.autograd import Info, make_autograd_impl

from spikeplug.errors import SpikeplugError
from spikeplug.library import transforms

LIBRARY = torch.library.Library("spikeplug", "FRAGMENT")


def define(name: str, arguments: str, kernel: Callable[..., Tensor], exact: Callable[..., Tensor]) -> None:
    """Define the op `name`, whose schema is `arguments` and then `str numerics`.

    kernel: what the op runs, on the same arguments. exact: the float function of the arguments without the numerics,
    which gives the output's shape and dtype, and the gradient.
    """

    def fake(*given: Any) -> Tensor:
        check_devices(name, given)
        return torch.empty_like(exact(*given[:-1]), memory_format=torch.contiguous_format)

    def backward(context: Any, gradient: Tensor) -> tuple[Any, ...]:
        return _gradients(exact, context, gradient)

    LIBRARY.define(f"{name}({arguments}, str numerics) -> Tensor")
    LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(f"spikeplug::{name}", fake, lib=LIBRARY)
    generated = make_autograd_impl(getattr(torch.ops.spikeplug, name).default, Info(backward, _keep_inputs))

    def autograd(keys: Any, *given: Any) -> Tensor:
        # torch's own rule drops the tangents of forward mode, and says nothing.
        result: Tensor = transforms.apply(name, exact, given) if transforms.has_duals() else generated(keys, *given)
        return result

    LIBRARY.impl(name, autograd, "Autograd", with_keyset=True)
    LIBRARY.impl(name, lambda *given: transforms.run(name, exact, given), "FuncTorchDynamicLayerFrontMode")


def check_devices(operator: str, arguments: tuple[Any, ...]) -> None:
    """Raise SpikeplugError if tensors lie on different devices; a scalar on the CPU goes with any device but meta."""
    tensors = [x for x in arguments if isinstance(x, Tensor)]
    any_meta = any(x.device.type == "meta" for x in tensors)
    devices = {x.device: None for x in tensors if any_meta or x.dim() > 0 or x.device.type != "cpu"}
    if len(devices) > 1:
        names = " and ".join(map(str, devices))
        raise SpikeplugError(f"{operator} got tensors on {names}; move them to one device with .to().")


def with_plain_strides(x: Tensor) -> Tensor:
    """Return x with the strides that a new contiguous tensor has, also at dimensions of size 1; copied if needed."""
    expected = 1
    for size, stride in zip(reversed(x.shape), reversed(x.stride()), strict=True):
        if stride != expected:
            return x.contiguous().flatten().view(x.shape)
        expected *= max(size, 1)
    return x


def _gradients(exact: Callable[..., Tensor], context: Any, gradient: Tensor) -> tuple[Any, ...]:
    """Return the gradients of the op's inputs: those of the float function `exact` at the same inputs, or None."""
    tensors = iter(context.saved_tensors)
    inputs = [next(tensors) if given is _TENSOR else given for given in context.given]
    wanted = [place for place, needed in enumerate(context.needs_input_grad) if needed]
    again = torch.is_grad_enabled()  # this gradient is to be differentiated in its turn
    with torch.enable_grad():
        for place in wanted:
            # One tensor may be several inputs: each is a leaf, or a view, of its own.
            x = inputs[place]
            inputs[place] = x.view_as(x) if again else x.detach().requires_grad_()
        output = exact(*inputs)
    found = torch.autograd.grad(
        output, [inputs[place] for place in wanted], gradient.to(output.dtype), create_graph=again
    )
    gradients: list[Any] = [None] * (len(inputs) + 1)
    for place, value in zip(wanted, found, strict=True):
        gradients[place] = value
    return tuple(gradients)


#: Stands in the saved arguments where a tensor was.
_TENSOR = object()


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    arguments = inputs[:-1]
    ctx.given = tuple(_TENSOR if isinstance(value, Tensor) else value for value in arguments)
    ctx.save_for_backward(*(value for value in arguments if isinstance(value, Tensor)))
