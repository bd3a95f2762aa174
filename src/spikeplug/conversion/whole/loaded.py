"""Check the integers that a folder gave to a whole spiking model, all of them there and in range, and (un)pack them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.core_model_loading import ConversionOps

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
    """Raise SpikeplugError if an integer weight, a threshold or a unit is missing, of another form or out of range."""
    for path, module in model.named_modules():
        plug = plug_of(module)
        if not isinstance(plug, CodedPlug):
            continue
        sizes = {"weight": tuple(plug.shape), THRESHOLD: plug.rows_and_columns[:1], UNIT: ()}
        parts = {"weight": module._parameters["weight"], **{name: module._buffers[name] for name in (THRESHOLD, UNIT)}}
        for name, tensor in parts.items():
            assert tensor is not None
            if tensor.is_meta:
                continue
            if not getattr(tensor, "_is_hf_initialized", False):
                raise SpikeplugError(f"the folder has no {path}.{name}: {_REMEDY}")
            if tensor.shape != sizes[name]:
                wanted = plug.size_in_folder if name == "weight" else sizes[name]
                raise SpikeplugError(
                    f"{path}.{name} in the folder has the size {tuple(tensor.shape)}, not {wanted}: {_REMEDY}"
                )
            if not _fits(name, tensor):
                raise SpikeplugError(f"{path}.{name} in the folder is out of range: {_REMEDY}")


class Unpacked(ConversionOps):
    """Unpack each weight of int4 groups while it is loaded; whatever else is loaded stays as it is."""

    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **given: Any
    ) -> dict[str, list[Tensor]]:
        """Return the tensors by name. A weight of another size or dtype stays as it is, for `check_loaded` to name."""
        plug = plug_of(given["model"].get_submodule(given["full_layer_name"].rpartition(".")[0]))
        if not isinstance(plug, CodedPlug) or not plug.group:
            return input_dict
        return {name: [_unpacked(plug, weight) for weight in weights] for name, weights in input_dict.items()}

    @property
    def reverse_op(self) -> ConversionOps:
        """Return what saves them: they are packed by then, see `packed_weights`."""
        return Kept()


class Kept(ConversionOps):
    """Leave what is saved as it is."""

    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **given: Any
    ) -> dict[str, list[Tensor]]:
        """Return the tensors by name."""
        return input_dict


def _unpacked(plug: CodedPlug, weight: Tensor) -> Tensor:
    fits = weight.dtype is torch.uint8 and tuple(weight.shape) == plug.size_in_folder
    return plug.unpacked(weight) if fits else weight


def packed_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights of int4 groups as a folder holds them, by their names in the state_dict.

    Errors: SpikeplugError if one is offloaded, or is no longer made of int4 groups.
    """
    found = {}
    for path, module in model.named_modules():
        plug, name, weight = plug_of(module), f"{path}.weight", module._parameters.get("weight")
        if isinstance(plug, CodedPlug) and plug.group and weight is not None:  # pruning makes it an attribute
            if weight.is_meta:
                raise SpikeplugError(
                    f"{name} is offloaded, so it cannot be packed: save the model before offloading it."
                )
            found[name] = plug.packed(name)
    return found


def _fits(name: str, tensor: Tensor) -> bool:
    lowest, highest = {"weight": (-127, 127), THRESHOLD: (0, (1 << THRESHOLD_BITS) - 1), UNIT: _UNITS}[name]
    if tensor.dtype is not (torch.int8 if name == "weight" else torch.int32):
        return False
    return tensor.numel() == 0 or bool(lowest <= int(tensor.min()) and int(tensor.max()) <= highest)
