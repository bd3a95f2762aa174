"""Kernels for CPUs: loops that Numba compiles when first used, for the machine they run on, and keeps on disk."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any

import numba  # missing, it is reported here and not in the middle of a model

if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
    raise ImportError("NUMBA_DISABLE_JIT is set")

#: Where each operator's kernel is; a file is compiled when its first kernel is called.
_FILES = {
    "softmax": "softmax",
    "silu": "gates",
    "gelu": "gates",
    "sigmoid": "gates",
    "rms_norm": "norms",
    "layer_norm": "norms",
    "attention": "attention",
    "cos": "waves",
    "sin": "waves",
}


@lru_cache
def _function(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(import_module(f"spikeplug.kernels.cpu.{_FILES[name]}"), name)
    return function


def _later(name: str) -> Callable[..., Any]:
    return lambda *arguments, **how: _function(name)(*arguments, **how)


KERNELS = {name: _later(name) for name in _FILES}
