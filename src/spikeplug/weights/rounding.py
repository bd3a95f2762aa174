"""Round weights to integers: W = m · θ, with small integers m and a firing threshold θ per row or group of inputs.

A threshold is an integer of 16 bits times a power of two that all rows share, so that m·θ is exact in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from spikeplug.errors import SpikeplugError
from spikeplug.weights.hessian import Hessian

#: Bits of the integer in a threshold.
THRESHOLD_BITS = 16
# The largest threshold of a layer is taken as one within: m·θ is a normal float32 then.
_SMALLEST = 2.0**-100
_LARGEST = 2.0**100
# Parts of a row's largest weight that the search of a clip tries as the end of the range.
_CLIPS = tuple(1 - step / 64 for step in range(1, 24))
#: Rows that are worked on at once, so that it takes little memory.
ROWS = 2048
_BLOCK = 32  # inputs that GPTQ rounds one by one before it changes all later ones at once; measured


@dataclass(frozen=True)
class Rounded:
    """A weight matrix as integers and thresholds: W[i, j] = mantissa[i, j] · threshold[i] (or of j's group).

    mantissa       int8 (out, in), |m| <= levels
    threshold      float32 (out,), or (out, in/group): 16-bit integers times one power of two, exact in float32
    levels         largest magnitude of a mantissa
    group          inputs that share a threshold; None: all of a row
    dead_rows      rows whose weights are all zero
    dead_channels  inputs that calibration never saw other than zero; their weights are rounded to nearest
    """

    mantissa: Tensor
    threshold: Tensor
    levels: int
    group: int | None = None
    dead_rows: tuple[int, ...] = ()
    dead_channels: tuple[int, ...] = ()

    def real(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return mantissa · threshold (out, in); exact in float32 and float64."""
        return _times(self.mantissa.to(dtype), self.threshold.to(dtype), self.group)


def rounded(
    weight: Tensor, levels: int = 127, *, group: int | None = None, clip: bool = False, name: str = "the weight"
) -> Rounded:
    """Round a weight to the nearest integers times a threshold per row, or per group of inputs.

    weight  (out, in), floating
    levels  largest magnitude of an integer, 1 to 127
    group   inputs that share a threshold; it has to divide `in`; None: all of a row
    clip    choose each threshold for the smallest squared error of its row, so that large weights may be clipped
    name    of the weight, for messages

    Errors: SpikeplugError for NaN or infinity, levels out of range, or a group that does not divide the inputs.
    """

    def nearest(wide: Tensor) -> tuple[Tensor, Tensor]:
        threshold = _thresholds(wide, levels, group, clip, None)
        return _nearest(wide, threshold, levels, group), threshold

    return _in_parts(nearest, weight, levels, group, name)


def gptq(
    weight: Tensor,
    hessian: Hessian,
    levels: int = 127,
    *,
    group: int | None = None,
    damping: float = 0.3,
    act_order: bool = True,
    clip: bool = False,
    name: str = "the weight",
) -> Rounded:
    """Round a weight column by column, and let later columns make up for the error of earlier ones (GPTQ).

    It lowers the squared error of W x over the calibration inputs x, where `rounded` lowers that of W.

    weight     (out, in), floating
    hessian    of the layer's inputs, fed with calibration tokens
    damping    number added to the Hessian's diagonal, as a part of its mean
    act_order  start with the inputs of the largest mean square
    clip       choose each threshold for the smallest squared error of its row, weighted by the inputs' mean squares
    Other arguments: as for `rounded`. Computed in float64; the same on every call.

    Errors: SpikeplugError as for `rounded`; for a Hessian that was never fed, or of another width.
    Source: Frantar et al., GPTQ, ICLR 2023 (arXiv 2210.17323).
    """
    _check(weight, levels, group, name)
    if hessian.width != weight.shape[1]:
        raise SpikeplugError(
            f"{name} has {weight.shape[1]} inputs, but its Hessian has {hessian.width}: feed it this layer's inputs."
        )
    order, factor = (part.to(weight.device) for part in hessian.inverse_factor(damping, act_order))
    importance = hessian.mean_squares().to(weight.device)
    dead = hessian.dead_channels()
    columns = torch.tensor(dead, device=weight.device, dtype=torch.int64)

    def compensated(wide: Tensor) -> tuple[Tensor, Tensor]:
        threshold = _thresholds(wide, levels, group, clip, importance)
        scales = threshold if group is None else threshold.repeat_interleave(group, 1).T[order].contiguous()
        mantissa = torch.empty_like(wide)
        mantissa[:, order] = _compensated(wide.T[order].contiguous(), factor, scales, levels).T
        if dead:
            mantissa[:, columns] = _nearest(wide, threshold, levels, group)[:, columns]
        return mantissa, threshold

    return _in_parts(compensated, weight, levels, group, name, dead)


def threshold_of(value: Tensor, largest: Tensor | None = None) -> Tensor:
    """Round thresholds up to multiples, from 1 to 2^16 - 1, of the power of two that suits the largest; same shape.

    largest  of a layer's thresholds, (); None: the largest of `value`
    """
    most = (value.max() if largest is None else largest).clamp(_SMALLEST, _LARGEST)
    unit = torch.frexp(most).exponent - THRESHOLD_BITS
    return torch.ldexp(torch.ldexp(value, -unit).ceil().clamp(1, (1 << THRESHOLD_BITS) - 1), unit)


def _compensated(weight: Tensor, factor: Tensor, scales: Tensor, levels: int) -> Tensor:
    """Return the integers of GPTQ, float64 (in, out).

    weight  (in, out), contiguous, in the order in which inputs are rounded; it is changed
    factor  upper Cholesky factor of the inverse Hessian, in the same order
    scales  thresholds (out,), or (in, out) in the same order
    """
    width = weight.shape[0]
    mantissa, error = torch.empty_like(weight), torch.empty_like(weight[:_BLOCK])
    for start in range(0, width, _BLOCK):
        end = min(start + _BLOCK, width)
        for j in range(start, end):
            scale = scales if scales.dim() == 1 else scales[j]
            integers = torch.div(weight[j], scale, out=mantissa[j]).round_().clamp_(-levels, levels)
            torch.addcmul(weight[j], integers, scale, value=-1, out=error[j - start]).div_(factor[j, j])
            weight[j + 1 : end].addr_(factor[j, j + 1 : end], error[j - start], alpha=-1)
        weight[end:].addmm_(factor[start:end, end:].T, error[: end - start], alpha=-1)
    return mantissa


def _thresholds(weight: Tensor, levels: int, group: int | None, clip: bool, importance: Tensor | None) -> Tensor:
    """Return thresholds (out,) or (out, groups), float64.

    importance  weight of each input's squared error (in,), for the search of a clip; None: all alike
    """
    pieces = weight if group is None else weight.unflatten(1, (-1, group))
    largest = pieces.abs().amax(-1)
    best = threshold_of(largest / levels)
    if not clip:
        return best

    def cost(threshold: Tensor) -> Tensor:
        error = (_times(_nearest(weight, threshold, levels, group), threshold, group) - weight).square()
        if importance is not None:
            error = error * importance
        return (error if group is None else error.unflatten(1, (-1, group))).sum(-1)

    lowest = cost(best)
    for part in _CLIPS:
        candidate = threshold_of(largest * part / levels, (largest / levels).max())
        found = cost(candidate)
        best = torch.where(found < lowest, candidate, best)
        lowest = torch.minimum(found, lowest)
    return best


def _nearest(weight: Tensor, threshold: Tensor, levels: int, group: int | None) -> Tensor:
    """Return the nearest integers of at most `levels`, in the weight's dtype; ties to even."""
    spread = threshold[:, None] if group is None else threshold.repeat_interleave(group, 1)
    return torch.round(weight / spread).clamp_(-levels, levels)


def _times(mantissa: Tensor, threshold: Tensor, group: int | None) -> Tensor:
    return mantissa * (threshold[:, None] if group is None else threshold.repeat_interleave(group, 1))


def _in_parts(
    integers_of: Callable[[Tensor], tuple[Tensor, Tensor]],
    weight: Tensor,
    levels: int,
    group: int | None,
    name: str,
    dead_channels: tuple[int, ...] = (),
) -> Rounded:
    """Round a weight, some rows at a time, so that only these are in float64. Errors: as of `rounded`.

    integers_of  returns integers (rows, in), float64, and thresholds of finite rows (rows, in), float64
    """
    _check(weight, levels, group, name)
    rows, columns = weight.shape
    # All that stays is allocated first: between the parts, it would keep their memory from being used again.
    mantissa = weight.new_empty(weight.shape, dtype=torch.int8)
    threshold = weight.new_empty((rows,) if group is None else (rows, columns // group), dtype=torch.float32)
    dead = weight.new_zeros(rows, dtype=torch.bool)
    results = (whole.split(ROWS) for whole in (mantissa, threshold, dead))
    for part, *into in zip(weight.detach().split(ROWS), *results, strict=True):
        wide = part.to(torch.float64)
        if not bool(wide.isfinite().all()):
            raise SpikeplugError(f"{name} holds NaN or infinity: load the model again, or repair it.")
        found = (*integers_of(wide), torch.logical_not(wide.any(1)))
        for result, values in zip(into, found, strict=True):
            result.copy_(values)
    dead_rows = tuple(torch.nonzero(dead).flatten().tolist()) if columns else ()
    return Rounded(mantissa, threshold, levels, group, dead_rows, dead_channels)


def _check(weight: Tensor, levels: int, group: int | None, name: str) -> None:
    """Check shape, levels and group. Errors: SpikeplugError for what cannot be rounded."""
    if weight.dim() != 2 or not weight.is_floating_point():
        raise SpikeplugError(f"{name} is no floating matrix (out, in): its shape is {tuple(weight.shape)}.")
    if not 1 <= levels <= 127:
        raise SpikeplugError(f"levels is {levels}; it must be 1 to 127, so that integers fit int8.")
    if group is not None and (group < 1 or weight.shape[1] % group):
        raise SpikeplugError(
            f"{name} has {weight.shape[1]} inputs, which groups of {group} do not divide: give another."
        )
