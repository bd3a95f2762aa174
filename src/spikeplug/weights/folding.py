"""Change the weights of one layer: fold a norm's gain and bias in, subtract the mean of outputs, rotate both sides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from spikeplug.weights.rotation import Rotation

#: Numbers of a weight that are worked on at once: 8 MB in float64.
_PART = 1 << 20


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

    def weight(self, weight: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the changed weight in `dtype`, laid out in memory as the given one.

        weight  (out, in), floating

        Computed in float64, in parts, so that no wide copy of the weight exists, or one if both sides change.
        """
        writes = self.centred or self.turn_out is not None
        if self.gain is not None or self.turn_in is not None or self.online:
            weight = in_parts(self._input, weight, 0, torch.float64 if writes else dtype)
        return in_parts(self._output, weight, 1, dtype) if writes else weight.to(dtype)

    def bias(self, weight: Tensor, bias: Tensor | None) -> Tensor | None:
        """Return the changed bias (out,), or None if there is none and none is needed.

        weight  (out, in), floating, unchanged
        bias    (out,), float64, or None
        """
        if self.shift is not None:
            shift = weight.to(torch.float64) @ self.shift.to(weight.device)
            bias = shift if bias is None else bias + shift
        return None if bias is None else self._output(bias)

    def _input(self, weight: Tensor) -> Tensor:
        if self.gain is not None:
            weight = weight * self.gain.to(weight.device)
        if self.turn_in is not None:
            weight = self.turn_in.of_reader(weight)
        return Rotation(self.online).of_reader(weight) if self.online else weight

    def _output(self, value: Tensor) -> Tensor:
        if self.centred:
            value = value - value.mean(0, keepdim=True)
        return value if self.turn_out is None else self.turn_out.of_writer(value)


def in_parts(change: Callable[[Tensor], Tensor], weight: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    """Return change(weight) in `dtype`, computed in float64, some rows (dim 0) or columns (dim 1) at a time.

    change  of rows or columns that do not depend on each other; it keeps their shape
    weight  (out, in), floating; the result is laid out in memory as it is
    """
    changed = torch.empty_like(weight, dtype=dtype)
    size = max(1, _PART // max(1, weight.shape[1 - dim]))
    for part, result in zip(weight.split(size, dim), changed.split(size, dim), strict=True):
        result.copy_(change(part.to(torch.float64)))
    return changed


Layout = Literal["rows", "columns"]


def layout_of(module: nn.Module | None) -> Layout:
    """Return where outputs are in a weight: `rows`: in the first dimension; `columns`: in the last.

    module  the layer; None: a bare parameter
    """
    return "columns" if module is None or isinstance(module, (nn.Embedding, Conv1D)) else "rows"


def as_rows(weight: Tensor, layout: Layout) -> Tensor:
    """Return a weight as a matrix (out, in), in its dtype."""
    rows = weight.detach()
    if layout == "columns":
        rows = rows.movedim(-1, 0)
    return rows.flatten(1) if rows.dim() > 1 else rows.unsqueeze(1)


def from_rows(matrix: Tensor, like: Tensor, layout: Layout) -> Tensor:
    """Return a matrix (out, in) in the shape of the weight `like`."""
    if layout == "rows":
        return matrix.reshape(like.shape)
    return matrix.reshape(like.shape[-1], *like.shape[:-1]).movedim(0, -1).contiguous()
