"""Choose the kernel that runs a call, and run the closed form where there is none: nothing else falls back."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from importlib import import_module
from typing import NamedTuple

import torch
from torch import Tensor

from spikeplug.codes import affine
from spikeplug.errors import SpikeplugError
from spikeplug.kernels.protocol import DTYPES, INTEGERS, PACKED, PLAIN, TAKEN, VALUES, Call, Kernel
from spikeplug.numerics import Numerics
from spikeplug.operators import LINEAR


class Device(NamedTuple):
    """Name the module that has a device type's kernels, their language, and the package that this language needs."""

    module: str
    language: str
    package: str


#: By device type. A module has KERNELS, a mapping of operators to kernels.
DEVICES = {
    "cpu": Device("spikeplug.kernels.cpu", "Numba", "numba"),
    "cuda": Device("spikeplug.kernels.gpu", "Triton", "triton"),
}
Listener = Callable[[Call, str, str], None]

_ON, _OFF = ("", "on", "1", "true", "yes"), ("off", "0", "false", "no")


def _wanted() -> bool:
    """Return whether the environment variable SPIKEPLUG_KERNELS turns kernels on; True if it is not set.

    Errors: SpikeplugError for a value that means neither on nor off.
    """
    word = os.environ.get("SPIKEPLUG_KERNELS", "on").lower()
    if word not in (*_ON, *_OFF):
        raise SpikeplugError(f"the environment variable SPIKEPLUG_KERNELS is {word!r}; set it to on or off.")
    return word in _ON


_WANTED = _wanted()
_enabled = ContextVar("spikeplug_kernels", default=_WANTED)
_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("spikeplug_kernel_listeners", default=())


@contextmanager
def closed_forms() -> Iterator[None]:
    """Run every operator in closed form, in plain torch, within the block (in this thread or asyncio task).

    For a whole process, set the environment variable SPIKEPLUG_KERNELS=off.
    """
    token = _enabled.set(False)
    try:
        yield
    finally:
        _enabled.reset(token)


@contextmanager
def reported_to(listener: Listener) -> Iterator[None]:
    """Call `listener(call, kernel, reason)` for every operator that runs within the `with` block, in this thread.

    kernel: the name of the kernel, or "" if the closed form runs. reason: why the closed form runs, or "".
    """
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


def enabled() -> bool:
    """Return True if kernels may run in this thread or task now, False if closed forms were asked for."""
    return _enabled.get()


@lru_cache  # device.type takes four times as long
def device_type(device: torch.device) -> str:
    """Return the type of a device as a word, such as "cpu" or "cuda". Results are cached."""
    return device.type


@lru_cache
def loaded(device: str) -> Mapping[str, Kernel]:
    """Return the kernels of a device type such as "cpu", by operator name.

    The mapping is empty for other device types, and where the package that the kernels need cannot be loaded. The
    latter gives one RuntimeWarning.
    """
    if device not in DEVICES:
        return {}
    module, _, package = DEVICES[device]
    try:
        kernels: Mapping[str, Kernel] = import_module(module).KERNELS
    except (ImportError, OSError) as error:
        warnings.warn(
            f"spikeplug runs its slower closed forms on {device}: its kernels need {package}, which could not be "
            f"loaded ({error}); pip install {package}.",
            RuntimeWarning,
            stacklevel=2,
        )
        return {}
    return kernels


def _unsupported(numerics: Numerics, operator: str) -> str | None:
    """Return why no kernel of an operator can compute with these numerics, or None if kernels can.

    bits, working_bits, fraction_bits and segments may have any value here; five other fields must have one fixed value.
    Linear operators do not read them, unless their kernel says so.
    """
    if operator in LINEAR or (
        numerics.exponential == "shift"
        and numerics.norm == "root"
        and numerics.shift_scaling
        and numerics.input_bits is None
        and numerics.scale_block is None
    ):
        return None
    wanted = {"input_bits": None, "scale_block": None, "exponential": "shift", "norm": "root", "shift_scaling": True}
    name = next(name for name, value in wanted.items() if getattr(numerics, name) != value)
    return f"the numerics have {name}={getattr(numerics, name)!r}; kernels take {wanted[name]!r}"


def _scattered(call: Call) -> str | None:
    """Return why no kernel can run the call: tensors that are not plain, or lie on several devices; or None."""
    device = call.arguments[0].device
    for x in (*call.arguments, call.weight, call.bias):
        if type(x) not in PLAIN:
            if type(x) in VALUES or not isinstance(x, Tensor):
                continue
            if x.device == device:
                return f"kernels take plain tensors, not a {type(x).__name__}"
        if x.device != device:
            return f"tensors lie on {device} and {x.device}"
    return None


def _unsuited(call: Call) -> str | None:
    """Return why no kernel can run the call on plain tensors of these dtypes and sizes, or None."""
    operator, arguments, _, weight, bias = call
    if weight is not None or bias is not None:
        arguments = (*arguments, weight, bias)
    for x in arguments:
        kind = type(x)
        if kind in VALUES or (kind not in PLAIN and not isinstance(x, Tensor)):
            continue
        dtype = x.dtype
        if dtype not in TAKEN and not (dtype in INTEGERS and (operator in LINEAR or operator in PACKED)):
            return _other_dtype(x)
        if x.numel() == 0:
            return "a tensor has no elements"
    first = arguments[0]
    if first.dtype not in DTYPES:
        return _other_dtype(first)
    return None if first.dim() else "a scalar has no row"


def _other_dtype(x: Tensor) -> str:
    return f"kernels take float32, bfloat16 and float16, not {str(x.dtype).removeprefix('torch.')}"


def choose(call: Call, together: bool = False) -> tuple[Kernel | None, Call, str]:
    """Return the kernel that runs a call, the call it is given, and "" or the reason why there is no kernel.

    A kernel that cannot apply the weight and bias is given the call without them.
    together: whether all tensors are known to be plain and to lie on one device.
    """
    if not _enabled.get():
        return None, call, "closed forms were asked for"
    first = call.arguments[0]
    device = "cpu" if first.is_cpu else device_type(first.device)
    kernel = loaded(device).get(call.operator)
    if kernel is None:
        return None, call, _absent(device, call.operator)
    reason = (
        _unsupported(call.numerics, call.operator)
        or (None if together else _scattered(call))
        or _unsuited(call)
        or kernel.supports(call)
    )
    if reason is None:
        return kernel, call, ""
    if call.weight is not None or call.bias is not None:
        bare = Call(call.operator, call.arguments, call.numerics)
        if choose(bare, together)[0] is not None:
            return kernel, bare, ""
    return None, call, reason


def _absent(device: str, operator: str) -> str:
    if device not in DEVICES:
        return f"there are no kernels for {device}"
    if not loaded(device):
        return f"{DEVICES[device].package} could not be loaded"
    return f"{operator} has no kernel on {device}"


def run(call: Call, closed: Callable[[Call], Tensor], together: bool = False) -> Tensor:
    """Run a call by its kernel, and by `closed` where there is no kernel or for the rows that the kernel left.

    closed: computes a call in closed form. together: as for `choose`. Returns the operator's result, weight and bias
    applied. The result may have any strides, and may be one of the arguments itself.
    """
    kernel, taken, reason = choose(call, together)
    for listener in _listeners.get():
        listener(call, "" if kernel is None else _title(call), reason)
    if kernel is None:
        return closed(call)
    output, rare = kernel.run(taken)
    if rare is not None:
        if bool(rare.all()):
            return closed(call)
        output[rare] = closed(taken.rows(rare))
    return output if taken is call else affine(output, call.weight, call.bias)


def explain(call: Call) -> str:
    """Return which kernel runs a call, or why the closed form does: "closed form: kernels take ..., not float64"."""
    kernel, _, reason = choose(call)
    return f"closed form: {reason}" if kernel is None else _title(call)


def _title(call: Call) -> str:
    return f"{DEVICES[call.arguments[0].device.type].language} {call.operator}"
