"""Convert and revert models: plan everything, then apply it by assignments only, and undo them all if one fails."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import nn

from spikeplug.conversion.attention import IMPLEMENTATION, PLUG, AttentionPlug, remember_implementation
from spikeplug.conversion.check import check_model, check_request
from spikeplug.conversion.match import OPERATORS, Found, find
from spikeplug.conversion.plug import HostPlug, Plug, ScopePlug, plug_of
from spikeplug.conversion.report import Action, Entry, Report
from spikeplug.conversion.spiking_config import SpikingConfig, forget, saved_as
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.presets import as_numerics

RECORD = "spikeplug_conversion"


@dataclass(frozen=True)
class Conversion:
    """Hold all that `revert` needs.

    It is a plain attribute of the model and refers to modules by path.
    So copies and pickles of a converted model can be reverted on their own.

    plugged          paths of the modules that hold a plug
    attending        path of each attention module -> what it runs
    implementations  path of a module -> the attn_implementation its config had (one path per config object)
    saved_as         what the model's config.json says of the conversion, if it has one
    """

    plugged: tuple[str, ...]
    attending: dict[str, AttentionPlug]
    implementations: dict[str, str]
    saved_as: SpikingConfig | None = None


def convert(
    model: nn.Module,
    numerics: Numerics | str | None = None,
    *,
    operators: Iterable[str] | None = None,
    exclude: str | None = None,
    strict: bool = False,
) -> Report:
    """Replace, in place, every float nonlinearity of a torch module by spiking operators.

    No module is exchanged and no weight is touched.
    Classes, parameters, their names, state_dict, device, dtype and hooks stay as they are.
    A plug replaces a module's `forward` (see `plug`). Attention goes through transformers' attention interface.
    For a transformers model, `save_pretrained` writes the conversion into config.json, and `from_pretrained` repeats
    it.

    numerics   Numerics(...) for every operator, or the name of a preset; None: the default
    operators  names out of `OPERATORS` to use; None: all. A nonlinearity that needs another stays exact
    exclude    regular expression, searched in module paths; a module it matches stays exact, bit for bit
    strict     raise SpikeplugError if a nonlinearity has no spiking operator

    Returns a report of what was replaced, and of what was left and why.
    Excluded places and operators that were not chosen are in the report; they are not errors.
    The report is read from the model's code; `audit` shows what is really executed.

    Errors: SpikeplugError, and the model stays as it was:
    - not a torch module; already converted; compiled, traced or scripted
    - an unknown operator, or one that the model does not use
    - an `exclude` that does not compile, matches none of the places to replace, or leaves none of them
    - strict, and something is left
    """
    numerics = as_numerics(numerics)
    check_request(operators, exclude)
    check_model(model, RECORD)
    places = find(model)
    entries = _decide(places, None if operators is None else tuple(operators), exclude)
    unknown = [place for place in places if not place.operators and not place.pipeline]
    if strict and unknown:
        raise SpikeplugError(
            f"strict: {len(unknown)} places would stay in floating point, the first {unknown[0].path!r} "
            f"({unknown[0].reason}): leave strict out, and see the report and spikeplug.audit."
        )
    plugs, conversion = _plan(model, numerics, places, entries, frozenset(operators or OPERATORS), exclude)
    conversion = replace(conversion, saved_as=saved_as(model, numerics, operators, exclude))
    try:
        _apply(model, plugs, conversion)
    except BaseException:
        _restore(model, conversion)
        raise
    return Report(type(model).__name__, entries)


def revert(model: nn.Module) -> None:
    """Undo `convert`: every module runs its own forward again, with the attention implementation it had before.

    Errors: SpikeplugError, and the model stays as it was, if it is not converted, or a module was removed or wrapped
    since.
    """
    conversion: Conversion | None = vars(model).get(RECORD) if isinstance(model, nn.Module) else None
    if conversion is None:
        raise SpikeplugError(f"{type(model).__name__} is not converted: call revert on the model given to convert.")
    modules = dict(model.named_modules(remove_duplicate=False))
    for path in (*conversion.plugged, *conversion.attending, *conversion.implementations):
        if path not in modules:
            raise SpikeplugError(f"{path} was removed after convert: put it back, then revert.")
    for path in conversion.plugged:
        if plug_of(modules[path]) is None:
            raise SpikeplugError(f"the forward of {path!r} was replaced after convert: put it back, then revert.")
    _restore(model, conversion)


def _decide(places: list[Found], operators: tuple[str, ...] | None, exclude: str | None) -> tuple[Entry, ...]:
    """Return one entry per place.

    Errors: SpikeplugError for a request that would not do what it says.
    """
    for operator in operators or ():
        if not any(operator in place.operators for place in places):
            raise SpikeplugError(f"the model has no {operator} to replace: leave {operator!r} out of operators.")
    wanted = frozenset(operators or OPERATORS)
    # A module at several paths has one forward: if one path is excluded, it is exact at all.
    excluded = {id(place.module) for place in places if exclude is not None and re.search(exclude, place.path)}
    entries = tuple(
        _entry(place, wanted, f"excluded by {exclude!r}" if id(place.module) in excluded else "") for place in places
    )
    chosen = [place.path for place in places if place.operators & wanted]
    if not chosen:
        raise SpikeplugError(
            "the model has nothing to replace: give one with attention, a softmax, a norm, an activation or another "
            "nonlinearity."
        )
    if exclude is not None and not any(re.search(exclude, path) for path in chosen):
        raise SpikeplugError(
            f"exclude={exclude!r} finds none of the paths to replace: correct it, the paths look like {chosen[0]!r}."
        )
    if not any(entry.action == "replaced" for entry in entries):
        raise SpikeplugError(f"exclude={exclude!r} leaves nothing to replace: narrow it.")
    return entries


def _entry(place: Found, wanted: frozenset[str], excluded: str) -> Entry:
    reason = place.reason
    if not reason:
        reason = excluded if place.operators & wanted else "not among the operators chosen"
    action: Action = "left" if reason else "replaced"
    return Entry(place.path, place.name, type(place.module).__name__, action, reason, place.pipeline)


def _plan(
    model: nn.Module,
    numerics: Numerics,
    places: list[Found],
    entries: tuple[Entry, ...],
    wanted: frozenset[str],
    exclude: str | None,
) -> tuple[dict[str, Plug], Conversion]:
    """Return every plug by path, and what `revert` needs. The model is not touched."""
    plugs: dict[str, Plug] = {}
    attending: dict[str, AttentionPlug] = {}
    seen: set[int] = set()  # a module at two paths gets one plug
    around = {path for entry in entries if entry.action == "replaced" for path in _ancestors(entry.path)}
    for place, entry in zip(places, entries, strict=True):
        if not place.operators:
            continue
        replaced = entry.action == "replaced"
        if place.plug is None and "attention" in wanted:
            attending[place.path] = AttentionPlug(numerics if replaced else None, _implementation(place.module))
        if place.path in plugs or id(place.module) in seen:
            continue
        if replaced and place.plug is not None:
            plugs[place.path] = place.plug(numerics, wanted)
        elif entry.reason.startswith("excluded"):
            # Redirections around an excluded module must not apply inside it.
            plugs[place.path] = ScopePlug(place.module, numerics if place.path in around else None, frozenset())
        else:
            continue
        seen.add(id(place.module))
    if not any(plug.numerics for plug in attending.values()):
        attending = {}
    for path in attending:
        module = model.get_submodule(path)
        if path not in plugs and id(module) not in seen:
            seen.add(id(module))
            plugs[path] = HostPlug(module, numerics)
    plugs |= _net(model, numerics, wanted, exclude, seen, around)
    return plugs, Conversion(tuple(plugs), attending, _implementations(model, attending))


def _net(
    model: nn.Module, numerics: Numerics, wanted: frozenset[str], exclude: str | None, seen: set[int], around: set[str]
) -> dict[str, Plug]:
    """Return a scope around the whole model, and scopes that keep it out of excluded modules.

    The scope catches what byte code does not show: functions fetched at run time, modules made on the way.
    """
    net: dict[str, Plug] = {}
    for path, module in model.named_modules():
        excluded = exclude is not None and re.search(exclude, path)
        if id(module) not in seen and excluded and callable(type(module).forward):
            net[path] = ScopePlug(module, numerics if path in around else None, frozenset())
        elif id(module) not in seen and module is model:
            net[path] = ScopePlug(module, numerics, wanted)
    return net


def _implementation(module: nn.Module) -> str:
    return str(module.config._attn_implementation)  # type: ignore[union-attr]


def _implementations(model: nn.Module, attending: Iterable[str]) -> dict[str, str]:
    """Return the attention implementation per config that attention modules, or modules around them, read.

    The key is the path of the first module that holds the config.
    """
    around = {"", *attending}.union(*(_ancestors(path) for path in attending))
    found: dict[str, str] = {}
    seen: set[int] = set()
    for path, module in model.named_modules():
        config = getattr(module, "config", None)
        if attending and path in around and hasattr(config, "_attn_implementation") and id(config) not in seen:
            seen.add(id(config))
            found[path] = _implementation(module)
    return found


def _ancestors(path: str) -> set[str]:
    """Return the paths of all modules around the one at `path`."""
    parts = path.split(".") if path else []
    return {".".join(parts[:depth]) for depth in range(len(parts))}


def _set_implementation(module: nn.Module, implementation: str) -> None:
    # The public setter would also set it on every sub-config, even where attention was not converted.
    module.config._attn_implementation_internal = implementation  # type: ignore[union-attr]


def _apply(model: nn.Module, plugs: dict[str, Plug], conversion: Conversion) -> None:
    setattr(model, RECORD, conversion)
    for plug in plugs.values():
        plug.attach()
    for path, attention in conversion.attending.items():
        setattr(model.get_submodule(path), PLUG, attention)
    for path, implementation in conversion.implementations.items():
        module = model.get_submodule(path)
        _set_implementation(module, IMPLEMENTATION)
        remember_implementation(module.config, implementation)
    if conversion.saved_as is not None:
        model.config.quantization_config = conversion.saved_as  # type: ignore[union-attr]


def _restore(model: nn.Module, conversion: Conversion) -> None:
    """Undo `_apply`, even if it was left half-way."""
    for path, implementation in conversion.implementations.items():
        _set_implementation(model.get_submodule(path), implementation)
    for path in conversion.attending:
        vars(model.get_submodule(path)).pop(PLUG, None)
    for path in conversion.plugged:
        plug = plug_of(model.get_submodule(path))
        if plug is not None:
            plug.detach()
    forget(model)
    vars(model).pop(RECORD, None)
