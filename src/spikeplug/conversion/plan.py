"""Plan a conversion: which module gets which plug. The model is not touched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import nn

from spikeplug.conversion.attention import AttentionPlug, own_function
from spikeplug.conversion.match import NEURON, OPERATORS, Found
from spikeplug.conversion.neurons import neurons_in
from spikeplug.conversion.plug import HostPlug, Plug, ScopePlug
from spikeplug.conversion.report import Action, Entry, Report
from spikeplug.conversion.sequences import Sequences, is_quantiser, is_temporal_difference
from spikeplug.conversion.spiking_config import SpikingConfig
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics


@dataclass(frozen=True)
class Conversion:
    """Say what was converted: a plain attribute of the model, which refers to modules by path.

    What `revert` needs lies in the modules themselves, so that it goes wherever they go.

    plugged          paths of the modules that hold a plug
    attending        path of each attention module -> what it runs
    implementations  path of each module whose config was changed -> the attn_implementation it had
    saved_as         what each config.json says of the conversion, by the path of the model that has it
    report           what was replaced and left
    """

    plugged: tuple[str, ...]
    attending: dict[str, AttentionPlug]
    implementations: dict[str, str]
    saved_as: dict[str, SpikingConfig] = field(default_factory=dict)
    report: Report | None = None


def decide(
    places: list[Found],
    operators: tuple[str, ...] | None,
    exclude: str | None,
    matched: frozenset[str],
    layers: tuple[str, ...] = (),
) -> tuple[Entry, ...]:
    """Return one report entry per place: whether it will be replaced, or else why it is left.

    places     every place where the model computes something
    operators  names of the operators to use; None: all
    exclude    the regular expression of the request, for messages
    matched    the module paths that `exclude` matches
    layers     paths of layers that get integer weights, where the whole model is to spike

    Errors: SpikeplugError if an operator has no place, there is nothing to replace, or `exclude` matches none or all of
    the places to replace.
    """
    for operator in operators or ():
        if not any(operator in place.operators for place in places):
            raise SpikeplugError(f"the model has no {operator} to replace: leave {operator!r} out of operators.")
    wanted = frozenset(operators or OPERATORS)
    # A module at several paths has one forward: if one path is excluded, it is exact at all.
    excluded = {id(place.module) for place in places if place.path in matched}
    entries = tuple(
        _entry(place, wanted, f"excluded by {exclude!r}" if id(place.module) in excluded else "") for place in places
    )
    chosen = [*(place.path for place in places if place.operators & wanted), *layers]
    if not chosen:
        others = dict.fromkeys(place.name for place in places if not place.operators and not place.pipeline)
        if others:
            raise SpikeplugError(
                f"the model has nothing to replace: there is no spiking operator for {_listed(others)}; write it in "
                "functions that have one (docs/ops.md), or give another model."
            )
        raise SpikeplugError(
            "the model has nothing to replace: give one with attention, a softmax, a norm, an activation or another "
            "nonlinearity."
        )
    if exclude is not None and matched.isdisjoint(chosen):
        raise SpikeplugError(
            f"exclude={exclude!r} finds none of the paths to replace: correct it, the paths look like {chosen[0]!r}."
        )
    if not any(entry.action == "replaced" for entry in entries) and matched.issuperset(layers):
        raise SpikeplugError(f"exclude={exclude!r} leaves nothing to replace: narrow it.")
    return entries


def _entry(place: Found, wanted: frozenset[str], excluded: str) -> Entry:
    reason = place.reason
    if not reason:
        reason = excluded if place.operators & wanted else "not among the operators chosen"
    action: Action = "left" if reason else "replaced"
    note = ""
    if place.plug is None and not reason:
        dropped = own_function(implementation_of(place.module))
        note = f"in place of the attention function {dropped!r}, which no longer runs" if dropped else ""
    return Entry(place.path, place.name, type(place.module).__name__, action, reason, place.pipeline, note)


def _listed(names: Iterable[str], most: int = 5) -> str:
    first, *rest = names
    return ", ".join((first, *rest[: most - 1])) + (f" and {len(rest) + 1 - most} more" if len(rest) >= most else "")


def plan(
    model: nn.Module,
    numerics: Numerics,
    places: list[Found],
    entries: tuple[Entry, ...],
    wanted: frozenset[str],
    matched: frozenset[str],
    sum_once: bool = False,
) -> tuple[dict[str, Plug], Conversion]:
    """Return the plug of each module that gets one, by path, and the conversion's record. The model is not touched.

    places, entries  every place in the model, and the report entry of each
    wanted           names of the operators to use
    matched          module paths that the request excludes
    sum_once         evaluate temporal-difference operators once per sequence

    Errors: SpikeplugError for sum_once in a model without such operators.
    """
    plugs: dict[str, Plug] = {}
    attending: dict[str, AttentionPlug] = {}
    seen: set[int] = set()  # a module at two paths gets one plug
    around = {path for entry in entries if entry.action == "replaced" for path in _ancestors(entry.path)}
    for place, entry in zip(places, entries, strict=True):
        if place.name == NEURON and id(place.module) not in seen:
            # Redirections around a neuron must not apply inside it.
            plugs[place.path] = ScopePlug(place.module, None, frozenset())
            seen.add(id(place.module))
        if not place.operators:
            continue
        replaced = entry.action == "replaced"
        if place.plug is None and "attention" in wanted:
            attending[place.path] = AttentionPlug(numerics if replaced else None, implementation_of(place.module))
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
    plugs |= _net(model, numerics, wanted, matched, seen, around)
    _add_sequences(model, plugs, numerics, wanted, matched, sum_once)
    return plugs, Conversion(tuple(plugs), attending, implementations(model, attending))


def _net(
    model: nn.Module,
    numerics: Numerics,
    wanted: frozenset[str],
    matched: frozenset[str],
    seen: set[int],
    around: set[str],
) -> dict[str, Plug]:
    """Return plugs by path: one redirects calls in the whole model, the others keep excluded modules exact.

    matched  paths of the excluded modules
    seen     ids of the modules that have a plug already; they get no second one
    around   paths of the modules that have a replaced place below them

    The redirection catches what byte code does not show: functions fetched at run time, modules made on the way.
    """
    net: dict[str, Plug] = {}
    for path, module in model.named_modules():
        if id(module) not in seen and path in matched and callable(type(module).forward):
            net[path] = ScopePlug(module, numerics if path in around else None, frozenset())
        elif id(module) not in seen and module is model:
            net[path] = ScopePlug(module, numerics, wanted)
    return net


def _add_sequences(
    model: nn.Module,
    plugs: dict[str, Plug],
    numerics: Numerics,
    wanted: frozenset[str],
    matched: frozenset[str],
    sum_once: bool,
) -> None:
    """Let the plugs of a model with temporal-difference operators check its sequences and, if asked to, sum once.

    Errors: SpikeplugError for sum_once without such operators, and for a quantiser beside them that is no neuron.
    """
    operators = {path: module for path, module in model.named_modules() if is_temporal_difference(module)}
    if sum_once and not operators:
        raise SpikeplugError(
            "sum_once: the model has no operator that accumulates over time and takes differences: leave sum_once out."
        )
    neurons = neurons_in(model) if operators else set()
    for path, module in model.named_modules() if operators else ():
        if path not in matched and id(module) not in neurons and is_quantiser(module):
            raise SpikeplugError(
                f"{path!r} ({type(module).__name__}) rounds each step of a model over time, and is no neuron: the "
                "recipe did not find this quantiser; give it the attributes that the recipe looks for, or exclude it."
            )
    if operators and isinstance(around := plugs.get(""), ScopePlug):
        around.sequences = Sequences(model, list(operators.values()), sum_once)
    for path, module in operators.items() if sum_once else ():
        if path not in matched and isinstance(
            plug := plugs.setdefault(path, ScopePlug(module, numerics, wanted)), ScopePlug
        ):
            plug.sum_once = True


def implementation_of(module: nn.Module) -> str:
    """Return the attn_implementation of an attention module."""
    return str(module.config._attn_implementation)  # type: ignore[union-attr]


def implementations(model: nn.Module, attending: Iterable[str]) -> dict[str, str]:
    """Return the attn_implementation, by module path, of every module whose config the conversion has to change.

    These are the modules that share a config with the attention modules at `attending`, or with a module around them.
    """
    around = {"", *attending}.union(*(_ancestors(path) for path in attending))
    if not attending:
        return {}
    modules = [(path, module) for path, module in model.named_modules() if _has_implementation(module)]
    changed = {id(module.config) for path, module in modules if path in around}
    return {path: implementation_of(module) for path, module in modules if id(module.config) in changed}


def _has_implementation(module: nn.Module) -> bool:
    return hasattr(getattr(module, "config", None), "_attn_implementation")


def _ancestors(path: str) -> set[str]:
    """Return the paths of all modules around the one at `path`."""
    parts = path.split(".") if path else []
    return {".".join(parts[:depth]) for depth in range(len(parts))}
