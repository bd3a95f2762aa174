"""Define the quantizer that transformers calls while it loads a model that has a `SpikingConfig`.

It converts before the weights are loaded: plugs read them when they run.
accelerate's hooks, offloading and sharding come later, and find the modules that they know.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.core_model_loading import WeightConverter
from transformers.quantizers.auto import register_quantizer
from transformers.quantizers.base import HfQuantizer

from spikeplug.conversion.plug import plug_of
from spikeplug.conversion.spiking_config import METHOD, SpikingConfig
from spikeplug.conversion.swap import RECORD, convert, convert_to_load, revert
from spikeplug.conversion.whole.coded import THRESHOLD, UNIT, CodedPlug
from spikeplug.conversion.whole.loaded import Unpacked, check_loaded, expect_integers, packed_weights
from spikeplug.errors import SpikeplugError

_LOG = logging.getLogger("spikeplug.conversion")


@register_quantizer(METHOD)
class SpikingQuantizer(HfQuantizer):
    """Convert a model while `from_pretrained` loads it, or the part of it whose class its `SpikingConfig` names."""

    quantization_config: SpikingConfig

    def _process_model_before_weight_loading(self, model: nn.Module, **_: Any) -> nn.Module:
        wanted = self.quantization_config
        part = _part(model, wanted.model_class)
        if wanted.recipe is not None:
            return model  # float weights have to be there first
        convert_to_load(part, wanted.numerics, wanted.operators, wanted.exclude, wanted.layout)
        # The conversion put its own into the config that is saved.
        self.quantization_config = part.config.quantization_config
        expect_integers(part)
        return model

    def _process_model_after_weight_loading(self, model: Any, **_: Any) -> Any:
        # Weights are not quantised: half(), float() and training work as on any model.
        model.is_quantized = False
        wanted = self.quantization_config
        if wanted.layout is not None:
            check_loaded(model)
        if wanted.recipe is not None:
            part = _part(model, wanted.model_class)
            report = convert(part, wanted.numerics, recipe=wanted.recipe, exclude=wanted.exclude)
            for note in report.notes:  # from_pretrained returns the model alone
                _LOG.warning(note)
            self.quantization_config = part.config.quantization_config
        return model

    def update_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Return float32 for a whole spiking model: its codes do not fit into fewer bits."""
        whole = self.quantization_config.recipe is not None or self.quantization_config.layout is not None
        return torch.float32 if whole and torch.finfo(dtype).bits < 32 else dtype

    def remove_quantization_config(self, model: Any) -> None:
        """Remove all that loading, or `convert`, told the model of this quantizer."""
        loaded = "is_quantized" in vars(model)
        super().remove_quantization_config(model)  # type: ignore[no-untyped-call]
        if not loaded:
            del model.is_quantized

    def param_needs_quantization(self, model: nn.Module, param_name: str, **other: Any) -> bool:
        """Return True for the integers of a saved whole model: `check_loaded` checks their sizes, not transformers."""
        path, _, name = param_name.rpartition(".")
        whole = self.quantization_config.layout is not None and name in ("weight", THRESHOLD, UNIT)
        return whole and isinstance(plug_of(model.get_submodule(path)), CodedPlug)

    def get_weight_conversions(self) -> list[WeightConverter]:
        """Return what unpacks the weights of int4 groups, if the folder has some."""
        layout = self.quantization_config.layout
        packed = layout is not None and layout.recipe.weight_group
        return [WeightConverter("weight", "weight", [Unpacked()])] if packed else []

    def get_state_dict_and_metadata(self, model: nn.Module) -> tuple[dict[str, Any] | None, dict[str, str]]:
        """Return the state_dict with packed weights of int4 groups; None if there are none, so that all is as it is."""
        packed = packed_weights(model)
        return ({**model.state_dict(), **packed} if packed else None), {}

    def is_serializable(self) -> bool:
        """Return True: the weights are saved as they are, or packed, and config.json says that the model is spiking."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Return True: gradients go straight through the integers."""
        return True

    @property
    def is_qat_trainable(self) -> bool:
        """Return True: all parameters can be trained, without adapters."""
        return True

    @property
    def is_compileable(self) -> bool:
        """Return True: generate() may compile the model, as it does exact ones."""
        return True


def _part(model: nn.Module, model_class: str | None) -> Any:
    """Return the transformers model inside `model` whose class is called `model_class`.

    Returns `model` itself if there is none, or more than one. A body may be loaded with a head or without.
    """
    models = (module for module in model.modules() if isinstance(module, PreTrainedModel))
    parts = [module for module in models if type(module).__name__ == model_class]
    return parts[0] if len(parts) == 1 else model


def reverted(model: nn.Module) -> nn.Module:
    """Revert every conversion in the model, and return the model. A model without any is returned as it is.

    A conversion may come from a call of `convert`, or from loading a folder that was saved converted.
    Errors: SpikeplugError if `model` is not a torch module.
    """
    if not isinstance(model, nn.Module):
        raise SpikeplugError(f"reverted takes a torch module, not a {type(model).__name__}: give it the model.")
    for module in [module for module in model.modules() if RECORD in vars(module)]:
        revert(module)
    return model
