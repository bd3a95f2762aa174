"""The recipe `whole`: every tensor between the token ids and the logits is a spike code.

It adds to the recipe `operators`, which replaces nonlinearities:
- linear layers, embeddings and convolutions get integer weights (`coded.py`)
- sums, products and constant scales are operators (`linear_functions.py`)
- rotary factors come from whole positions (`rotary.py`)
- keys and values are codes of few levels

Weights are folded and rotated first (spikeplug.weights), then rounded, layer by layer, in one run over the calibration
tokens: each layer rounds its weight when its inputs arrive, which come from layers that are rounded already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spikeplug.conversion.attention import AttentionPlug
from spikeplug.conversion.coded import CodedPlug, EmbeddingPlug, coded_plug, exchange
from spikeplug.conversion.plug import NormPlug, Plug
from spikeplug.conversion.report import Entry
from spikeplug.conversion.rotary import RotaryPlug, find_rotary
from spikeplug.errors import SpikeplugError, shown
from spikeplug.numerics import Fields, Numerics, check_types
from spikeplug.operators.linear.linear import THRESHOLD_BITS, seen
from spikeplug.primitives.arithmetic import Closed
from spikeplug.progress import Progress
from spikeplug.weights.preparing import Prepared, prepare
from spikeplug.weights.hessian import Hessian
from spikeplug.weights.rounding import gptq, rounded

#: Channels that share a step where the residual stream cannot be rotated.
BLOCK = 32


@dataclass(frozen=True, kw_only=True)
class Whole(Fields):
    """Set the levels of each site of a whole spiking model: |m| <= levels. All other tensors have numerics.bits bits.

    inputs    of linear layers, embeddings excepted: spike counts per input
    weights   of linear layers, embeddings and convolutions; 127 fills an int8
    cache     of keys and values
    block     channels that share a step in inputs that are not rotated; 0: the whole vector
    rotate    fold and rotate the residual stream where the architecture lets it
    """

    inputs: int = 127
    weights: int = 127
    cache: int = 127
    block: int = BLOCK
    rotate: bool = True

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("inputs", "weights", "cache"):
            if not 1 <= getattr(self, name) <= 127 and name == "weights":
                raise SpikeplugError(f"{name} is {getattr(self, name)}; an int8 holds 1 to 127 levels.")
            if not 1 <= getattr(self, name) <= 1 << 15:
                raise SpikeplugError(f"{name} is {getattr(self, name)}; it must lie between 1 and {1 << 15}.")
        if not 0 <= self.block <= 1 << 20:
            raise SpikeplugError(f"block is {self.block}; give channels per step, or 0 for the whole vector.")

    @property
    def name(self) -> str:
        """Return the recipe's name, for messages."""
        return "whole"

    @classmethod
    def of_bits(cls, bits: int) -> Whole:
        """Return the recipe with codes of `bits` bits, the sign included, at inputs and in the cache; 4 to 8."""
        if not isinstance(bits, int) or not 4 <= bits <= 8:
            raise SpikeplugError(f"bits is {bits!r}: choose 4 to 8.")
        levels = (1 << (bits - 1)) - 1
        return cls(inputs=levels, cache=levels)


def as_recipe(recipe: object, operators: object, calibration: object) -> Whole | None:
    """Return the recipe of a request to `convert`; None for "operators".

    Errors: SpikeplugError for another name or type, or for arguments that do not go with the recipe.
    """
    if recipe == "operators":
        if calibration is not None:
            raise SpikeplugError('calibration goes with recipe="whole": leave it out, nonlinearities need none.')
        return None
    if recipe == "whole":
        recipe = Whole()
    if not isinstance(recipe, Whole):
        raise SpikeplugError(f'recipe is {shown(recipe)}: choose "operators", "whole", or give a Whole(...).')
    if operators is not None:
        raise SpikeplugError('operators goes with recipe="operators": a whole model replaces everything.')
    return recipe


@dataclass
class WholeConversion:
    """Make a model whole: plan with `plugs`, apply with `install` after the plugs are attached.

    model       the model
    recipe      levels of each site
    numerics    of all operators
    prepared    folded and rotated weights; None: the model's own
    notes       sentences for the report
    """

    model: nn.Module
    recipe: Whole
    numerics: Numerics
    prepared: Prepared | None = None
    notes: list[str] = field(default_factory=list)
    coded: dict[str, CodedPlug] = field(default_factory=dict)

    def plan(self, plugs: dict[str, Plug], matched: frozenset[str]) -> dict[str, Plug]:
        """Return the plugs of the recipe `operators` together with those of a whole model, by path.

        matched  paths of excluded modules, which keep their float weights
        """
        recipe, seen_modules = self.recipe, {id(plug.module) for plug in plugs.values()}
        norms = {path: plug.norm for path, plug in plugs.items() if isinstance(plug, NormPlug)}
        if recipe.rotate and not matched:
            self.prepared = prepare(self.model, norms)
            self.notes += self.prepared.kept
        for path, plug in plugs.items():
            if isinstance(plug, NormPlug):
                plug.whole = True
                folded = self.prepared.norms.get(path) if self.prepared else None
                if folded is not None:
                    plug.norm = replace(plug.norm, operator=folded.operator, weight=None, bias=None, offset=0.0)
        whole = dict(plugs)
        for path, module in self.model.named_modules():
            if path in matched or id(module) in seen_modules:
                continue
            if (kind := coded_plug(module)) is not None:
                whole[path] = self.coded[path] = self._coded(path, kind(module, self.numerics))
            elif (repeat := find_rotary(module)) is not None:
                whole[path] = RotaryPlug(module, self.numerics, repeat)
        return whole

    def _coded(self, path: str, plug: CodedPlug) -> CodedPlug:
        plug.levels = self.recipe.inputs
        if self.prepared is not None:
            plug.rotation = self.prepared.online.get(path, 0)
        plug.block = 0 if self._is_flat(path) else self.recipe.block
        return plug

    def _is_flat(self, path: str) -> bool:
        """Return whether a layer's inputs are rotated, so that one step per vector is enough."""
        return self.prepared is not None and (path in self.prepared.online or path in _rotated_inputs(self.prepared))

    def entry(self, entry: Entry) -> Entry:
        """Return a report entry of the recipe `operators` with what is linear replaced, too."""
        if not entry.pipeline or (entry.operator == "matmul" and entry.path not in self.coded and self._has_weight(entry)):
            return entry
        return replace(entry, action="replaced", reason="", pipeline=False)

    def _has_weight(self, entry: Entry) -> bool:
        return "weight" in self.model.get_submodule(entry.path)._parameters

    def attending(self, plugs: Mapping[str, AttentionPlug]) -> dict[str, AttentionPlug]:
        """Return attention plugs whose keys and values are codes of few levels."""
        return {
            path: replace(plug, levels=self.recipe.cache) if plug.numerics else plug for path, plug in plugs.items()
        }

    def install(self, batch: Mapping[str, Any] | None, progress: Progress) -> None:
        """Round all weights: with the inputs of a run over `batch`, or without (None) each to its nearest level."""
        rounding = Rounding(self.recipe, len(self.coded), progress)
        for path, plug in self.coded.items():
            plug.dense = partial(self._dense, path, plug)
            if batch is None or isinstance(plug, EmbeddingPlug):
                rounding.nearest(plug)
            else:
                plug.round = rounding
        self._exchange_bare()
        if batch is not None:
            with torch.no_grad():
                self.model(**batch)
        missed = [path for path, plug in self.coded.items() if plug.dense is not None]
        for path in missed:
            rounding.nearest(self.coded[path])
        if missed and batch is not None:
            self.notes.append(
                f"The calibration tokens never reached {len(missed)} layers, the first {missed[0]}: they are rounded "
                "to nearest."
            )

    def _dense(self, path: str, plug: CodedPlug) -> tuple[Tensor, Tensor | None]:
        own, changed = plug.module._parameters, self.prepared.weights if self.prepared is not None else {}
        weight = changed.get(f"{path}.weight", own["weight"])
        bias = changed.get(f"{path}.bias", own.get("bias"))
        return plug.as_rows(weight.detach()), None if bias is None else bias.detach()

    def _exchange_bare(self) -> None:
        """Put folded and rotated parameters that belong to no coded layer, such as a class token, into their modules."""
        for name in self.prepared.weights if self.prepared is not None else ():
            path, _, own = name.rpartition(".")
            if path not in self.coded:
                exchange(self.model.get_submodule(path), **{own: nn.Parameter(self.prepared.weights[name], False)})


def _rotated_inputs(prepared: Prepared) -> frozenset[str]:
    """Return the paths of layers that read a rotated residual stream, or rotated values."""
    turned, found = set(prepared.rotated.values()), prepared.structure
    readers = [reader for value in found.values if not value.reason for reader in value.readers]
    for stream in found.streams:
        if stream.name in turned:
            norms = [norm for norm in found.norms if norm.path in stream.norms]
            readers += [*stream.readers, *(reader for norm in norms for reader in norm.readers)]
    return frozenset(reader.path for reader in readers)


def shared_unit(threshold: Tensor) -> tuple[Tensor, int]:
    """Return thresholds as int32 multiples below 2^16 of one power of two, and its exponent."""
    unit = int(torch.frexp(threshold.max()).exponent) - THRESHOLD_BITS
    return torch.ldexp(threshold, torch.tensor(-unit)).to(torch.int32), unit


@dataclass
class Rounding:
    """Round each layer's weight when its inputs arrive, in one run of the model over the calibration tokens.

    recipe    levels of the weights
    total     number of layers;  done  how many are rounded
    progress  is told after each layer
    """

    recipe: Whole
    total: int
    progress: Progress
    done: int = 0
    _last: tuple[Tensor, tuple[int, int, int], Hessian] | None = None

    def __call__(self, plug: CodedPlug, x: Tensor) -> None:
        """Round the plug's dense weight, given the inputs x (..., columns) of the whole calibration run."""
        how = (plug.levels, plug.block, plug.rotation)
        if self._last is None or self._last[0] is not x or self._last[1] != how:
            hessian = Hessian(x.shape[-1], type(plug.module).__name__, x.device)
            hessian.add(seen(x.flatten(0, -2), *how, on=Closed(plug.numerics or Numerics(), "linear")))
            self._last = (x, how, hessian)
        self._round(plug, self._last[2])

    def nearest(self, plug: CodedPlug) -> None:
        """Round the plug's dense weight to the nearest levels."""
        self._round(plug, None)

    def _round(self, plug: CodedPlug, hessian: Hessian | None) -> None:
        assert plug.dense is not None
        weight, bias = plug.dense()
        if hessian is None:
            found = rounded(weight, self.recipe.weights)
        else:
            found = gptq(weight, hessian, self.recipe.weights)
        plug.install(found.mantissa, *shared_unit(found.threshold), bias)
        self.done += 1
        self.progress("rounding weights", self.done, self.total)
