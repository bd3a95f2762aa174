"""Make a tiny input for a model, from what transformers says of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from spikeplug.errors import SpikeplugError

_TOKENS = 7


def tiny_inputs(model: nn.Module) -> dict[str, Any]:
    """Return arguments of a model's forward: two rows of seven tokens, or two images, or one stretch of sound.

    Errors: SpikeplugError if the model does not say what it takes.
    """
    config: Any = getattr(model, "config", None)
    name = getattr(model, "main_input_name", None)
    makers: dict[str, Callable[[Any], Tensor]] = {
        "input_ids": _ids,
        "pixel_values": _image,
        "input_features": _features,
        "input_values": lambda _: _noise(2, 4000),
    }
    if config is None or not isinstance(name, str) or name not in makers:
        raise SpikeplugError("this model does not say what it takes: give `inputs`, the arguments of its forward.")
    parameter: Tensor = next(model.parameters())
    inputs: dict[str, Any] = {name: makers[name](config)}
    accepted = inspect.signature(type(model).forward).parameters
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in accepted:
        inputs["decoder_input_ids"] = _ids(config, 2)
    if "use_cache" in accepted:
        inputs["use_cache"] = False
    return {key: _placed(value, parameter) for key, value in inputs.items()}


def _placed(value: Any, parameter: Tensor) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.to(parameter.device, parameter.dtype if value.is_floating_point() else value.dtype)


def _ids(config: Any, seed: int = 1) -> Tensor:
    vocabulary = getattr(config.get_text_config(), "vocab_size", None) or 16
    generator = torch.Generator().manual_seed(seed)
    lowest = min(3, vocabulary - 1)
    return torch.randint(lowest, vocabulary, (2, _TOKENS), generator=generator)


def _image(config: Any) -> Tensor:
    sizes = config.image_size if isinstance(config.image_size, (tuple, list)) else (config.image_size,) * 2
    return _noise(2, getattr(config, "num_channels", 3), *sizes)


def _features(config: Any) -> Tensor:
    return _noise(1, config.num_mel_bins, 2 * config.max_source_positions)


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))
