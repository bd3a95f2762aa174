"""A neuron at a tensor of a model: calibrated by the first tensor that arrives, then coding each one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from spikeplug.conversion.plug import Plug, plug_of, refuse_proxies
from spikeplug.conversion.recipes.recipe import Step
from spikeplug.errors import SpikeplugError
from spikeplug.library import OPERATORS
from spikeplug.numerics import Numerics
from spikeplug.operators.linear.neuron import as_threshold, neuron_of

#: Elements of a tensor's rows, evenly spaced, by which a range with the least squared error is found; and the ranges
#: that are tried, as fractions of the largest magnitude.
_ELEMENTS = 1 << 18
_FRACTIONS = tuple(2.0 ** (-place / 4) for place in range(21))
Saliency = Callable[[Tensor], Tensor]


class Neuron:
    """Code one tensor of a model by spikes.

    path, step  of the tensor's module, and of the recipe
    numerics    of the operator
    saliency    gives the score of each channel of the module's input, (..., channels) -> (channels,)
    kind        of the neuron, once it is calibrated
    arrived     called when it is calibrated; None: it is not to be calibrated (any more)

    Until it is calibrated, a tensor stays as it is.
    """

    def __init__(self, path: str, step: Step, numerics: Numerics, saliency: Saliency | None = None) -> None:
        self.path, self.step, self.numerics, self.saliency = path, step, numerics, saliency
        self.kind = step.neuron
        self.arrived: Callable[[], None] | None = None
        #: (thresholds, unit) of the neuron, and of the one for outliers.
        self.thresholds: list[tuple[Tensor, Tensor]] = []
        #: Bool (channels,), of a GIF neuron.
        self.salient: Tensor | None = None

    @property
    def calibrated(self) -> bool:
        """Return whether the neuron codes what arrives."""
        return bool(self.thresholds) or self.salient is not None

    def __call__(self, x: Tensor) -> Tensor:
        """Return x by the spikes of the neuron, in its shape and dtype."""
        if self.arrived is not None:
            self._calibrate(x.detach())
            arrived, self.arrived = self.arrived, None
            arrived()
        if self.salient is not None:
            bits = map(int, self.kind.split()[1:])
            return OPERATORS["gif"](x, self.salient.to(x.device), *bits, numerics=self.numerics)
        if not self.thresholds:
            return x
        if not self.step.outliers:
            return self._coded(x, 0)
        beyond = x.abs() > self.step.most
        return torch.where(
            beyond, self._coded(x.masked_fill(~beyond, 0.0), 1), self._coded(x.masked_fill(beyond, 0.0), 0)
        )

    def _coded(self, x: Tensor, place: int) -> Tensor:
        threshold, unit = (each.to(x.device) for each in self.thresholds[place])
        return OPERATORS["neuron"](x, threshold, unit, self.kind, numerics=self.numerics)

    def _calibrate(self, x: Tensor) -> None:
        x = x.reshape(-1, x.shape[-1])
        if not x.numel():
            raise SpikeplugError(f"the {self.step.name} of {self.path} are empty in calibration: give other inputs.")
        largest = x.abs().amax((0,) if self.step.channels else (0, 1)).reshape(-1)
        if not bool(torch.isfinite(largest).all()):
            raise SpikeplugError(
                f"the {self.step.name} of {self.path} hold NaN or infinity in calibration: give other inputs, or "
                "repair the model."
            )
        if self.step.range == "each vector":
            self.salient = torch.zeros(x.shape[-1], dtype=torch.bool, device=x.device)
            if self.saliency is not None:
                score = self.saliency(x.to(torch.float64))
                self.salient[score.topk(round(self.step.salient * x.shape[-1])).indices] = True
            return
        lowest = float(x.min())
        if lowest < 0 and neuron_of(self.kind).lowest == 0:
            raise SpikeplugError(
                f"the {self.step.name} of {self.path} reach {lowest:.3g}, and this recipe's neuron sends no negative "
                "numbers: choose its form with signed=True, or a model with ReLU."
            )
        if lowest >= 0 and self.step.positive:
            self.kind = self.step.positive
        largest = largest.to(torch.float64)
        if self.step.range == "least squares":
            x = x if self.step.channels else x.reshape(-1, 1)
            chosen = self._least_squares(x[:: -(-x.numel() // _ELEMENTS)].to(torch.float64), largest)
        else:
            chosen = largest.clamp(self.step.most, self.step.most) if self.step.most else largest
        self.thresholds = [self._threshold(most) for most in ([chosen, largest] if self.step.outliers else [chosen])]

    def _threshold(self, most: Tensor) -> tuple[Tensor, Tensor]:
        """Return the integers of the threshold of which the last level is `most`, (channels,) or one for all."""
        most = torch.where(most > 0, most, 1.0)  # where all is 0, any threshold serves
        threshold = most / neuron_of(self.kind).highest
        return as_threshold(threshold if self.step.channels else threshold.squeeze(0), self.kind)

    def _least_squares(self, x: Tensor, largest: Tensor) -> Tensor:
        """Return what of some fractions of the largest magnitude, as the last level, makes the squared error least."""
        errors = []
        for fraction in _FRACTIONS:
            threshold = self._threshold(fraction * largest)
            coded = OPERATORS["neuron"](x, *threshold, self.kind, numerics=self.numerics)
            errors.append((coded - x).square().sum(0))
        return largest * torch.tensor(_FRACTIONS, device=x.device, dtype=x.dtype)[torch.stack(errors).argmin(0)]


class NeuronPlug(Plug):
    """Run a module with a neuron at its input, or at its output.

    neuron    the neuron
    instead   the plug that runs in place of the module's own forward; None: that runs
    """

    label = "spikes"

    def __init__(self, module: nn.Module, numerics: Numerics, neuron: Neuron, instead: Plug | None = None) -> None:
        super().__init__(module, numerics)
        self.neuron, self.instead = neuron, instead

    def moved_to(self, module: nn.Module) -> None:
        """Put a plug of its own into `module`, a shallow copy of this plug's module that still holds this one."""
        super().moved_to(module)
        plug = plug_of(module)
        if isinstance(plug, NeuronPlug) and plug.instead is not None:
            plug.instead = copy.copy(plug.instead)
            plug.instead.module = module

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.detached:
            return self.original(*args, **kwargs)
        run = self.original if self.instead is None else self.instead
        if self.neuron.step.site == "activation":
            return self.neuron(run(*args, **kwargs))
        refuse_proxies(self.module, args)
        if args:
            return run(self.neuron(args[0]), *args[1:], **kwargs)
        name, x = next(iter(kwargs.items()))
        return run(**{**kwargs, name: self.neuron(x)})
