"""Plan which gains fold and what rotates, check it in float64, and give the new weights one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from spikeplug.errors import SpikeplugError
from spikeplug.weights.folding import LayerChange, as_rows, from_rows, layout_of
from spikeplug.weights.inputs import tiny_inputs
from spikeplug.weights.rotation import Rotation, rotate_online
from spikeplug.weights.structure import NormFold, NormKind, Reader, Stream, Structure, check_norms, find_structure
from spikeplug.weights.verifying import relative_difference, run_wide

#: Largest difference of the outputs in float64, relative to the largest output.
TOLERANCE = 1e-9
_SEED = 2605  # of the signs of stream rotations


@dataclass(frozen=True)
class PreparedNorm:
    """What a norm has to compute with the new weights: the operator alone, without gain and without bias.

    operator  "rms_norm" where a LayerNorm's mean is folded into the layers before it
    eps       number added to the mean square or to the variance
    """

    operator: Literal["rms_norm", "layer_norm"]
    eps: float

    def exact(self, x: Tensor) -> Tensor:
        """Return the norm of x over its last dimension, in x's dtype and shape."""
        if self.operator == "layer_norm":
            return F.layer_norm(x, x.shape[-1:], eps=self.eps)
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)


class Weights(Mapping[str, Tensor]):
    """The new weights by parameter name. Each is computed when asked for, in float64, from the model's own.

    Keys are the parameters that change. A bias that a norm's bias makes necessary has the name it would have.
    A value has the dtype of the model's parameter, or float32 if that is shorter, and lies on its device.
    Memory: nothing is kept but some vectors per layer, and none of the model's own weights: whoever replaces these in
    the model, one after the other, may free them.

    model    the model; what is asked for is made from the weight that its module has then
    changes  by path of a layer, or by name of a bare parameter
    """

    def __init__(self, model: nn.Module, changes: Mapping[str, LayerChange]) -> None:
        self._changes = dict(changes)
        self._modules = dict(model.named_modules(remove_duplicate=False))
        self._owners: dict[str, str] = {}
        for owner, change in self._changes.items():
            if owner not in self._modules:
                self._owners[owner] = owner
                continue
            if not change.changes_nothing:
                self._owners[f"{owner}.weight"] = owner
                if self._own(f"{owner}.bias") is not None or change.shift is not None:
                    self._owners[f"{owner}.bias"] = owner

    def __getitem__(self, name: str) -> Tensor:
        like = self._own(name)
        like = self._own(f"{self._owners[name]}.weight") if like is None else like
        assert like is not None
        return self._changed(name, torch.promote_types(like.dtype, torch.float32))

    def __iter__(self) -> Iterator[str]:
        return iter(self._owners)

    def __len__(self) -> int:
        return len(self._owners)

    def wide(self, name: str) -> Tensor:
        """Return one weight in float64. Errors: KeyError if it does not change."""
        return self._changed(name, torch.float64)

    def _changed(self, name: str, dtype: torch.dtype) -> Tensor:
        owner = self._owners[name]
        change, module = self._changes[owner], self._modules.get(owner)
        layout = layout_of(module)
        weight = self._own(owner if module is None else f"{owner}.weight")
        assert weight is not None
        rows = as_rows(weight, layout)
        if name.endswith(".bias") and module is not None:
            own = self._own(name)
            bias = change.bias(rows, None if own is None else own.detach().double())
            assert bias is not None
            return bias.to(dtype)
        return from_rows(change.weight(rows, dtype), weight, layout)

    def _own(self, name: str) -> Tensor | None:
        """Return the parameter or buffer of that name that the model has now, or None."""
        path, _, own = name.rpartition(".")
        module = self._modules[path]
        found: Tensor | None = module._parameters.get(own, module._buffers.get(own))
        return found


@dataclass(frozen=True)
class Prepared:
    """Weights that compute what the model computes, and lose little when they are rounded.

    weights    new weights by parameter name; the others stay
    norms      what each norm whose gain folds has to compute, by path
    online     layers whose input a runtime has to transform, with the block size (`rotate_online`)
    rotated    layers and parameters that write to a rotated residual stream, with the stream's name
    made       names of biases that the model does not have
    untied     names of parameters that were one tensor and now differ, a tuple for each
    kept       a sentence for each thing that does not fold or rotate
    error      largest difference of the outputs in float64, relative to the largest output, on a tiny input
    structure  what was found
    """

    weights: Weights
    norms: Mapping[str, PreparedNorm]
    online: Mapping[str, int]
    rotated: Mapping[str, str]
    made: tuple[str, ...]
    untied: tuple[tuple[str, ...], ...]
    kept: tuple[str, ...]
    error: float
    structure: Structure


@dataclass(frozen=True)
class _Plan:
    changes: Mapping[str, LayerChange]
    norms: Mapping[str, PreparedNorm]
    online: Mapping[str, int]
    rotated: Mapping[str, str]


def prepare(
    model: nn.Module,
    norms: Mapping[str, NormKind],
    *,
    inputs: Mapping[str, Any] | None = None,
    rotate: bool = True,
    online: int = 64,
) -> Prepared:
    """Fold norms, rotate, and check in float64 that the outputs stay the same. The model is not changed.

    norms   kind of each norm module, by path
    inputs  arguments of its forward, to follow and to check it on; None: tiny ones that are made here
    rotate  rotate residual streams and values
    online  largest Hadamard transform of a layer's input at run time: of the whole width, or of blocks of 1024, 256,
            64, 16 or 4 channels; 0: none

    What fails the check is not folded, and is named in `kept`.
    Errors: SpikeplugError if the model does not run on the inputs, no inputs are known for it, or its weights hold NaN
    or infinity.
    """
    check_norms(model, norms)
    inputs = tiny_inputs(model) if inputs is None else inputs
    structure = find_structure(model, norms, inputs, online or 4)
    check_finite(model)
    wanted = _items(structure, rotate, online > 0)
    failed: list[str] = []
    try:
        expected = _run(model, inputs, _Plan({}, {}, {}, {}))
    except Exception as cause:  # a third party's forward may raise anything
        reason = f"Nothing folds: the model cannot be checked in float64 ({type(cause).__name__}: {cause})."
        return _prepared(model, _Plan({}, {}, {}, {}), structure, (reason,), 0.0)

    def error_of(items: frozenset[str]) -> float:
        plan = _plan(model, norms, structure, items)
        return relative_difference(_run(model, inputs, plan), expected)

    error = error_of(wanted)
    if error > TOLERANCE:
        wanted, failed = _those_that_hold(wanted, structure, error_of)
        error = error_of(wanted)
    if error > TOLERANCE:
        raise SpikeplugError(
            f"the folded model differs from the model by {error:.1e} of its output, and no single fold is to blame: "
            "convert it without folding."
        )
    plan = _plan(model, norms, structure, wanted)
    kept = (*structure.kept, *(f"{name} is left as it is: changing it would change the outputs." for name in failed))
    return _prepared(model, plan, structure, kept, error)


def _prepared(model: nn.Module, plan: _Plan, structure: Structure, kept: tuple[str, ...], error: float) -> Prepared:
    weights = Weights(model, plan.changes)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return Prepared(
        weights=weights,
        norms=plan.norms,
        online=plan.online,
        rotated=plan.rotated,
        made=tuple(name for name in weights if name not in parameters and name.endswith(".bias")),
        untied=tuple(group for group in structure.tied if _differ(group, plan.changes)),
        kept=kept,
        error=error,
        structure=structure,
    )


def check_finite(model: nn.Module) -> None:
    """Check that no weight is NaN or infinite. Errors: SpikeplugError, with the name of the first that is."""
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.numel() and not _is_finite(parameter.detach()):
            raise SpikeplugError(f"the weight {name} holds NaN or infinity: load the model again, or repair it.")


def _is_finite(x: Tensor) -> bool:
    """Return whether all of a tensor is finite. Unlike isfinite, its extremes need no tensor of the same size."""
    return all(bool(extreme.isfinite()) for extreme in x.aminmax())


def _items(structure: Structure, rotate: bool, online: bool) -> frozenset[str]:
    """Return names of all that folds or rotates: "gain PATH", "stream NAME", "values NAME", "online PATH"."""
    if structure.unreached:
        return frozenset()
    items = [f"gain {norm.path}" for norm in structure.norms if not norm.reason]
    if rotate:
        items += [f"stream {stream.name}" for stream in structure.streams if not stream.reason]
        items += [f"values {value.name}" for value in structure.values if not value.reason]
    if online:
        items += [f"online {down.path}" for down in structure.downs if not down.reason]
    return frozenset(items)


def _those_that_hold(
    wanted: frozenset[str], structure: Structure, error_of: Callable[[frozenset[str]], float]
) -> tuple[frozenset[str], list[str]]:
    """Return the items that keep the outputs, and those that do not. A stream is tried with its norms' gains."""
    failed: list[str] = []
    needed = {f"stream {stream.name}": {f"gain {path}" for path in stream.norms} for stream in structure.streams}
    for item in sorted(wanted):  # gains come first
        needs = needed.get(item, set())
        if needs.intersection(failed) or error_of(frozenset({item, *needs})) > TOLERANCE:
            failed.append(item)
    return wanted.difference(failed), failed


def _plan(model: nn.Module, norms: Mapping[str, NormKind], structure: Structure, items: frozenset[str]) -> _Plan:
    changes: dict[str, LayerChange] = {}
    prepared: dict[str, PreparedNorm] = {}
    online: dict[str, int] = {}
    rotated: dict[str, str] = {}

    def change(path: str, **what: Any) -> None:
        changes[path] = replace(changes.get(path, LayerChange()), **what)

    folds = {fold.path: fold for fold in structure.norms if f"gain {fold.path}" in items}
    for path, fold in folds.items():
        prepared[path] = PreparedNorm(norms[path].operator, norms[path].eps)
        gain, shift = _gain_and_bias(model.get_submodule(path), norms[path])
        for reader in fold.readers:
            columns = torch.tensor(reader.columns)
            change(
                reader.path,
                gain=None if gain is None else gain[columns],
                shift=None if shift is None else shift[columns],
            )
    for stream in structure.streams:
        if f"stream {stream.name}" in items:
            _plan_stream(stream, folds, prepared, rotated, change)
    for value in structure.values:
        if f"values {value.name}" in items and value.writer is not None:
            size = len(value.heads[0])
            change(value.writer.name, turn_out=Rotation(size, rows=value.heads))
            for reader in value.readers:
                change(reader.path, turn_in=Rotation(size))
    for down in structure.downs:
        if f"online {down.path}" in items:
            online[down.path] = down.block
            change(down.path, online=down.block)
    return _Plan(changes, prepared, online, rotated)


def _plan_stream(
    stream: Stream,
    folds: Mapping[str, NormFold],
    prepared: dict[str, PreparedNorm],
    rotated: dict[str, str],
    change: Callable[..., None],
) -> None:
    turn = Rotation(stream.width, seed=_SEED + stream.width)
    for writer in stream.writers:
        rotated[writer.name] = stream.name
        change(writer.name, turn_out=turn, centred=stream.centred)
    readers: list[Reader] = list(stream.readers)
    for path in stream.norms:
        prepared[path] = replace(prepared[path], operator="rms_norm")
        readers += folds[path].readers
    for reader in readers:
        change(reader.path, turn_in=turn)


def _gain_and_bias(module: nn.Module, norm: NormKind) -> tuple[Tensor | None, Tensor | None]:
    """Return a norm's gain and bias, float64, on the CPU; None for what it does not have."""
    gain = None if norm.weight is None else getattr(module, norm.weight).detach().double().cpu() + norm.offset
    bias = None if norm.bias is None else getattr(module, norm.bias).detach().double().cpu()
    return gain, bias


def _run(model: nn.Module, inputs: Mapping[str, Any], plan: _Plan) -> list[Tensor]:
    """Return the outputs of the model with the weights, norms and online transforms of a plan, in float64."""
    weights = Weights(model, plan.changes)
    own = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))

    def weight(name: str, tensor: Tensor) -> Tensor:
        return weights.wide(name) if name in weights else tensor.detach().double()

    def with_bias(bias: Tensor, _: Tensor, output: Tensor) -> Tensor:
        return output + bias

    def normed(norm: PreparedNorm, x: Tensor, _: Tensor) -> Tensor:
        return norm.exact(x)

    before = {path: partial(rotate_online, block=block) for path, block in plan.online.items()}
    instead: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        path: partial(normed, norm) for path, norm in plan.norms.items()
    }
    for name in weights:
        if name.endswith(".bias") and name not in own:
            instead[name.removesuffix(".bias")] = partial(with_bias, weights.wide(name))
    return run_wide(model, inputs, weight, before, instead)


def _differ(group: tuple[str, ...], changes: Mapping[str, LayerChange]) -> bool:
    """Return whether parameters that are one tensor are changed in different ways."""
    found = [changes.get(name, changes.get(name.rpartition(".")[0], LayerChange())) for name in group]
    first = found[0]
    if any(one.gain is not None or one.turn_in is not None or one.online for one in found):
        return True
    return any((one.centred, one.turn_out) != (first.centred, first.turn_out) for one in found)
