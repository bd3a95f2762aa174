"""Kernels for CPUs: loops that Numba compiles when first used, for the machine they run on, and keeps on disk."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numba  # noqa: F401  # missing, it is reported here and not in the middle of a model

#: Where each operator's kernel is; a file is compiled when its first kernel is called.
_FILES = {
    "softmax": "softmax",
    "silu": "gates",
    "gelu": "gates",
    "sigmoid": "gates",
    "rms_norm": "norms",
    "layer_norm": "norms",
    "attention": "attention",
}


def _later(name: str) -> Callable[..., Any]:
    def run(*arguments: Any, **how: Any) -> Any:
        return getattr(import_module(f"spikeplug.kernels.cpu.{_FILES[name]}"), name)(*arguments, **how)

    return run


KERNELS = {name: _later(name) for name in _FILES}
