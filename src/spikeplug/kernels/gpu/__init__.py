"""Operators as Triton kernels for NVIDIA GPUs, each equal to its closed form by torch.equal. See README.md beside this.

`FUNCTIONS` maps an operator's name to a function of its signature (without `events`), which imports Triton when it is
first called. Whatever a kernel does not take (see `takes`), it hands on to the closed form, so any call is answered.
`KERNELS` are the same with the arguments of the operators' torch ops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from torch import Tensor

from spikeplug.kernels.gpu.support import takes

if find_spec("triton") is None:  # said here, where the registry asks, and not in the middle of a model
    raise ImportError("no module named triton")

__all__ = ["FUNCTIONS", "KERNELS", "takes"]


def _lazily(stem: str, name: str) -> Callable[..., Tensor]:
    def kernel(*arguments: Any, **options: Any) -> Tensor:
        function: Callable[..., Tensor] = getattr(import_module(f"spikeplug.kernels.gpu.{stem}"), name)
        return function(*arguments, **options)

    kernel.__name__ = kernel.__qualname__ = name
    return kernel


#: By operator: (x, ..., config=...) -> Tensor, as in spikeplug.operators.
FUNCTIONS: Mapping[str, Callable[..., Tensor]] = {
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


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    sinks: Tensor | None,
    scaling: float | None,
    softcap: float | None,
    **how: Any,
) -> Tensor:
    return FUNCTIONS["attention"](query, key, value, mask, scaling=scaling, softcap=softcap, sinks=sinks, **how)


def _norm(name: str) -> Callable[..., Tensor]:
    return lambda x, eps, **how: FUNCTIONS[name](x, eps=eps, **how)


#: By torch op.
KERNELS = {**FUNCTIONS, "rms_norm": _norm("rms_norm"), "layer_norm": _norm("layer_norm"), "attention": _attention}
