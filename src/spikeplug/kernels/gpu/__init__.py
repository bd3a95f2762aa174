"""Operators as Triton kernels for NVIDIA GPUs, each equal to its closed form by torch.equal. See README.md here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from torch import Tensor

from spikeplug.kernels.gpu.support import takes

if find_spec("triton") is None:  # said here, where the registry asks, and not in the middle of a model
    raise ImportError("no module named triton")

__all__ = ["KERNELS", "takes"]


def _lazily(stem: str, name: str) -> Callable[..., Tensor]:
    def kernel(*arguments: Any, **options: Any) -> Tensor:
        function: Callable[..., Tensor] = getattr(import_module(f"spikeplug.kernels.gpu.{stem}"), name)
        return function(*arguments, **options)

    kernel.__name__ = kernel.__qualname__ = name
    return kernel


#: By operator: a function of the arguments of its torch op, in that order, of what the operator takes beside, by name,
#: and of the numerics. Whatever a kernel does not take (see `takes`), it hands on to the closed form, so any call is
#: answered. Triton is imported with the first.
KERNELS: Mapping[str, Callable[..., Tensor]] = {
    name: _lazily(stem, name)
    for name, stem in {
        "softmax": "softmax",
        "silu": "gates",
        "sigmoid": "gates",
        "gelu": "gates",
        "rms_norm": "rms_norm",
        "layer_norm": "layer_norm",
        "attention": "attention",
    }.items()
}
