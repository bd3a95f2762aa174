"""What `convert` refuses before it looks any further, each with the remedy."""

from __future__ import annotations

import re
from itertools import chain

from torch import nn
from transformers import PreTrainedModel

from spikeplug import nn as spiking
from spikeplug.config import SpikeConfig
from spikeplug.conversion.attention import IMPLEMENTATION
from spikeplug.conversion.match import OPERATORS
from spikeplug.errors import SpikeplugError

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")


def check_request(config: object, operators: object, exclude: object) -> None:
    """The arguments beside the model. Errors: SpikeplugError."""
    if not isinstance(config, SpikeConfig):
        raise SpikeplugError(f"config is a {type(config).__name__}: give a SpikeConfig, such as SpikeConfig.paper().")
    if isinstance(operators, str) or not isinstance(operators, (tuple, list, set, frozenset)) or not operators:
        raise SpikeplugError(f"operators is {operators!r}: give a tuple of names out of {OPERATORS}.")
    for operator in operators:
        if operator not in OPERATORS:
            raise SpikeplugError(f"unknown operator {operator!r}: choose out of {OPERATORS}.")
    if exclude is None:
        return
    if not isinstance(exclude, str):
        raise SpikeplugError(f"exclude is a {type(exclude).__name__}: give one regular expression as a string.")
    try:
        re.compile(exclude)
    except re.error as error:
        raise SpikeplugError(f"exclude={exclude!r} is not a regular expression ({error}): correct it.") from error


def check_model(model: object, record: str) -> None:
    """That the model can be converted; `record` is the attribute a converted model carries. Errors: SpikeplugError."""
    if not isinstance(model, PreTrainedModel):
        raise SpikeplugError(
            f"convert takes a Hugging Face transformers model, not a {type(model).__name__}: load one with "
            "AutoModelForCausalLM.from_pretrained, or unwrap it."
        )
    model_type = getattr(model.config, "model_type", None)
    if model_type not in MODEL_TYPES:
        raise SpikeplugError(f"model_type {model_type!r} is not supported: give one of {', '.join(MODEL_TYPES)}.")
    for path, module in model.named_modules():
        _check_module(path, module, record)
    if model.config._attn_implementation == IMPLEMENTATION:
        raise SpikeplugError(
            f'attn_implementation is "{IMPLEMENTATION}" though the model is not converted: load it without, or '
            "if it shares its config object with a converted model, revert that model first."
        )


def _check_module(path: str, module: nn.Module, record: str) -> None:
    where = f"its part {path!r}" if path else "the model"
    if hasattr(module, record):
        raise SpikeplugError(f"{where} is converted already: call spikeplug.revert on it first.")
    if type(module).__module__ == spiking.__name__:
        raise SpikeplugError(f"{where} is spiking already: call spikeplug.revert on the model given to convert first.")
    if hasattr(module, "_hf_hook"):
        raise SpikeplugError(
            f"{where} carries accelerate hooks: load the model without device_map or offloading, or call "
            "accelerate.hooks.remove_hook_from_submodules(model) first."
        )
    if any(tensor.is_meta for tensor in chain(module.parameters(recurse=False), module.buffers(recurse=False))):
        raise SpikeplugError(f"{where} holds meta tensors, without values: load the weights first, then convert.")
