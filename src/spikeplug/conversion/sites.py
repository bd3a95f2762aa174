"""Find the sites at which a converted model rounds numbers to codes, and run it with some of them exact.

A site is an operator in a module, or a part of one: a linear layer rounds its inputs, its weights and its outputs.
Every operator knows the float function that it stands for, so the same integers run on both sides of an exact site.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from spikeplug.codes import affine, as_received
from spikeplug.conversion.plug import plug_of
from spikeplug.conversion.report import pattern_of
from spikeplug.conversion.tracking import Running
from spikeplug.conversion.whole.coded import CodedPlug, EmbeddingPlug
from spikeplug.kernels.protocol import Call
from spikeplug.library import OPERATORS
from spikeplug.library.dispatch import substituted_by
from spikeplug.operators.linear.levels import exactly_rotated
from spikeplug.operators.linear.linear import dense

#: What a linear layer rounds, in the order in which it computes.
LINEAR_PARTS = ("input", "weight", "output")
#: The name, in place of an operator's, of what looks rows of an int8 table up.
EMBEDDING = "embedding"


@dataclass(frozen=True)
class Site:
    """Name one place where a model rounds numbers to codes; that of all layers is one site.

    operator  name of the operator, or EMBEDDING
    where     path of the module that calls it, with * in place of numbers
    part      one of LINEAR_PARTS; of other operators what the code is for, such as "key", or empty
    """

    operator: str
    where: str
    part: str = ""


@dataclass(frozen=True)
class Group:
    """Hold sites that round the same thing: layers that read one tensor round it alike.

    what   operator and part, such as "linear input"
    where  their modules, such as "model.layers.*.self_attn.{q_proj,k_proj,v_proj}"
    """

    what: str
    where: str
    sites: frozenset[Site]

    @property
    def name(self) -> str:
        """Return a name that no other group of the model has."""
        return f"{self.what}, {self.where}"


def find_sites(model: nn.Module, run: Callable[[], object]) -> tuple[Group, ...]:
    """Return the sites of a converted model in the order in which it first reaches them; `run` runs it once.

    Layers with integer weights that `run` does not reach stand at the end.
    """
    with Running(model) as running:
        trace = _Trace(running)
        with substituted_by(trace):
            run()
    found = [
        Group(f"{EMBEDDING} weight", _listed([place]), _of(EMBEDDING, [place], "weight")) for place in _tables(model)
    ]
    layers = [pattern_of(path) for path, plug in coded_plugs(model) if not isinstance(plug, EmbeddingPlug)]
    sites = list(dict.fromkeys([*trace.sites, *(Site("linear", layer) for layer in layers)]))
    order = [site.where for site in sites if site.operator == "linear"]
    together = _joined([*trace.readers.values(), *({layer} for layer in order)])
    for site in sites:
        if site.operator != "linear":
            what = f"{site.operator} {site.part}".strip()
            found.append(Group(what, _listed([site.where]), frozenset({site})))
        elif (layer := next((each for each in together if site.where in each), None)) is not None:
            together.remove(layer)
            places = sorted(layer, key=order.index)
            found += (Group(f"linear {part}", _listed(places), _of("linear", places, part)) for part in LINEAR_PARTS)
    return tuple(found)


@contextmanager
def coding(
    model: nn.Module, is_coded: Callable[[Site, str], bool], weights: Mapping[str, Tensor] | None = None
) -> Iterator[None]:
    """Let the model run in the block with only those sites coded for which `is_coded(site, path)` is True.

    The others compute the exact function of what reaches them. Runs without gradients only.
    path     of the module, with its numbers
    weights  float weights by path of a layer, (rows, columns), for layers whose int8 weight is to be exact, see
             `whole.plan.unrounded`
    """
    weights = {} if weights is None else weights
    tables = [
        (path, plug)
        for path, plug in coded_plugs(model)
        if isinstance(plug, EmbeddingPlug) and not is_coded(Site(EMBEDDING, pattern_of(path), "weight"), path)
    ]
    with Running(model) as running, substituted_by(_Exact(running, is_coded, weights)):
        for path, table in tables:
            table.instead = weights[path]
        try:
            yield
        finally:
            for _, table in tables:
                table.instead = None


def coded_plugs(model: nn.Module) -> Iterator[tuple[str, CodedPlug]]:
    """Yield the plugs of the model's layers with integer weights, with their paths."""
    for path, module in model.named_modules():
        if isinstance(plug := plug_of(module), CodedPlug):
            yield path, plug


class _Trace:
    """Note the sites that a run reaches, and which linear layers read the same tensor; change nothing.

    readers  patterns of layers by the identity of the tensor that they read
    """

    def __init__(self, running: Running) -> None:
        self.running = running
        self.sites: list[Site] = []
        self.readers: dict[int, set[str]] = {}
        self._alive: list[Tensor] = []  # so that no identity is used again

    def __call__(self, call: Call, part: str) -> None:
        where = pattern_of(self.running.path)
        self.sites.append(Site(call.operator, where, part))
        if call.operator == "linear":
            x = call.arguments[0]
            self._alive.append(x)
            self.readers.setdefault(id(x), set()).add(where)


class _Exact:
    """Give the results of calls at sites that are not coded."""

    def __init__(self, running: Running, is_coded: Callable[[Site, str], bool], weights: Mapping[str, Tensor]) -> None:
        self.running, self.is_coded, self.weights = running, is_coded, weights

    def __call__(self, call: Call, part: str) -> Tensor | None:
        path = self.running.path
        site = partial(Site, call.operator, pattern_of(path))
        if call.operator == "linear":
            return self._linear(call, path, *(self.is_coded(site(each), path) for each in LINEAR_PARTS))
        if self.is_coded(site(part), path):
            return None
        return affine(OPERATORS[call.operator].exact(*call.arguments), call.weight, call.bias)

    def _linear(self, call: Call, path: str, input: bool, weight: bool, output: bool) -> Tensor | None:
        """Return the result of a linear layer of which only the parts that are True are coded."""
        if input and weight and output:
            return None
        x, integers, threshold, unit, bias, levels, block, rotation = call.arguments
        if input:
            x = OPERATORS["quantise"](x, levels, block, rotation, numerics=call.numerics)
        else:
            x = exactly_rotated(x, rotation)
        rows = dense(integers, threshold, unit, x.dtype) if weight else self._rows(path, integers).to(x.dtype)
        y = F.linear(x, rows, None if bias is None else bias.to(x.dtype))
        return as_received(y, call.numerics.bits) if output else y

    def _rows(self, path: str, integers: Tensor) -> Tensor:
        """Return the float rows of the layer at `path` that stand for these rows of its integers."""
        rows = self.weights[path]
        if rows.shape == integers.shape:
            return rows
        first = integers.storage_offset() // integers.shape[1]  # one of the groups of a convolution
        return rows[first : first + integers.shape[0]]


def _tables(model: nn.Module) -> list[str]:
    places = (pattern_of(path) for path, plug in coded_plugs(model) if isinstance(plug, EmbeddingPlug))
    return list(dict.fromkeys(places))


def _of(operator: str, places: Iterable[str], part: str) -> frozenset[Site]:
    return frozenset(Site(operator, place, part) for place in places)


def _joined(sets: Iterable[set[str]]) -> list[set[str]]:
    """Return the sets with those joined that have an element in common."""
    found: list[set[str]] = []
    for each in sets:
        apart = [other for other in found if other.isdisjoint(each)]
        found = [*apart, each.union(*(other for other in found if not other.isdisjoint(each)))]
    return found


def _listed(paths: list[str]) -> str:
    """Return module paths as one text: `a.{b,c}` where they lie in one module."""
    parents = {path.rpartition(".")[0] for path in paths}
    if len(paths) == 1 or len(parents) > 1:
        return ", ".join(path or "(the model)" for path in paths)
    (parent,) = parents
    return f"{parent}{'.' if parent else ''}{{{','.join(path.rpartition('.')[2] for path in paths)}}}"
