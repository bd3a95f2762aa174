"""Convert and revert models: plan everything, then apply it by assignments only, and undo them all if one fails."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from torch import nn

from spikeplug.conversion.attention import IMPLEMENTATION, PLUG, remember_implementation
from spikeplug.conversion.check import check_model, check_request
from spikeplug.conversion.match import OPERATORS, find
from spikeplug.conversion.plan import Conversion, decide, plan
from spikeplug.conversion.plug import Plug, plug_of
from spikeplug.conversion.report import Report
from spikeplug.conversion.spiking_config import forget, saved_as
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.presets import as_numerics

RECORD = "spikeplug_conversion"


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
    entries = decide(places, None if operators is None else tuple(operators), exclude)
    unknown = [place for place in places if not place.operators and not place.pipeline]
    if strict and unknown:
        raise SpikeplugError(
            f"strict: {len(unknown)} places would stay in floating point, the first {unknown[0].path!r} "
            f"({unknown[0].reason}): leave strict out, and see the report and spikeplug.audit."
        )
    plugs, conversion = plan(model, numerics, places, entries, frozenset(operators or OPERATORS), exclude)
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
