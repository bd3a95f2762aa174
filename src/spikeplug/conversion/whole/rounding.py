"""Round the weights of a whole spiking model, layer by layer, in one run over the calibration tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from spikeplug.conversion.whole.coded import CodedPlug, free
from spikeplug.conversion.whole.recipe import Whole
from spikeplug.conversion.whole.unfinished import RoundedLayer, Unfinished
from spikeplug.errors import SpikeplugError
from spikeplug.memory import give_back
from spikeplug.numerics import Numerics
from spikeplug.operators.linear.linear import THRESHOLD_BITS, seen
from spikeplug.primitives.arithmetic import Closed
from spikeplug.progress import Progress
from spikeplug.weights import Hessian, gptq, rounded


@dataclass
class Rounding:
    """Round each layer's weight when its inputs arrive, in one run of the model over the calibration tokens.

    recipe    levels of the weights
    total     number of layers;  done  how many are rounded
    progress  is told after each layer
    kept      where rounded layers are kept, and found again; None: nowhere
    freeing   free each float weight once its integers are there
    dead      by path of a layer whose input is not rotated, how many channels were 0 in all of calibration: their
              weights are rounded to nearest
    """

    recipe: Whole
    total: int
    progress: Progress
    kept: Unfinished | None = None
    freeing: bool = False
    done: int = 0
    dead: dict[str, int] = field(default_factory=dict)
    _last: tuple[Tensor, tuple[int, int, int], Hessian] | None = None

    def __call__(self, plug: CodedPlug, x: Tensor) -> None:
        """Round the plug's dense weight, given the inputs x (..., columns) of the whole calibration run."""
        # The model runs under a function mode, which would redirect the sums and products of rounding, too.
        with torch._C.DisableTorchFunction():
            found = None if self.kept is None else self.kept.get(plug.path)
            if found is None:
                self._calibrated(plug, x)
            else:
                self._install(plug, found)

    def _calibrated(self, plug: CodedPlug, x: Tensor) -> None:
        how = (plug.levels, plug.block, plug.rotation)
        if self._last is None or self._last[0] is not x or self._last[1] != how:
            self._last = None  # frees the Hessian before another is made
            hessian = Hessian(x.shape[-1], plug.path, x.device)
            hessian.add(
                seen(torch.atleast_2d(x).flatten(0, -2), *how, on=Closed(plug.numerics or Numerics(), "linear"))
            )
            self._last = (x, how, hessian)
        self._round(plug, self._last[2])

    def nearest(self, plug: CodedPlug) -> None:
        """Round the plug's dense weight to the nearest levels."""
        self._round(plug, None)

    def _round(self, plug: CodedPlug, hessian: Hessian | None) -> None:
        assert plug.dense is not None
        weight, bias = plug.dense()
        levels, name = self.recipe.weights, f"{plug.path}.weight"
        if bias is not None and not bool(torch.isfinite(bias).all()):
            raise SpikeplugError(f"the bias of {plug.path} holds NaN or infinity: load the model again, or repair it.")
        how: Any = {"group": self.recipe.weight_group or None, "name": name}
        found = rounded(weight, levels, **how) if hessian is None else gptq(weight, hessian, levels, **how)
        del weight
        layer = RoundedLayer(
            found.mantissa, *shared_unit(found.threshold), bias, torch.tensor(len(found.dead_channels))
        )
        if self.kept is not None and hessian is not None:
            self.kept.put(plug.path, layer)
        self._install(plug, layer)

    def _install(self, plug: CodedPlug, layer: RoundedLayer) -> None:
        device, dead = plug.own("weight").device, int(layer.dead)
        if dead and not plug.rotation:  # rotated, the mean of a layer_norm's output is one, always
            self.dead[plug.path] = dead
        bias = None if layer.bias is None else layer.bias.to(device)
        plug.install(layer.mantissa.to(device), layer.threshold.to(device), layer.unit.to(device), bias)
        if self.freeing:
            free(plug.module)
        give_back()
        self.done += 1
        self.progress("rounding weights", self.done, self.total)


def shared_unit(threshold: Tensor) -> tuple[Tensor, Tensor]:
    """Return thresholds as int32 multiples below 2^16 of one power of two, and its exponent, int32 ()."""
    unit = (torch.frexp(threshold.max()).exponent - THRESHOLD_BITS).to(torch.int32)
    return torch.ldexp(threshold, -unit).to(torch.int32), unit
