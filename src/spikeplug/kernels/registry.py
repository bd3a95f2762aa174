"""Which kernel runs in an operator's place: one registry, by device, of functions that give the operator's own bits."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics

#: Where the kernels of a device are: modules with KERNELS {operator: function}. A function takes the arguments of the
#: operator's torch op, checked as the operator checks them, and the numerics; it gives the operator's result, or None
#: where it leaves the call to the closed form.
DEVICES = {"cpu": "spikeplug.kernels.cpu", "cuda": "spikeplug.kernels.gpu"}
#: What each needs, by pip.
_NEEDS = {"cpu": "numba", "cuda": "triton"}
#: Everything else (float64) is left to the closed form.
DTYPES = frozenset({torch.float32, torch.bfloat16, torch.float16})
#: What an argument may be besides: masks are bool, or count.
TAKEN = DTYPES | {torch.bool, torch.int64}
#: Tensors that are no subclass with a meaning of its own.
PLAIN = frozenset({Tensor, torch.nn.Parameter})

Kernel = Callable[..., Tensor | None]


_ON, _OFF = ("", "on", "1", "true", "yes"), ("off", "0", "false", "no")


def _wanted() -> bool:
    """What the environment says. Errors: SpikeplugError for a word that is neither on nor off."""
    word = os.environ.get("SPIKEPLUG_KERNELS", "on").lower()
    if word not in (*_ON, *_OFF):
        raise SpikeplugError(f"the environment variable SPIKEPLUG_KERNELS is {word!r}; set it to on or off.")
    return word in _ON


_WANTED = _wanted()
_enabled = ContextVar("kernels", default=_WANTED)


@contextmanager
def closed_forms() -> Iterator[None]:
    """Within the block (of this thread or task), every operator runs its closed form in plain torch.

    For a whole process: the environment variable SPIKEPLUG_KERNELS=off.
    """
    token = _enabled.set(False)
    try:
        yield
    finally:
        _enabled.reset(token)


def enabled() -> bool:
    """Whether kernels may run here and now, or closed forms are asked for."""
    return _enabled.get()


@lru_cache
def loaded(device: str) -> dict[str, Kernel]:
    """The kernels of a device type; none where what they are written in is missing, which is said once."""
    if device not in DEVICES:
        return {}
    try:
        kernels: dict[str, Kernel] = import_module(DEVICES[device]).KERNELS
    except (ImportError, OSError) as error:
        warnings.warn(
            f"spikeplug runs its slower closed forms on {device}: its kernels need {_NEEDS[device]}, which could not "
            f"be loaded ({error}); pip install {_NEEDS[device]}.",
            RuntimeWarning,
            stacklevel=2,
        )
        return {}
    return kernels


def supports(numerics: Numerics) -> bool:
    """Whether the kernels have this numerics's numerics: the shift exponential, the root norm, scales of the vector's own
    and inputs as wide as the operator works; any bits, working_bits, fraction_bits and segments."""
    wide = numerics.input_bits is None and numerics.scale_block is None
    return wide and numerics.exponential == "shift" and numerics.norm == "root" and numerics.shift_scaling


def find(operator: str, arguments: tuple[Any, ...], numerics: Numerics) -> Kernel | None:
    """The kernel for a call of the operator's torch op, or None: no kernel, forced off, another numerics or dtype."""
    if not _enabled.get() or not supports(numerics):
        return None
    device = arguments[0].device
    if arguments[0].dim() == 0:
        return None
    for x in arguments:
        if isinstance(x, Tensor) and (
            type(x) not in PLAIN or x.device != device or x.numel() == 0 or x.dtype not in TAKEN
        ):
            return None
    return loaded(device.type).get(operator)
