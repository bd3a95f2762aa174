"""Define one opaque torch op per operator, `torch.ops.spikeplug.<name>`, with fake and autograd rules.

Opaque, so that torch.compile, torch.export and whatever watches dispatched ops see one integer operator, not the
hundreds of integer verbs inside. The numerics travel as a string, which every graph can hold.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor
from torch._library.autograd import Info, make_autograd_impl
from torch.nn import Parameter

from spikeplug.errors import SpikeplugError, shown
from spikeplug.library import transforms

LIBRARY = torch.library.Library("spikeplug", "FRAGMENT")
#: By type in a schema: the type an argument must have, the type it is converted to, and its name in words.
_TYPES: dict[str, tuple[type, type, str]] = {
    "int": (Integral, int, "a whole number"),
    "float": (Real, float, "a number"),
    "bool": (bool, bool, "True or False"),
    "str": (object, str, "a string"),  # the operator names the strings that it knows
}
_SYMBOLS = (torch.SymInt, torch.SymFloat, torch.SymBool)


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


def exact_types(arguments: str) -> tuple[tuple[type, ...], ...]:
    """Return, for each argument of a schema, the types of values that need no look: `as_declared` leaves them alone."""
    found = []
    for declared in arguments.split(", "):
        kind = declared.split()[0]
        plain = (Tensor, Parameter) if kind.startswith("Tensor") else (_TYPES[kind.rstrip("?")][1],)
        found.append((*plain, type(None)) if kind.endswith("?") else plain)
    return tuple(found)


def as_declared(operator: str, arguments: str, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the given arguments of an op with the types of its schema: numbers of numpy become Python's.

    Errors: SpikeplugError, naming the argument, for a value of another type, which torch would refuse in many lines.
    """
    declared = [argument.split() for argument in arguments.split(", ")]
    return tuple(_as_declared(operator, kind, name, x) for (kind, name), x in zip(declared, given, strict=False))


def _as_declared(operator: str, kind: str, name: str, x: Any) -> Any:
    kind, optional = kind.rstrip("?"), kind.endswith("?")
    if (isinstance(x, Tensor) and kind == "Tensor") or (optional and x is None) or isinstance(x, _SYMBOLS):
        return x
    if kind == "Tensor":
        raise SpikeplugError(
            f"{operator} takes a torch tensor as {name}, not a {type(x).__name__}; use torch.as_tensor first."
        )
    needed, converted, words = _TYPES[kind]
    if isinstance(x, needed) and (kind == "bool" or not isinstance(x, bool)):
        with suppress(OverflowError):
            return converted(x)
    raise SpikeplugError(f"{operator} got {name}={shown(x)}; give {words}{' or None' if optional else ''}.")


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
