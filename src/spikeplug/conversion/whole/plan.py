"""The recipe `whole`: every tensor between the token ids and the logits is a spike code.

It adds to the recipe `operators`, which replaces nonlinearities:
- linear layers, embeddings and convolutions get integer weights (`coded.py`)
- sums, products and constant scales are operators (`functions.py`)
- rotary factors come from whole positions (`rotary.py`)
- keys and values are codes of few levels

Weights are folded and rotated first (spikeplug.weights), then rounded, layer by layer, in one run over the calibration
tokens: each layer rounds its weight when its inputs arrive, which come from layers that are rounded already.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spikeplug.conversion.attention import AttentionPlug
from spikeplug.conversion.auditing import executed_in_float
from spikeplug.conversion.match import NEURON, find
from spikeplug.conversion.patterns import matching
from spikeplug.conversion.plug import HostPlug, NormPlug, Plug
from spikeplug.conversion.report import Entry
from spikeplug.conversion.whole.cache import CachingPlug, packs
from spikeplug.conversion.whole.coded import (
    CodedPlug,
    EmbeddingPlug,
    coded_plug,
    columns_of,
    exchange,
    free,
    is_layer,
    untie,
)
from spikeplug.conversion.whole.layout import Layout
from spikeplug.conversion.whole.readers import read_otherwise
from spikeplug.conversion.whole.recipe import Whole
from spikeplug.conversion.whole.rotary import RotaryPlug, find_rotary
from spikeplug.conversion.whole.rounding import Rounding
from spikeplug.conversion.whole.unfinished import open_unfinished
from spikeplug.errors import SpikeplugError
from spikeplug.hadamard import apply_hadamard, factors_of
from spikeplug.numerics import Numerics
from spikeplug.operators.linear.levels import MOST_ROTATION, half_places
from spikeplug.operators.linear.linear import dense
from spikeplug.progress import Progress, silent
from spikeplug.weights import Prepared, prepare
from spikeplug.weights.folding import in_parts
from spikeplug.weights.inputs import tiny_inputs

#: Least cosine of a weight and its integers: unrelated weights have about 0, weights of three levels about 0.7.
_ALIKE = 0.5


@dataclass
class WholeConversion:
    """Make a model whole: `plan` the plugs; after they are attached, `install` integer weights.

    model     the model
    numerics  of all operators
    layout    which module does what
    prepared  folded and rotated weights; None: the model's own
    notes     sentences for the report
    sample    arguments of the model's forward, for a run that shows what is left; None: there are none
    matched   paths of excluded modules
    """

    model: nn.Module
    numerics: Numerics
    layout: Layout
    prepared: Prepared | None = None
    notes: list[str] = field(default_factory=list)
    sample: Mapping[str, Any] | None = None
    matched: frozenset[str] = frozenset()
    coded: dict[str, CodedPlug] = field(default_factory=dict)

    def plan(self, plugs: Mapping[str, Plug]) -> dict[str, Plug]:
        """Return the plugs of the recipe `operators` together with those of a whole model, by path."""
        layout, whole = self.layout, dict(plugs)
        for path, plug in plugs.items():
            if isinstance(plug, NormPlug):
                plug.whole = True
                if path in layout.norms:
                    operator: Any = layout.norms[path]
                    plug.norm = replace(plug.norm, operator=operator, weight=None, bias=None, offset=0.0)
        modules = dict(self.model.named_modules(remove_duplicate=False))
        for path in layout.coded:
            module = modules.get(path)
            kind = None if module is None else coded_plug(module)
            if module is None or kind is None:
                raise SpikeplugError(f"{path} is no layer that takes int8 weights: load the class that was saved.")
            block = layout.recipe.block if path in layout.blocks else layout.recipe.rotated_block
            rotation, group = layout.rotations.get(path, 0), layout.recipe.weight_group
            plug = kind(module, self.numerics, layout.recipe.inputs, block, rotation, group)
            whole[path] = self.coded[path] = plug
        for path, plug in plugs.items():
            if type(plug) is HostPlug and packs(plug.module):
                whole[path] = CachingPlug(plug.module, self.numerics)
        for path, repeat in layout.rotary.items():
            if "inv_freq" not in getattr(modules.get(path), "_buffers", {}):
                raise SpikeplugError(f"{path} is no rotary embedding: load the class that was saved.")
            whole[path] = RotaryPlug(modules[path], self.numerics, repeat)
        return whole

    def entries(self, entries: Iterable[Entry]) -> tuple[Entry, ...]:
        """Return the report entries of the recipe `operators` with what is linear replaced, too.

        What one run of the model still executes in float is left, under its name in ATen.
        """
        run = {} if self.sample is None else self._executed()
        kept = [self._entry(entry, run) for entry in entries]
        known = {(entry.path, entry.operator) for entry in kept} | {
            (entry.path, op) for entry in kept if entry.action == "left" for op in run.get(entry.path, ())
        }
        left = [(path, op) for path, ops in run.items() for op in ops if (path, op) not in known]
        classes = {path: type(module).__name__ for path, module in self.model.named_modules(remove_duplicate=False)}
        return (*kept, *(Entry(path, op, classes.get(path, path), "left", self._reason(path)) for path, op in left))

    def _executed(self) -> dict[str, list[str]]:
        """Return the names of the operations that the model executes in float in one run, by path."""
        found: dict[str, list[str]] = {}
        assert self.sample is not None
        with calibrating(self.model):
            for entry in executed_in_float(self.model, self.sample).entries:
                found.setdefault(entry.path, []).append(entry.op)
        return found

    def _entry(self, entry: Entry, run: Mapping[str, list[str]]) -> Entry:
        if not entry.pipeline or entry.operator == NEURON:
            return entry
        if entry.path in self.matched:
            return replace(entry, reason="excluded")
        layer = is_layer(self.model.get_submodule(entry.path)) and entry.path not in self.coded
        if layer and (self.sample is None or entry.path in run):  # without a run, nobody saw that it did nothing
            return replace(entry, reason=f"no integer form of {entry.class_name}")
        return replace(entry, action="replaced", reason="", pipeline=False)

    def _reason(self, path: str) -> str:
        return "excluded" if path in self.matched else "computed in floating point"

    def attending(self, plugs: Mapping[str, AttentionPlug]) -> dict[str, AttentionPlug]:
        """Return attention plugs whose keys and values are codes of few levels."""
        return {
            path: replace(plug, levels=self.layout.recipe.cache) if plug.numerics else plug
            for path, plug in plugs.items()
        }

    def install(
        self,
        batch: Mapping[str, Any] | None,
        progress: Progress,
        unfinished: str | os.PathLike[str] | None = None,
        freeing: bool = False,
    ) -> None:
        """Round all weights: with the inputs of a run over `batch`, or without (None) each to its nearest level.

        unfinished  folder that keeps layers which were rounded with inputs, see `open_unfinished`; None: nothing does
        freeing     free each float weight once its integers are there
        """
        kept = None
        if batch is not None and unfinished is not None:
            kept = open_unfinished(unfinished, self.model, self.numerics, self.layout, batch)
        untie(self.model)
        rounding = Rounding(self.layout.recipe, len(self.coded), progress, kept, freeing)
        grouped = [path for path, plug in self.coded.items() if getattr(plug.module, "groups", 1) > 1]
        for path, plug in self.coded.items():
            plug.path, plug.dense = path, partial(self._dense, path, plug)
            if batch is None or isinstance(plug, EmbeddingPlug) or path in grouped:
                rounding.nearest(plug)
            else:
                plug.round = rounding
        self._exchange_bare()
        if batch is not None:
            with calibrating(self.model):
                self.model(**batch)
        missed = [path for path, plug in self.coded.items() if plug.dense is not None]
        for path in missed:
            rounding.nearest(self.coded[path])
        if missed and batch is not None:
            self.notes.append(
                f"The calibration tokens never reached {len(missed)} layers, the first {missed[0]}: they are rounded "
                "to nearest. Give more tokens."
            )
        if grouped and batch is not None:
            self.notes.append(
                f"Convolutions in groups are rounded to nearest, {len(grouped)} of them, the first {grouped[0]}."
            )
        if rounding.dead:
            path, count = next(iter(rounding.dead.items()))
            self.notes.append(
                f"Channels that were 0 in all of calibration have weights rounded to nearest: {count} in {path}, the "
                f"first of {len(rounding.dead)} layers. Give more tokens."
            )

    def install_empty(self) -> None:
        """Put empty integer weights into the modules, whose own weights are gone then; loading fills them."""
        untie(self.model)
        for path, plug in self.coded.items():
            weight, (rows, columns) = plug.own("weight"), plug.rows_and_columns
            bias = weight.new_empty(rows, dtype=torch.float32) if path in self.layout.biases else None
            threshold = weight.new_empty(rows, dtype=torch.int32)
            mantissa = weight.new_empty((rows, columns), dtype=torch.int8)
            plug.install(mantissa, threshold, weight.new_empty((), dtype=torch.int32), bias)
        free(self.model)

    def _dense(self, path: str, plug: CodedPlug) -> tuple[Tensor, Tensor | None]:
        changed: Mapping[str, Tensor] = {} if self.prepared is None else self.prepared.weights
        weight = changed.get(f"{path}.weight", plug.own("weight"))
        bias = changed.get(f"{path}.bias", plug.module._parameters.get("bias"))
        rows, order = plug.as_rows(weight.detach()), plug.rotation
        if order:
            online = self.prepared is not None and path in self.prepared.online
            rows = rows if online else in_parts(partial(apply_hadamard, order=order), rows, 0, rows.dtype)
            rows = rows * (2 ** half_places(order) / order**0.5)  # the operator divides by a power of two
        return rows, None if bias is None else bias.detach()

    def _exchange_bare(self) -> None:
        """Put folded and rotated parameters of no coded layer, such as a class token, into their modules."""
        changed: Mapping[str, Tensor] = {} if self.prepared is None else self.prepared.weights
        for name in changed:
            path, _, own = name.rpartition(".")
            if path not in self.coded:
                exchange(self.model.get_submodule(path), **{own: changed[name]})


def unrounded(
    model: nn.Module, whole: nn.Module, inputs: Mapping[str, Any] | None = None, progress: Progress = silent
) -> dict[str, Tensor]:
    """Return the float weights, (rows, columns) by path, that the integers of a whole model stand for.

    model   the exact model that the whole one was made from, which is not changed: its weights are folded and rotated
            once more
    whole   the whole model, converted or loaded
    inputs  arguments of the model's forward, to follow its tensors with; None: tiny ones are made

    Errors: SpikeplugError if the integers do not stand for the model's weights.
    """
    config: Any = whole.config
    layout: Layout = config.quantization_config.layout
    matched = matching(config.quantization_config.exclude, (path for path, _ in model.named_modules()))
    prepared, numerics = None, config.quantization_config.numerics
    progress("Folding weights", 0, 1)
    if layout.recipe.rotate and not matched:
        plugs = {found.path: found.plug(numerics, frozenset()) for found in find(model) if found.plug is not None}
        norms = {path: plug.norm for path, plug in plugs.items() if isinstance(plug, NormPlug)}
        prepared, _ = _prepared(model, norms, _samples(model, inputs))
    conversion = WholeConversion(model, numerics, layout, prepared)
    conversion.plan({})
    found = {}
    for done, (path, plug) in enumerate(conversion.coded.items()):
        progress("Folding weights", done, len(conversion.coded))
        found[path] = conversion._dense(path, plug)[0].contiguous()
        module: Any = whole.get_submodule(path)
        integers = dense(plug.as_rows(module.weight), module.weight_threshold, module.weight_unit, torch.float32)
        likeness = torch.cosine_similarity(found[path].flatten(), integers.flatten(), 0)
        if not likeness >= _ALIKE:  # nor NaN
            raise SpikeplugError(
                f"the integers of {path} do not stand for its weight in the exact model: give the float model that the "
                "whole one was made from, or convert that again with this version."
            )
    return found


@contextmanager
def calibrating(model: nn.Module) -> Iterator[None]:
    """Let the model run in the block in eval mode and without gradients.

    Errors: SpikeplugError if it does not run on what it is given.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    except SpikeplugError:
        raise
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError) as error:
        raise SpikeplugError(
            f"the model does not run on calibration ({type(error).__name__}: {error}): give the arguments that its "
            "forward takes, by name, in a size that it takes."
        ) from error
    finally:
        for module in training:
            module.training = True


def check_precision(model: nn.Module) -> None:
    """Raise SpikeplugError if parameters have less than 32 bits: codes of 17 bits and more do not fit into them.

    The same if they have no numbers.
    """
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise SpikeplugError(f"{name} is on the meta device, without numbers: load the model first.")
        if parameter.is_floating_point() and parameter.element_size() < 4:
            raise SpikeplugError(
                f"{name} is {parameter.dtype}, which does not hold the codes of a whole spiking model: call "
                "model.float() first, or load the model with dtype=torch.float32."
            )


def find_layout(
    model: nn.Module,
    recipe: Whole,
    plugs: Mapping[str, Plug],
    matched: frozenset[str],
    inputs: Mapping[str, Any] | None,
) -> tuple[Layout, Prepared | None, list[str], Mapping[str, Any] | None]:
    """Return what each module of a model that is to become whole does, its new weights, if any, notes and a sample.

    plugs    those of the recipe `operators`
    matched  paths of excluded modules; they keep their float weights, so nothing is folded or rotated
    inputs   arguments of the model's forward, to follow its tensors with; None: tiny ones are made

    Errors: SpikeplugError for weights of less than 32 bits, and for inputs on which the model does not run.
    """
    check_precision(model)
    taken = {id(plug.module) for plug in plugs.values()}
    samples, notes = _samples(model, inputs), list[str]()
    prepared = None
    if recipe.rotate and matched:
        notes.append("Weights are neither folded nor rotated: excluded modules keep theirs.")
    elif recipe.rotate:
        norms = {path: plug.norm for path, plug in plugs.items() if isinstance(plug, NormPlug)}
        prepared, reason = _prepared(model, norms, samples)
        notes += [f"Weights are neither folded nor rotated: {reason}"] if prepared is None else prepared.kept
    coded, rotary = [], {}
    for path, module in model.named_modules():
        if path in matched:
            continue
        if (repeat := find_rotary(module)) is not None:  # also if its waves have a plug
            rotary[path] = repeat
        elif id(module) not in taken and coded_plug(module) is not None:
            coded.append(path)
    sample = samples[-1] if samples else None
    if sample is None:
        notes.append(
            "The model was not run, as it does not say what it takes: the report may miss what it computes in floating "
            "point. Give calibration, the arguments of its forward."
        )
    with calibrating(model):
        otherwise = read_otherwise(model, coded, sample)
    notes += [f"The weight of {path} stays float: code that no plug replaces reads it." for path in sorted(otherwise)]
    coded = [path for path in coded if path not in otherwise]
    online: Mapping[str, int] = {} if prepared is None else prepared.online
    flat = frozenset(online) | (frozenset() if prepared is None else _rotated_inputs(prepared))
    turned = _turned(model, coded, flat) if recipe.rotate else {}
    blocks = tuple(path for path in coded if path not in flat and path not in turned)
    unrotated = [path for path in blocks if not isinstance(model.get_submodule(path), nn.Embedding)]
    if unrotated and recipe.rotate:
        notes.append(
            f"The inputs of {len(unrotated)} layers, the first {unrotated[0]}, are not rotated: they have a step per "
            f"{f'{recipe.block} channels' if recipe.block else 'vector'}."
        )
    layout = Layout(
        recipe,
        coded=tuple(coded),
        blocks=blocks,
        rotations={path: online[path] for path in coded if path in online} | turned,
        norms={} if prepared is None else {path: norm.operator for path, norm in prepared.norms.items()},
        rotary=rotary,
        biases=() if prepared is None else tuple(name.rpartition(".")[0] for name in prepared.made),
    )
    return layout, prepared, notes, sample


def _samples(model: nn.Module, inputs: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """Return arguments of the model's forward: tiny ones, if it says what it takes, and `inputs`.

    Token ids alone tell nothing more than tiny ones do, and take longer.
    """
    found: list[Mapping[str, Any]] = []
    with suppress(SpikeplugError):
        found.append(tiny_inputs(model))
    if inputs is not None and not (found and set(inputs) == {"input_ids"}):
        found.append(inputs)
    return found


def _prepared(
    model: nn.Module, norms: Mapping[str, Any], samples: list[Mapping[str, Any]]
) -> tuple[Prepared | None, str]:
    """Return the model's folded and rotated weights, or None and the reason why there are none."""
    reason = "the model does not say what it takes; give calibration, the arguments of its forward."
    for sample in samples:
        try:
            return prepare(model, norms, inputs=sample, online=MOST_ROTATION), ""
        except SpikeplugError as error:
            reason = str(error)
    return None, reason


def _turned(model: nn.Module, coded: Iterable[str], flat: frozenset[str]) -> dict[str, int]:
    """Return the order of a Hadamard matrix, by path, for layers whose input has to be rotated as it arrives.

    These are the layers that read what could not be rotated before (`flat` are those that need nothing), if a Hadamard
    matrix of their width can be built.
    """
    widths = {}
    for path in coded:
        module = model.get_submodule(path)
        if path not in flat and not isinstance(module, nn.Embedding) and getattr(module, "groups", 1) == 1:
            widths[path] = columns_of(module)
    return {path: width for path, width in widths.items() if 1 < width <= MOST_ROTATION and factors_of(width)}


def _rotated_inputs(prepared: Prepared) -> frozenset[str]:
    """Return the paths of layers that read a rotated residual stream, or rotated values."""
    turned, found = set(prepared.rotated.values()), prepared.structure
    readers = [reader for value in found.values if not value.reason for reader in value.readers]
    for stream in found.streams:
        if stream.name in turned:
            norms = [norm for norm in found.norms if norm.path in stream.norms]
            readers += [*stream.readers, *(reader for norm in norms for reader in norm.readers)]
    return frozenset(reader.path for reader in readers)
