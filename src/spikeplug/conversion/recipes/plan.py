"""Find the tensors that a pipeline's recipe codes, give each its neuron, and calibrate them all in one run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from spikeplug.conversion.attention import AttentionPlug, own_function
from spikeplug.conversion.match import Found
from spikeplug.conversion.plan import Conversion, implementation_of, implementations
from spikeplug.conversion.plug import HostPlug, Plug
from spikeplug.conversion.recipes.neurons import Neuron, NeuronPlug
from spikeplug.conversion.recipes.recipe import Pipeline, Site
from spikeplug.conversion.report import Entry
from spikeplug.conversion.whole.plan import calibrating
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.progress import Progress

#: Activations of feed-forward layers, by operator; ReLU has none, as a threshold neuron computes it.
_ACTIVATIONS = frozenset({"silu", "gelu", "mish", "hardswish", "relu_squared"})
_OPERANDS: tuple[Site, ...] = ("query", "key", "value", "probability")


@dataclass
class Coding:
    """Give a model the neurons of a pipeline: `plan` the plugs; after they are attached, `calibrate`.

    A neuron is made once, so that several plans share what is calibrated.

    model     the model
    pipeline  the recipe
    numerics  of the operators
    places    where the model computes something, as `match.find` returns them
    matched   paths of excluded modules, which get no neuron
    made      the neuron of each tensor, by the path of its module and the site
    """

    model: nn.Module
    pipeline: Pipeline
    numerics: Numerics
    places: list[Found]
    matched: frozenset[str]
    made: dict[tuple[str, Site], Neuron] = field(default_factory=dict)

    @property
    def neurons(self) -> list[Neuron]:
        """Return every neuron."""
        return list(self.made.values())

    @property
    def sites(self) -> dict[str, Site]:
        """Return the modules that get a neuron at their input or output, by path; a shared one once."""
        found: dict[str, Site] = {}
        activations = {place.path for place in self.places if place.operators and place.name in _ACTIVATIONS}
        for path, module in self.model.named_modules():
            if isinstance(module, (nn.Linear, Conv1D)) and self.pipeline.step("linear"):
                found[path] = "linear"
            elif (isinstance(module, nn.ReLU) or path in activations) and self.pipeline.step("activation"):
                found[path] = "activation"
        return found

    @property
    def attending(self) -> dict[str, nn.Module]:
        """Return the modules that call transformers' attention interface, by path, if their operands are coded."""
        if not any(map(self.pipeline.step, _OPERANDS)):
            return {}
        return {
            place.path: place.module for place in self.places if place.operators == {"attention"} and not place.plug
        }

    def plan(self, plugs: Mapping[str, Plug], conversion: Conversion) -> tuple[dict[str, Plug], Conversion]:
        """Return plugs and record of the recipe `operators`, or of nothing, with the neurons added to them."""
        planned, attending = dict(plugs), dict(conversion.attending)
        for path, site in self.sites.items():
            if path not in self.matched:
                module = self.model.get_submodule(path)
                planned[path] = NeuronPlug(module, self.numerics, self._neuron(path, site), plugs.get(path))
        for path, module in self.attending.items():
            before = attending.get(path, AttentionPlug(None, implementation_of(module)))
            coded = [] if path in self.matched else [site for site in _OPERANDS if self.pipeline.step(site)]
            neurons: dict[str, Neuron] = {site: self._neuron(path, site) for site in coded}
            attending[path] = replace(before, neurons=neurons)
            planned.setdefault(path, HostPlug(module, self.numerics))
        if not self.neurons:
            raise SpikeplugError(
                f"the model has nothing that the recipe {self.pipeline.name} codes "
                f"({', '.join(step.name for step in self.pipeline.steps)}): choose another recipe."
            )
        changed = implementations(self.model, attending)
        return planned, replace(conversion, plugged=tuple(planned), attending=attending, implementations=changed)

    def check(self, conversion: Conversion) -> None:
        """Check that what stays exact shows what is coded. Errors: SpikeplugError."""
        for path, attention in conversion.attending.items():
            own = own_function(attention.original)
            if own and attention.numerics is None and "probability" in attention.neurons:
                raise SpikeplugError(
                    f"{path!r} runs the attention function {own!r}, which does not show the probabilities that the "
                    f'recipe {self.pipeline.name} codes: call model.set_attn_implementation("sdpa") first, or '
                    "exclude the module."
                )

    def _neuron(self, path: str, site: Site) -> Neuron:
        if (path, site) not in self.made:
            step = self.pipeline.step(site)
            assert step is not None
            saliency = partial(_saliency, self.model.get_submodule(path)) if site == "linear" else None
            self.made[path, site] = Neuron(path, step, self.numerics, saliency)
        return self.made[path, site]

    def calibrate(self, batch: Mapping[str, Any], progress: Progress) -> None:
        """Calibrate every neuron by one run over `batch`: each by what arrives from neurons that are calibrated."""
        neurons, done = self.neurons, 0

        def arrived() -> None:
            nonlocal done
            done += 1
            progress("calibrating neurons", done, len(neurons))

        for neuron in neurons:
            neuron.arrived = arrived
        with calibrating(self.model):
            self.model(**batch)
        for neuron in neurons:
            neuron.arrived = neuron.saliency = None

    def entries(self, entries: Iterable[Entry]) -> tuple[Entry, ...]:
        """Return report entries with one for each neuron."""
        if self.pipeline.nonlinearities == "exact":
            entries = [
                replace(entry, action="left", reason="exact, by the recipe") if entry.action == "replaced" else entry
                for entry in entries
            ]
        return (*entries, *map(self._entry, self.neurons))

    def _entry(self, neuron: Neuron) -> Entry:
        name = type(self.model.get_submodule(neuron.path)).__name__
        what = f"{neuron.kind} at {neuron.step.name}"
        if neuron.calibrated:
            return Entry(neuron.path, "neuron", name, "replaced", note=what)
        return Entry(neuron.path, "neuron", name, "left", "never reached by the calibration: give more", True)

    @property
    def notes(self) -> tuple[str, ...]:
        """Return sentences for the report."""
        return (
            f"Recipe {self.pipeline.name}, after {self.pipeline.source}.",
            *self.pipeline.deviations,
            "save_pretrained writes the exact model: convert it again after loading.",
        )


def _saliency(module: Any, x: Tensor) -> Tensor:
    """Return the mean of x ⊙ (x WᵀW) for each input channel of a linear layer: its part of |Wx|².

    x: (rows, channels); returns (channels,)
    """
    weight = (module.weight.T if isinstance(module, Conv1D) else module.weight).to(x.dtype)
    return (x * ((x @ weight.T) @ weight)).mean(0)
