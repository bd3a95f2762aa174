"""convert and revert: plan everything, then apply by assignments only, and undo them all if one fails."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from spikeplug import nn as spiking
from spikeplug.config import SpikeConfig
from spikeplug.conversion.attention import IMPLEMENTATION, PLUG, AttentionPlug
from spikeplug.conversion.check import check_model, check_request
from spikeplug.conversion.match import OPERATORS, Found, eps_of, find
from spikeplug.conversion.report import Entry, Report
from spikeplug.errors import SpikeplugError

RECORD = "spikeplug_conversion"


@dataclass(frozen=True)
class Swap:
    """A module that was replaced: where, by what."""

    path: str
    old: nn.Module
    new: nn.Module


@dataclass(frozen=True)
class Conversion:
    """All that `revert` needs, kept on the model as a plain attribute, in paths, so that copies and pickles of a
    converted model can be reverted on their own.

    swaps             the replaced modules
    plugs             path of each attention module -> what it is to run
    implementations   path of a module -> the attn_implementation its config had (one path per config object)
    """

    swaps: tuple[Swap, ...]
    plugs: dict[str, AttentionPlug]
    implementations: dict[str, str]


def convert(
    model: PreTrainedModel,
    config: SpikeConfig | None = None,
    *,
    operators: tuple[str, ...] = OPERATORS,
    exclude: str | None = None,
) -> Report:
    """Replace, in place, attention's softmax, SiLU and RMSNorm by spiking operators. No weight is touched: parameters,
    their names, state_dict, device, dtype and forward hooks stay as they are.

    config      the numerics of every operator; default: SpikeConfig()
    operators   which of "softmax", "silu", "rms_norm" to replace
    exclude     regular expression, searched in module paths: what it finds stays exact, bit for bit

    The report says what was replaced, and what was left and why: excluded places and operators that were not chosen
    are in it, not errors. Errors (SpikeplugError, and the model is as it was): not a transformers model of a known
    model_type; converted already; accelerate hooks or meta tensors; an unknown operator; an operator the model does
    not have; an `exclude` that does not compile, finds none of the places to replace, or leaves none of them.
    """
    config = SpikeConfig() if config is None else config
    check_request(config, operators, exclude)
    check_model(model, RECORD)
    if "softmax" in operators and model.config.output_attentions:
        raise SpikeplugError(
            "spiking attention returns no attention weights: set model.config.output_attentions = False, or leave "
            "'softmax' out of operators."
        )
    places = find(model)
    entries = _decide(places, operators, exclude)
    replaced = [place for place, entry in zip(places, entries, strict=True) if entry.action == "replaced"]
    conversion = _plan(model, config, places, replaced)
    try:
        _apply(model, conversion)
    except BaseException:
        _restore(model, conversion)
        raise
    return Report(type(model).__name__, entries)


def revert(model: PreTrainedModel) -> None:
    """Undo `convert`: the same module objects back in their places, the attention implementation as it was.

    Errors (SpikeplugError, and the model is as it was): not converted, or a replaced module was replaced again since.
    """
    conversion: Conversion | None = getattr(model, RECORD, None)
    if conversion is None:
        raise SpikeplugError(f"{type(model).__name__} is not converted: call revert on the model given to convert.")
    modules = dict(model.named_modules(remove_duplicate=False))
    for swap in conversion.swaps:
        if modules.get(swap.path) is not swap.new:
            raise SpikeplugError(f"{swap.path} was replaced after convert: put its spiking module back, then revert.")
    for path in (*conversion.plugs, *conversion.implementations):
        if path not in modules:
            raise SpikeplugError(f"{path} was removed after convert: put it back, then revert.")
    _restore(model, conversion)


def _decide(places: list[Found], operators: tuple[str, ...], exclude: str | None) -> tuple[Entry, ...]:
    """One entry per place; refuses requests that would not do what they say."""
    for operator in operators:
        if not any(place.operator == operator for place in places):
            raise SpikeplugError(f"the model has no {operator} to replace: leave {operator!r} out of operators.")
    entries = tuple(_entry(place, operators, exclude) for place in places)
    chosen = [place.path for place in places if place.operator in operators]
    if exclude is not None and not any(re.search(exclude, path) for path in chosen):
        raise SpikeplugError(f"exclude={exclude!r} finds none of the paths to replace, which look like {chosen[0]!r}.")
    if not any(entry.action == "replaced" for entry in entries):
        raise SpikeplugError(f"exclude={exclude!r} leaves nothing to replace: narrow it.")
    return entries


def _entry(place: Found, operators: tuple[str, ...], exclude: str | None) -> Entry:
    reason = place.reason
    if not reason and place.operator not in operators:
        reason = "not among the operators chosen"
    elif not reason and exclude is not None and re.search(exclude, place.path):
        reason = f"excluded by {exclude!r}"
    return Entry(place.path, place.operator, type(place.module).__name__, "left" if reason else "replaced", reason)


def _plan(model: PreTrainedModel, config: SpikeConfig, places: list[Found], replaced: list[Found]) -> Conversion:
    """Build every new module; the model is not touched."""
    spiking_of: dict[int, nn.Module] = {}  # a module that sits in two places stays one module
    swaps = []
    for place in replaced:
        if place.operator != "softmax":
            new = spiking_of.setdefault(id(place.module), _spiking(place, config))
            swaps.append(Swap(place.path, place.module, new))
    attending = {place.path for place in replaced if place.operator == "softmax"}
    if not attending:
        return Conversion(tuple(swaps), {}, {})
    plugs = {
        place.path: AttentionPlug(config if place.path in attending else None, _implementation(place.module))
        for place in places
        if place.operator == "softmax"
    }
    return Conversion(tuple(swaps), plugs, dict(_implementations(model)))


def _spiking(place: Found, config: SpikeConfig) -> nn.Module:
    """The spiking module for a place, with the old one's parameters, hooks and mode."""
    old = place.module
    new: nn.Module
    if place.operator == "silu":
        new = spiking.SiLU(config)
    else:
        weight, eps = old._parameters["weight"], eps_of(old)
        assert isinstance(weight, nn.Parameter)  # find() saw both
        assert eps is not None
        new = spiking.RMSNorm(weight, eps, config)
    new.training = old.training
    # The same dicts, not copies: a hook added or removed through either module, before or after revert, is for both.
    for name, value in vars(old).items():
        if name.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called")):
            new.__dict__[name] = value
    return new


def _implementation(module: nn.Module) -> str:
    return str(module.config._attn_implementation)  # type: ignore[union-attr]


def _implementations(model: PreTrainedModel) -> Iterator[tuple[str, str]]:
    """The first module that holds each config object, and that config's attention implementation."""
    seen: set[int] = set()
    for path, module in model.named_modules():
        config = getattr(module, "config", None)
        if hasattr(config, "_attn_implementation") and id(config) not in seen:
            seen.add(id(config))
            yield path, _implementation(module)


def _slot(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    parent, _, name = path.rpartition(".")
    return model.get_submodule(parent), name


def _apply(model: nn.Module, conversion: Conversion) -> None:
    setattr(model, RECORD, conversion)
    for swap in conversion.swaps:
        parent, name = _slot(model, swap.path)
        parent._modules[name] = swap.new
    for path, plug in conversion.plugs.items():
        setattr(model.get_submodule(path), PLUG, plug)
    for path in conversion.implementations:
        model.get_submodule(path).config._attn_implementation = IMPLEMENTATION  # type: ignore[union-attr]


def _restore(model: nn.Module, conversion: Conversion) -> None:
    """Undo `_apply`, however far it got."""
    for path, implementation in conversion.implementations.items():
        model.get_submodule(path).config._attn_implementation = implementation  # type: ignore[union-attr]
    for path in conversion.plugs:
        vars(model.get_submodule(path)).pop(PLUG, None)
    for swap in conversion.swaps:
        # Weights may have been reassigned, or the mode changed, while the spiking module stood here.
        swap.old.training = swap.new.training
        swap.old._parameters.update(swap.new._parameters)
        parent, name = _slot(model, swap.path)
        parent._modules[name] = swap.old
    vars(model).pop(RECORD, None)
