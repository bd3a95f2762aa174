"""Check the integers that a folder gave to a whole spiking model: all of them are there, and in range."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spikeplug.conversion.plug import plug_of
from spikeplug.conversion.whole.coded import THRESHOLD, UNIT, CodedPlug
from spikeplug.errors import SpikeplugError
from spikeplug.operators.linear.linear import THRESHOLD_BITS

#: Exponents that a unit may have: weights are normal float32 numbers, as rounding makes them.
_UNITS = (-150, 127)
_REMEDY = "save the model again, or load it from where it came from."


def expect_integers(model: nn.Module) -> None:
    """Tell transformers not to draw integer weights that a folder lacks at random; `check_loaded` names them."""
    for module in model.modules():
        if isinstance(plug_of(module), CodedPlug):
            module._is_hf_initialized = True  # type: ignore[assignment]


def check_loaded(model: nn.Module) -> None:
    """Raise SpikeplugError if an integer weight, a threshold or a unit is missing, of another dtype or out of range."""
    for path, module in model.named_modules():
        if not isinstance(plug_of(module), CodedPlug):
            continue
        parts = {"weight": module._parameters["weight"], **{name: module._buffers[name] for name in (THRESHOLD, UNIT)}}
        for name, tensor in parts.items():
            assert tensor is not None
            if tensor.is_meta:
                continue
            if not getattr(tensor, "_is_hf_initialized", False):
                raise SpikeplugError(f"the folder has no {path}.{name}: {_REMEDY}")
            if not _fits(name, tensor):
                raise SpikeplugError(f"{path}.{name} in the folder is out of range: {_REMEDY}")


def _fits(name: str, tensor: Tensor) -> bool:
    lowest, highest = {"weight": (-127, 127), THRESHOLD: (0, (1 << THRESHOLD_BITS) - 1), UNIT: _UNITS}[name]
    if tensor.dtype is not (torch.int8 if name == "weight" else torch.int32):
        return False
    return tensor.numel() == 0 or bool(lowest <= int(tensor.min()) and int(tensor.max()) <= highest)
