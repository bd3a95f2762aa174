"""Define a pipeline's recipe: a list of named steps, each a neuron at one kind of tensor, and how it is calibrated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from spikeplug.errors import SpikeplugError, shown
from spikeplug.operators.linear.neuron import neuron_of

#: Which tensors a step codes: the input of every linear layer, the output of every activation of a feed-forward layer,
#: and the operands of attention: probabilities are what its softmax gives.
Site = Literal["linear", "activation", "query", "key", "value", "probability"]
Nonlinearities = Literal["spiking", "exact"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """Put a neuron at one kind of tensor.

    name      what is coded, in words
    site      see `Site`
    neuron    the kind of the neuron, see the operator `neuron`
    positive  the kind where calibration meets no negative number; empty: the same
    range     what the neuron's last level stands for. `largest`: the largest magnitude of calibration. `least squares`:
              what makes the squared error least. `at most R`, a number: R. `each vector`: for GIF neurons, the range of
              each vector, from its minimum to its maximum
    channels  whether each channel has a range of its own
    outliers  whether magnitudes beyond the range have a neuron of their own, whose range is the largest
    salient   the share of a layer's input channels with the extra bits of a GIF neuron

    Errors: SpikeplugError for a value out of its domain, and for too few time steps to settle.
    """

    name: str
    site: Site
    neuron: str
    positive: str = ""
    range: str = "largest"
    channels: bool = False
    outliers: bool = False
    salient: float = 0.0

    def __post_init__(self) -> None:
        if self.site not in get_args(Site):
            raise SpikeplugError(f"site is {shown(self.site)}: choose {', '.join(get_args(Site))}.")
        for kind in (self.neuron, self.positive or self.neuron):
            neuron_of(kind)
        if (self.range == "each vector") != self.neuron.startswith("gif ") or not 0 <= self.salient <= 1:
            raise SpikeplugError('a GIF neuron, and no other, has range="each vector", and salient from 0 to 1.')
        if self.outliers and not self.most:
            raise SpikeplugError('outliers lie beyond a fixed range: give range="at most NUMBER" with them.')
        if self.range not in ("largest", "least squares", "each vector") and not self.most > 0:
            raise SpikeplugError(
                f'range is {shown(self.range)}: choose "largest", "least squares" or "at most NUMBER".'
            )

    @property
    def most(self) -> float:
        """Return the number of a range `at most NUMBER`, else 0."""
        try:
            return float(self.range.removeprefix("at most ")) if self.range.startswith("at most ") else 0.0
        except ValueError:
            return 0.0


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Hold the recipe of an ANN-to-SNN pipeline, training-free.

    name            the name under which `convert` knows it
    source          the publication
    steps           what is coded, and how
    nonlinearities  "spiking": by spikeplug's operators; "exact": float, as the pipelines have them
    deviations      how it differs from the publication, a sentence each

    Weights stay as they are. Each linear layer multiplies them by what the spikes of its input add up to.
    Errors: SpikeplugError for two steps at one site, none, or an unknown choice.
    """

    name: str
    source: str
    steps: tuple[Step, ...]
    nonlinearities: Nonlinearities = "spiking"
    deviations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        sites = [step.site for step in self.steps]
        if not sites or len(set(sites)) < len(sites):
            raise SpikeplugError(
                f"the recipe {self.name} has steps at {sites}: give one or more, each at its own site."
            )
        if self.nonlinearities not in get_args(Nonlinearities):
            raise SpikeplugError(f'nonlinearities is {shown(self.nonlinearities)}: choose "spiking" or "exact".')

    def step(self, site: Site) -> Step | None:
        """Return the step at a site, or None."""
        return next((step for step in self.steps if step.site == site), None)
