"""Operators as Triton kernels for NVIDIA GPUs, each equal to its closed form by torch.equal. See README.md beside this.

`KERNELS` maps an operator's name to a function of its signature (without `events`), which imports Triton when it is
first called. Whatever a kernel does not take (see `takes`), it hands on to the closed form, so any call is answered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from torch import Tensor

from spikeplug.kernels.gpu.support import supports, takes

__all__ = ["KERNELS", "supports", "takes"]


def _lazily(stem: str, name: str) -> Callable[..., Tensor]:
    def kernel(*arguments: Any, **options: Any) -> Tensor:
        function: Callable[..., Tensor] = getattr(import_module(f"spikeplug.kernels.gpu.{stem}"), name)
        return function(*arguments, **options)

    kernel.__name__ = kernel.__qualname__ = name
    return kernel


#: By operator: (x, ..., config=...) -> Tensor, as in spikeplug.operators.
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
