"""Estimate the memory that it takes to make a model whole, from the shapes of its weights alone."""

from __future__ import annotations

from torch import nn

from spikeplug.conversion.whole.coded import columns_of, layers_of
from spikeplug.weights.rounding import ROWS

#: torch, transformers, the kernels, the tokenizer, and what is left between tensors: measured.
_PROCESS = 800_000_000
#: float64 matrices of a Hessian while it is factored, and float64 copies of the rows that are rounded together.
_HESSIANS, _COPIES = 4, 3


def memory_needed(model: nn.Module, calibrated: bool, mapped: bool) -> int:
    """Return the bytes that a process takes at most to load a model and to convert it with free_early, about.

    model       only shapes are read, so it may be on the meta device
    calibrated  weights are rounded with the inputs of a run
    mapped      float weights are read from a file, whose pages take no memory that others need

    The weights are there as float32 (mapped: as int8), and beside them what is largest: a float64 copy of a weight,
    while folding is checked; or the Hessian of the widest layer and the rows that are rounded with it.
    """
    layers = [model.get_submodule(path) for path in layers_of(model)]
    weights = sum(parameter.numel() for parameter in model.parameters()) * (1 if mapped else 4)
    largest = max((layer.weight.numel() for layer in layers), default=0)  # type: ignore[operator]
    width = max((columns_of(layer) for layer in layers if not isinstance(layer, nn.Embedding)), default=0)
    rounding = 8 * width * (_HESSIANS * width + _COPIES * ROWS) if calibrated else 0
    return _PROCESS + weights + max(8 * largest, rounding)
