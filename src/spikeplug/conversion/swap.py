"""Convert and revert models: plan everything, then apply it by assignments only, and undo them all if one fails."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from threading import RLock
from typing import Any

from torch import nn
from transformers.quantizers.auto import AutoHfQuantizer

from spikeplug.conversion.attention import IMPLEMENTATION, PLUG, remember_implementation
from spikeplug.conversion.check import check_model, check_request
from spikeplug.conversion.match import OPERATORS, find
from spikeplug.conversion.patterns import matching
from spikeplug.conversion.plan import Conversion, decide, plan
from spikeplug.conversion.plug import Plug, is_plugged, plug_of
from spikeplug.conversion.recipes.plan import Coding
from spikeplug.conversion.recipes.recipe import Pipeline
from spikeplug.conversion.recipes.request import as_recipe
from spikeplug.conversion.report import Entry, Report
from spikeplug.conversion.spiking_config import forget, saved_as
from spikeplug.conversion.whole.calibration import Calibration, calibration_of
from spikeplug.conversion.whole.coded import free, is_freed, layers_of, restore
from spikeplug.conversion.whole.layout import Layout
from spikeplug.conversion.whole.plan import WholeConversion, find_layout
from spikeplug.conversion.whole.recipe import Whole
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.operators import LINEAR
from spikeplug.presets import as_numerics
from spikeplug.progress import Progress, shown, silent

#: Attribute of a converted model: its `Conversion`.
RECORD = "spikeplug_conversion"
#: Attribute of a module whose config was changed: the attn_implementation that it had.
BEFORE = "spikeplug_implementation"
#: One conversion at a time: of several threads that convert one model, one wins, and the others are refused.
_LOCK = RLock()


def convert(
    model: nn.Module,
    numerics: Numerics | str | None = None,
    *,
    recipe: Whole | Pipeline | str = "operators",
    calibration: Any = None,
    operators: Iterable[str] | None = None,
    exclude: str | None = None,
    strict: bool = False,
    sum_once: bool = False,
    keep: bool = True,
    free_early: bool = False,
    unfinished: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Replace, in place, every float nonlinearity of a torch module by spiking operators; or everything.

    The recipe "operators" exchanges no module and touches no weight.
    Classes, parameters, their names, state_dict, device, dtype and hooks stay as they are.
    A plug replaces a module's `forward` (see `plug`). Attention goes through transformers' attention interface.
    For a transformers model, `save_pretrained` writes the conversion into config.json, and `from_pretrained` repeats
    it.

    The recipe "whole" makes every tensor between the token ids and the logits a spike code: weights become int8, sums
    and products become operators (see `whole`). `revert` brings the float weights back, which the modules keep.

    The recipes "spikezip", "spikellm", "fas", "las" and "phase" add the neurons of these pipelines to the recipe
    "operators", at the tensors that they code (see `recipes`). Weights stay as they are.

    numerics   Numerics(...) for every operator, or the name of a preset; None: the default
    recipe     "operators", "whole", the name of a pipeline, Whole(...) or Pipeline(...)
    calibration  for other recipes than "operators": token ids (batch, tokens), or the model's inputs by name, such as a
                 tokenizer's result; their run says how weights are best rounded, and what the thresholds of neurons
                 are. None: English text, if the model's tokenizer is at hand. False, or without one: weights are
                 rounded to nearest, as the report notes; pipelines refuse
    progress   called with (stage, done, total) while weights are rounded or neurons calibrated; None: shown on a
               terminal
    operators  names out of `OPERATORS` to use; None: all. A nonlinearity that needs another stays exact
    exclude    regular expression, searched in module paths; a module it matches stays exact, bit for bit
    strict     raise SpikeplugError if a nonlinearity has no spiking operator; with the recipe "whole", if anything is
               left in floating point
    sum_once   evaluate each temporal-difference operator of a pipeline once per sequence, on the sum of its inputs:
               [f(ΣX), 0, ..., 0] in place of one evaluation per time step (docs/pipelines.md)
    keep       for the recipe "whole": False frees the float weights after all are rounded; `revert` then refuses
    free_early  with keep=False: free each float weight once its integers are there, which takes the least memory. After
               an error or an interruption the model lacks these weights, and has to be loaded again
    unfinished  for a calibrated recipe "whole": folder that keeps each layer once it is rounded, so that the same call
               goes on after an interruption; it is yours to remove. None: an interrupted call begins anew

    Returns a report of what was replaced, and of what was left and why.
    Excluded places and operators that were not chosen are in the report; they are not errors.
    The report is read from the model's code; `audit` shows what is really executed.

    Errors: SpikeplugError, and the model stays as it was (with free_early: but for the weights that were freed):
    - not a torch module; already converted; compiled, traced or scripted
    - an unknown operator, or one that the model does not use
    - an `exclude` that does not compile, matches none of the places to replace, or leaves none of them
    - strict, and something is left
    - a neuron of a pipeline that cannot send what the model computes, or nothing to calibrate it with
    - sum_once with another recipe, or in a model without a temporal-difference operator
    - a quantiser beside temporal-difference operators that is no neuron
    """
    numerics = as_numerics(numerics)
    check_request(operators, exclude)
    wanted = as_recipe(recipe, operators, calibration)
    whole = isinstance(wanted, Whole)
    if not keep and not whole:
        raise SpikeplugError('keep=False goes with recipe="whole": other recipes change no weight.')
    if free_early and keep:
        raise SpikeplugError("free_early frees the float weights that keep=True keeps: add keep=False.")
    if unfinished is not None and (not whole or calibration is False):
        raise SpikeplugError('unfinished goes with recipe="whole" and a calibration: nothing else takes long.')
    if sum_once and wanted is not None:
        raise SpikeplugError('sum_once goes with recipe="operators", after the pipeline\'s own recipe: leave one out.')
    with _LOCK:
        check_model(model, RECORD)
        given = Calibration(None) if wanted is None else calibration_of(model, calibration)
        if isinstance(wanted, Pipeline) and given.batch is None:
            raise SpikeplugError(
                f"the recipe {wanted.name} calibrates thresholds: give calibration=tokenizer(text, "
                'return_tensors="pt"), or the arguments of the model\'s forward by name.'
            )
        with shown(progress) as tell:
            return _convert(
                model, numerics, operators, exclude, strict, wanted, given, tell, keep, free_early, unfinished, sum_once
            )


def convert_to_load(
    model: nn.Module, numerics: Numerics, operators: Iterable[str] | None, exclude: str | None, layout: Layout | None
) -> None:
    """Convert a model whose weights are still to be loaded. With a layout, make it whole, with room for int8."""
    with _LOCK:
        check_model(model, RECORD)
        _convert(model, numerics, operators, exclude, False, layout, Calibration(None), silent)


def _convert(
    model: nn.Module,
    numerics: Numerics,
    operators: Iterable[str] | None,
    exclude: str | None,
    strict: bool,
    recipe: Whole | Layout | Pipeline | None,
    calibration: Calibration,
    progress: Progress,
    keep: bool = True,
    free_early: bool = False,
    unfinished: str | os.PathLike[str] | None = None,
    sum_once: bool = False,
) -> Report:
    """Convert the model, see `convert`. recipe: a Layout for a model whose weights are still to be loaded."""
    matched = matching(exclude, (path for path, _ in model.named_modules(remove_duplicate=False)))
    places = find(model)
    coding = Coding(model, recipe, numerics, places, matched) if isinstance(recipe, Pipeline) else None
    exact = coding is not None and coding.pipeline.nonlinearities == "exact"
    layers = () if recipe is None else (*coding.sites, *coding.attending) if coding else layers_of(model)
    entries = decide(places, None if operators is None else tuple(operators), exclude, matched, layers)
    unknown = [place for place in places if not place.operators and not place.pipeline]
    if strict and (unknown or exact):
        if exact:
            raise SpikeplugError('strict goes with spiking nonlinearities: leave it out, or nonlinearities="exact".')
        raise SpikeplugError(
            f"strict: {len(unknown)} places would stay in floating point, the first {unknown[0].path!r} "
            f"({unknown[0].reason}): leave strict out, and see the report and spikeplug.audit."
        )
    whole = None
    wanted = frozenset(operators or OPERATORS)
    if isinstance(recipe, (Whole, Layout)):
        wanted |= frozenset(LINEAR)
    nothing: tuple[dict[str, Plug], Conversion] = {}, Conversion((), {}, {})
    plugs, conversion = nothing if exact else plan(model, numerics, places, entries, wanted, matched, sum_once)
    if coding is not None:
        calibrated, plugs, conversion = coding.plan(*nothing), *coding.plan(plugs, conversion)
        coding.check(conversion)
    elif isinstance(recipe, Layout):
        whole = WholeConversion(model, numerics, recipe)
    elif isinstance(recipe, Whole):
        found, prepared, notes, sample = find_layout(model, recipe, plugs, matched, calibration.batch)
        notes = [calibration.note, *notes] if calibration.note else notes
        whole = WholeConversion(model, numerics, found, prepared, notes, sample, matched)
    if whole is not None:
        plugs = whole.plan(plugs)
        conversion = replace(conversion, plugged=tuple(plugs), attending=whole.attending(conversion.attending))
    needed: dict[str, frozenset[str]] = {}
    for place in places:
        needed[place.path] = needed.get(place.path, frozenset()) | frozenset(place.operators)
    layout = None if whole is None else whole.layout
    saved = {} if coding else saved_as(model, numerics, operators, exclude, needed, matched, layout)
    report = Report(type(model).__name__, entries)
    conversion = replace(conversion, saved_as=saved, report=report)
    try:
        if coding is not None:
            # With exact nonlinearities, as the pipelines do, so that thresholds are the same whichever run then.
            assert calibration.batch is not None
            _apply(model, *calibrated)
            coding.calibrate(calibration.batch, progress)
            _restore(model)
        _apply(model, plugs, conversion)
        if coding is not None:
            report = Report(type(model).__name__, coding.entries(entries), coding.notes)
            setattr(model, RECORD, replace(conversion, report=report))
        if whole is not None:
            if isinstance(recipe, Layout):
                whole.install_empty()
            else:
                whole.install(calibration.batch, progress, unfinished, free_early)
            report = Report(type(model).__name__, whole.entries(entries), tuple(whole.notes))
            if strict:
                _check_whole(report.entries)
            setattr(model, RECORD, replace(conversion, report=report))
            if not keep:
                free(model)
    except BaseException as error:
        freed = sum(map(is_freed, model.modules())) if free_early else 0
        _restore(model)
        if freed:
            error.add_note(f"The float weights of {freed} layers were freed by then: load the model again.")
        raise
    return report


def _check_whole(entries: Iterable[Entry]) -> None:
    """Raise SpikeplugError if something is left in float that was not excluded."""
    left = [entry for entry in entries if entry.action == "left" and not entry.reason.startswith("excluded")]
    if left:
        raise SpikeplugError(
            f"strict: {len(left)} places would stay in floating point, the first {left[0].operator} at "
            f"{left[0].path!r} ({left[0].reason}): leave strict out, and see the report and spikeplug.audit."
        )


def revert(model: nn.Module) -> tuple[str, ...]:
    """Undo `convert` in the model and all modules below it, wherever they stand by now.

    Every module runs its own forward again, with the attention implementation it had before, bit for bit.

    Returns the paths that were converted and are not below the model any more, or whose forward somebody else has
    wrapped since (the wrapper stays, and runs the module's own forward); both are warned about.
    Errors: SpikeplugError if nothing below the model is converted.
    """
    with _LOCK:
        if not isinstance(model, nn.Module) or not any(map(_is_changed, model.modules())):
            raise SpikeplugError(
                f"{type(model).__name__} is not converted: call revert on the model given to convert, or a part of it."
            )
        freed = [path for path, module in model.named_modules() if is_freed(module)]
        if freed:
            raise SpikeplugError(
                f"the model cannot be reverted: the float weights of {len(freed)} layers, the first {freed[0]!r}, were "
                "freed or never loaded; load the original model again."
            )
        missing = _missing(model)
        _restore(model)
    if missing:
        warnings.warn(
            f"{len(missing)} places were moved, removed or wrapped after convert, the first {missing[0]!r}: everything "
            "below the model is reverted; call revert on what was taken out, too.",
            UserWarning,
            stacklevel=2,
        )
    return missing


def report_of(model: nn.Module) -> Report | None:
    """Return what was replaced and left in a converted model, or in the converted part of a model; None: nothing is."""
    records = (vars(module).get(RECORD) for module in model.modules())
    return next((record.report for record in records if record is not None), None)


def _is_changed(module: nn.Module) -> bool:
    """Return whether the module has an attribute that only a conversion sets: a record, a plug or the like."""
    state = vars(module)
    return RECORD in state or PLUG in state or BEFORE in state or plug_of(module) is not None


def _missing(model: nn.Module) -> tuple[str, ...]:
    """Return the paths, below `model`, at which a conversion put a plug and none is in place any more."""
    found = []
    for path, module in model.named_modules():
        conversion: Conversion | None = vars(module).get(RECORD)
        if conversion is None:
            continue
        below = dict(module.named_modules(remove_duplicate=False))
        for place in conversion.plugged:
            if place not in below or not is_plugged(below[place]):
                found.append(".".join(part for part in (path, place) if part))
    return tuple(found)


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
        setattr(module, BEFORE, implementation)
        _set_implementation(module, IMPLEMENTATION)
        remember_implementation(module.config, implementation)
    for path, config in conversion.saved_as.items():
        part: Any = model.get_submodule(path)
        part.config.quantization_config = config
        if config.layout is not None and config.layout.recipe.weight_group:
            part.hf_quantizer = AutoHfQuantizer.from_config(config)  # save_pretrained asks it for packed weights


def _restore(model: nn.Module) -> None:
    """Remove plugs, records and configs of conversions from the model and all modules below it.

    It also works on a conversion that failed half-way.
    """
    for module in model.modules():
        state = vars(module)
        if BEFORE in state:
            _set_implementation(module, state.pop(BEFORE))
        state.pop(PLUG, None)
        restore(module)
        plug = plug_of(module)
        if plug is not None:
            plug.detach()
        conversion: Conversion | None = state.pop(RECORD, None)
        for path in () if conversion is None else conversion.saved_as:
            with suppress(AttributeError):  # it was moved or removed
                forget(module.get_submodule(path))
