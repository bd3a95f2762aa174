"""Change the weights of one layer: fold a norm's gain and bias in, subtract the mean of outputs, rotate both sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from spikeplug.weights.rotation import Rotation


@dataclass(frozen=True)
class LayerChange:
    """What to do with the weights of one layer y = W x + b, in this order.

    gain     W <- W diag(gain): the gain of the norm before it; (in,), float64
    shift    b <- b + W shift, with W before the gain: the bias of that norm; (in,), float64
    turn_in  W <- W Rᵀ: its inputs arrive rotated
    online   W <- W Hᵀ/sqrt(online) by blocks: its inputs are transformed at run time; 0: they are not
    centred  W <- W - mean over outputs, b likewise: its outputs get the mean 0
    turn_out W <- R W, b <- R b: its outputs leave rotated
    """

    gain: Tensor | None = None
    shift: Tensor | None = None
    turn_in: Rotation | None = None
    online: int = 0
    centred: bool = False
    turn_out: Rotation | None = None

    @property
    def changes_nothing(self) -> bool:
        """Return whether the layer keeps its weights."""
        given = (self.gain, self.shift, self.turn_in, self.turn_out)
        return not (self.online or self.centred) and all(each is None for each in given)

    def weight(self, weight: Tensor) -> Tensor:
        """Return the changed weight. weight: (out, in), float64."""
        if self.gain is not None:
            weight = weight * self.gain.to(weight.device)
        if self.turn_in is not None:
            weight = self.turn_in.of_reader(weight)
        if self.online:
            weight = Rotation(self.online).of_reader(weight)
        return self._output(weight)

    def bias(self, weight: Tensor, bias: Tensor | None) -> Tensor | None:
        """Return the changed bias (out,), or None if there is none and none is needed.

        weight  (out, in), float64, unchanged
        bias    (out,), float64, or None
        """
        if self.shift is not None:
            shift = weight @ self.shift.to(weight.device)
            bias = shift if bias is None else bias + shift
        return None if bias is None else self._output(bias)

    def _output(self, value: Tensor) -> Tensor:
        if self.centred:
            value = value - value.mean(0, keepdim=True)
        return value if self.turn_out is None else self.turn_out.of_writer(value)


Layout = Literal["rows", "columns"]


def layout_of(module: nn.Module | None) -> Layout:
    """Return where outputs are in a weight: `rows`: in the first dimension; `columns`: in the last.

    module  the layer; None: a bare parameter
    """
    return "columns" if module is None or isinstance(module, (nn.Embedding, Conv1D)) else "rows"


def as_rows(weight: Tensor, layout: Layout) -> Tensor:
    """Return a weight as a matrix (out, in), float64."""
    wide = weight.detach().to(torch.float64)
    if layout == "columns":
        wide = wide.movedim(-1, 0)
    return wide.flatten(1) if wide.dim() > 1 else wide


def from_rows(matrix: Tensor, like: Tensor, layout: Layout) -> Tensor:
    """Return a matrix (out, in) in the shape of the weight `like`."""
    if layout == "rows":
        return matrix.reshape(like.shape)
    return matrix.reshape(like.shape[-1], *like.shape[:-1]).movedim(0, -1).contiguous()
