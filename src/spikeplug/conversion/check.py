"""Check a request to `convert` before anything else is done; every error names a remedy."""

from __future__ import annotations

import re

import torch
from torch import nn

from spikeplug.conversion.attention import IMPLEMENTATION, NOT_CONVERTED
from spikeplug.conversion.calls import called_names
from spikeplug.conversion.match import OPERATORS
from spikeplug.conversion.plug import plug_of
from spikeplug.conversion.redirection import NAMES
from spikeplug.errors import SpikeplugError, shown


def check_request(operators: object, exclude: object) -> None:
    """Check the arguments `operators` and `exclude` of `convert`. None is valid for both.

    Errors: SpikeplugError for unknown operators, and for an `exclude` that is not a regular expression.
    """
    if operators is not None:
        if isinstance(operators, str) or not isinstance(operators, (tuple, list, set, frozenset)) or not operators:
            raise SpikeplugError(f"operators is {shown(operators)}: give a tuple of names from {', '.join(OPERATORS)}.")
        for operator in operators:
            if operator not in OPERATORS:
                raise SpikeplugError(f"unknown operator {shown(operator)}: choose from {', '.join(OPERATORS)}.")
    if exclude is None:
        return
    if not isinstance(exclude, str):
        raise SpikeplugError(f"exclude is of type {type(exclude).__name__}: give one regular expression as a string.")
    try:
        re.compile(exclude)
    except (re.error, OverflowError, RecursionError) as error:
        raise SpikeplugError(f"exclude={shown(exclude)} is not a regular expression ({error}): correct it.") from error


def check_model(model: object, record: str) -> None:
    """Check that the model can be converted.

    record  name of the attribute that a converted model carries

    Errors: SpikeplugError if the model is not a torch module, or is converted, compiled, traced or scripted already.
    """
    if not isinstance(model, nn.Module):
        raise SpikeplugError(f"convert takes a torch module, not a {type(model).__name__}: give it the model.")
    for path, module in model.named_modules():
        _check_module(path, module, record)
    for module in model.modules():
        if getattr(getattr(module, "config", None), "_attn_implementation", None) == IMPLEMENTATION:
            raise SpikeplugError(
                f'attn_implementation is "{IMPLEMENTATION}" though the model is not converted: {NOT_CONVERTED}'
            )


def _check_module(path: str, module: nn.Module, record: str) -> None:
    where = f"its part {path!r}" if path else "the model"
    if record in vars(module):
        raise SpikeplugError(f"{where} is converted already: call spikeplug.revert on it first.")
    if plug_of(module) is not None:
        raise SpikeplugError(f"{where} is spiking already: call spikeplug.revert on the model it was converted in.")
    if isinstance(module, torch.jit.ScriptModule):
        raise SpikeplugError(f"{where} is a TorchScript module, whose code is fixed: convert the Python model.")
    if "_orig_mod" in module._modules:
        raise SpikeplugError(f"{where} is compiled: convert the model first, then call torch.compile on it.")
    # A copy of a traced graph keeps the plugs of its children, but not its own.
    if isinstance(module, torch.fx.GraphModule) and not called_names(module).isdisjoint(NAMES):
        raise SpikeplugError(f"{where} is a traced graph: convert the model first, then trace or export it.")
    if isinstance(module, nn.DataParallel):
        raise SpikeplugError(
            f"{where} is a DataParallel wrapper, which copies modules: use DistributedDataParallel instead."
        )
