"""Let time run through a whole model: one pass is one time step of all its ST-BIF neurons.

The published form sends differences: a linear layer adds the spikes of a step to what arrived, a product of two spike
tensors gives Δ(A·B) = A·b + a·B - a·b, and a nonlinear operator f(X) - Y_before. Sums over time undo every difference.
So a step is computed on sums: each layer reads what has arrived so far, and only the neurons remember something.

    q = X/θ + 1/2 - a;   s = +1 if q >= 1 and a < a_max, -1 if q < 0 and a > a_min;   a <- a + s

X is what has arrived, a the sum of the spikes sent. While no neuron moves, each has a = clamp(floor(X/θ + 1/2)): the
integers of the layerwise model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from spikeplug.codes import scaled
from spikeplug.conversion.tracking import Running
from spikeplug.errors import SpikeplugError
from spikeplug.kernels.protocol import Call
from spikeplug.library.dispatch import substituted_by
from spikeplug.operators.linear.neuron import arriving, neuron_of

#: Steps after which `settle` gives up, unless it is told.
MOST_STEPS = 1 << 12
#: Path of a module, and which of its tensors of neurons it is, in the order in which it reaches them.
_Site = tuple[str, int]


@dataclass(frozen=True)
class OnlineSite:
    """Say what one tensor of neurons did.

    path     of its module
    neurons  how many there are
    spikes   all that they sent so far, of either sign
    settled  the last time step in which one of them sent a spike; 0: none did
    """

    path: str
    neurons: int
    spikes: int
    settled: int


class Online:
    """Hold the neurons of one online run: `run(**batch)` is one time step, and returns the model's output of now.

    spikes  those of each time step so far, of all neurons

    Errors, at a step: SpikeplugError for inputs that are not those of the first step, for a neuron that has no online
    form, and for modules that run in some steps only. A step that fails changes nothing.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.spikes: list[int] = []
        self._sent: dict[_Site, Tensor] = {}
        self._sites: dict[_Site, OnlineSite] = {}
        self._inputs: list[Any] | None = None

    @property
    def steps(self) -> int:
        """Return the time steps so far."""
        return len(self.spikes)

    @property
    def settled(self) -> bool:
        """Return whether nothing moves any more: no neuron sent a spike in the last step, so none ever will."""
        return bool(self.spikes) and not self.spikes[-1]

    @property
    def settled_after(self) -> int:
        """Return the last time step in which a neuron sent a spike."""
        return max((site.settled for site in self.sites), default=0)

    @property
    def sites(self) -> tuple[OnlineSite, ...]:
        """Return what the neurons of each tensor did, in the order in which the model reaches them."""
        return tuple(self._sites.values())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run one time step: the model, called with these arguments; return its output. Gradients are not computed."""
        inputs = [x.clone() if isinstance(x, Tensor) else x for x in tree_flatten((args, kwargs))[0]]
        if self._inputs is not None and not _same(self._inputs, inputs):
            raise SpikeplugError(
                "an online run got other inputs than at its first time step: call spikeplug.online(model) anew for "
                "each batch, and give no cache."
            )
        with torch.no_grad(), Running(self.model) as running:
            step = _Step(running, self._sent)
            with substituted_by(step):
                output = self.model(*args, **kwargs)
        self._finish(step, inputs)
        return output

    def settle(self, *args: Any, steps: int = MOST_STEPS, **kwargs: Any) -> Any:
        """Run time steps until nothing moves, and return the output: that of the layerwise model.

        Errors: SpikeplugError if something still moves after `steps` time steps; what was run is kept.
        """
        while True:
            output = self(*args, **kwargs)
            if self.settled:
                return output
            if self.steps >= steps:
                raise SpikeplugError(
                    f"after {self.steps:,} time steps {self.spikes[-1]:,} neurons still move: allow more with steps=, "
                    "at least the levels of a neuron plus the layers that follow each other."
                )

    def table(self) -> Table:
        """Return a Rich table: a row per tensor of neurons."""
        table = Table("module", title=str(self))
        for title in ("neurons", "spikes", "spikes per neuron", "settled after"):
            table.add_column(title, justify="right")
        for site in self.sites:
            ratio = site.spikes / max(1, site.neurons)
            table.add_row(site.path, f"{site.neurons:,}", f"{site.spikes:,}", f"{ratio:.2f}", f"{site.settled:,}")
        return table

    def __str__(self) -> str:
        state = f"settled after {self.settled_after:,}" if self.settled else "not settled"
        return f"{self.steps:,} time steps, {state}; {sum(self.spikes):,} spikes"

    def _finish(self, step: _Step, inputs: list[Any]) -> None:
        if not step.sent:
            raise SpikeplugError(
                f"{type(self.model).__name__} has no neurons: convert it with a recipe that has, such as "
                "spikeplug.convert(model, recipe='spikezip')."
            )
        if self._sent and step.sent.keys() != self._sent.keys():
            path = next(iter(step.sent.keys() ^ self._sent.keys()))[0]
            raise SpikeplugError(
                f"{path} runs in some time steps only, so its neurons have no online form: exclude it from the recipe."
            )
        self._sent, self._inputs = step.sent, inputs
        self.spikes.append(sum(step.spikes.values()))
        for site, spikes in step.spikes.items():
            before = self._sites.get(site, OnlineSite(site[0], step.sent[site].numel(), 0, 0))
            last = self.steps if spikes else before.settled
            self._sites[site] = OnlineSite(before.path, before.neurons, before.spikes + spikes, last)


class _Step:
    """Give the results of neurons in one time step.

    sent    the sums of their spikes after it        spikes  how many they sent in it
    """

    def __init__(self, running: Running, before: dict[_Site, Tensor]) -> None:
        self._running, self._before = running, before
        self.sent: dict[_Site, Tensor] = {}
        self.spikes: dict[_Site, int] = {}

    def __call__(self, call: Call, part: str) -> Tensor | None:
        if call.operator not in ("neuron", "gif"):
            return None
        path = self._running.path
        kind = "gif" if call.operator == "gif" else call.arguments[-1]
        spec = None if kind == "gif" else neuron_of(kind)
        if spec is None or spec.bounds is None:
            raise SpikeplugError(
                f"the neurons {kind!r} of {path} have no online form: it takes neurons that may take a spike back, so "
                "use the recipe 'spikezip'."
            )
        x, threshold, unit, _ = call.arguments
        site = (path, sum(known == path for known, _ in self.sent))
        before = self._before.get(site)
        sent = torch.zeros(x.shape, dtype=torch.int64, device=x.device) if before is None else before.to(torch.int64)
        if sent.shape != x.shape:
            raise SpikeplugError(
                f"the tensor at {path} had the shape {tuple(sent.shape)} before, and has {tuple(x.shape)} now: give no "
                "cache, and the same inputs at every time step."
            )
        # Twice the membrane, so that half a threshold is an integer.
        theta = threshold.to(torch.int64)
        membrane = 2 * (arriving(x, unit, spec) - sent * theta) + theta
        low, high = spec.bounds
        up, down = (membrane >= 2 * theta) & (sent < high), (membrane < 0) & (sent > low)
        sent = sent + up.to(torch.int64) - down.to(torch.int64)
        self.sent[site] = sent.to(torch.int32)
        self.spikes[site] = int(torch.count_nonzero(up | down))
        return scaled(sent * theta, unit, x.dtype).masked_fill(torch.isnan(x), torch.nan)


def online(model: nn.Module) -> Online:
    """Return a run in which time passes through the whole model, a step per call: `run = online(model); run(**batch)`.

    model: converted with a recipe whose neurons are ST-BIF, such as `recipe="spikezip"`

    At every step, each neuron sends at most one spike, by what has arrived until then; all layers pass it on in the
    same step. `run.settled` tells when nothing moves any more; the output is then that of the layerwise model, in every
    bit. `run.settle(**batch)` runs until then. Before, outputs are those of an anytime model.
    Errors: SpikeplugError for what is no torch module; others at a step, see `Online`.
    """
    if not isinstance(model, nn.Module):
        raise SpikeplugError(f"online takes a torch module, not a {type(model).__name__}: give it a converted model.")
    return Online(model)


def _same(before: list[Any], now: list[Any]) -> bool:
    def equal(a: Any, b: Any) -> bool:
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            return a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())
        return a is b or bool(a == b)

    return len(before) == len(now) and all(map(equal, before, now))
