"""The quantizer transformers calls while it loads a model that has a `SpikingConfig`.

It converts before the weights are there: plugs read them when they run, and what is put around modules afterwards
(accelerate's hooks, offloading, sharding) finds the modules it knows.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.quantizers.auto import register_quantizer
from transformers.quantizers.base import HfQuantizer

from spikeplug.conversion.spiking_config import METHOD, SpikingConfig
from spikeplug.conversion.swap import RECORD, convert, revert


@register_quantizer(METHOD)
class SpikingQuantizer(HfQuantizer):
    """Converts the model it is given, or the part of it whose class the numerics names."""

    quantization_config: SpikingConfig

    def _process_model_before_weight_loading(self, model: nn.Module, **_: Any) -> nn.Module:
        wanted = self.quantization_config
        part = _part(model, wanted.model_class)
        convert(part, wanted.numerics, operators=wanted.operators, exclude=wanted.exclude)
        # As `convert` left it in the numerics that is saved.
        self.quantization_config = part.config.quantization_config
        return model

    def _process_model_after_weight_loading(self, model: Any, **_: Any) -> Any:
        # No weight is quantised: half(), float() and training work as on any model.
        model.is_quantized = False
        return model

    def is_serializable(self) -> bool:
        """The weights are saved as they are, and the numerics says that the model is spiking."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Gradients go straight through the integers."""
        return True

    @property
    def is_qat_trainable(self) -> bool:
        """All parameters, without adapters."""
        return True

    @property
    def is_compileable(self) -> bool:
        """generate() may compile the model, as it does exact ones."""
        return True


def _part(model: nn.Module, model_class: str | None) -> Any:
    """The one model of that class in the model, or the model: a body may be loaded with a head, or without."""
    models = (module for module in model.modules() if isinstance(module, PreTrainedModel))
    parts = [module for module in models if type(module).__name__ == model_class]
    return parts[0] if len(parts) == 1 else model


def reverted(model: nn.Module) -> nn.Module:
    """The model itself, with every conversion undone that a folder saved converted, or a caller, has made in it."""
    for module in [module for module in model.modules() if RECORD in vars(module)]:
        revert(module)
    return model
