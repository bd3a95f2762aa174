"""Round weights to integers: W = m · θ, with int8 integers m and a firing threshold θ per row.

A threshold is an integer of 16 bits times a power of two that all rows share, so that m·θ is exact in float32.
In groups, m = k · f: k has 4 bits, -8 to 7, and successive inputs of a row share the factor f, -8 to 8 without 0. A row
has a single threshold still, so whatever runs int8 weights runs these.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from spikeplug.errors import SpikeplugError
from spikeplug.weights.hessian import Hessian

#: Bits of the integer in a threshold.
THRESHOLD_BITS = 16
#: Least and largest of the 4-bit numbers in groups.
NIBBLE = (-8, 7)
#: Magnitudes of a group's factor: with the sign, it has 4 bits, too.
MOST_FACTOR = 8
# The largest threshold of a layer is taken as one within: m·θ is a normal float32 then.
_SMALLEST = 2.0**-100
_LARGEST = 2.0**100
# Parts of a row's largest weight that the search of a clip tries as the end of the range.
_CLIPS = tuple(1 - step / 64 for step in range(1, 24))
# Parts of the smallest threshold that clips nothing in a row, which are tried in groups; and how many magnitudes of
# a factor are tried, from the one that clips nothing in its group downwards. Measured: more gain less than 1 %.
_PARTS = (1, 29 / 32, 26 / 32)
_SMALLER = 4
#: Rows that are worked on at once, so that it takes little memory.
ROWS = 2048
_BLOCK = 32  # inputs that GPTQ rounds one by one before it changes all later ones at once; measured


@dataclass(frozen=True)
class Rounded:
    """A weight matrix as integers and thresholds: W[i, j] = mantissa[i, j] · threshold[i].

    mantissa       int8 (out, in), |m| <= levels; in groups, numbers of 4 bits times a factor
    threshold      float32 (out,): 16-bit integers times one power of two, exact in float32
    dead_rows      rows whose weights are all zero
    dead_channels  inputs that calibration never saw other than zero; their weights are rounded to nearest
    """

    mantissa: Tensor
    threshold: Tensor
    dead_rows: tuple[int, ...] = ()
    dead_channels: tuple[int, ...] = ()

    def real(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return mantissa · threshold (out, in); exact in float32 and float64."""
        return self.mantissa.to(dtype) * self.threshold.to(dtype)[:, None]


def rounded(
    weight: Tensor, levels: int = 127, *, group: int | None = None, clip: bool = False, name: str = "the weight"
) -> Rounded:
    """Round a weight to the nearest integers times a threshold per row, and in groups times factors.

    weight  (out, in), floating
    levels  largest magnitude of an integer, 1 to 127; without meaning in groups
    group   successive inputs that share a factor, the last ones of a row may be fewer; None: there are no factors.
            Factors and thresholds have the smallest squared error that a search finds
    clip    choose each threshold for the smallest squared error of its row, so that large weights may be clipped; in
            groups, it is always so
    name    of the weight, for messages

    Errors: SpikeplugError for NaN or infinity, and levels or a group out of range.
    """
    largest = None if group is None else _largest(weight)

    def nearest(wide: Tensor) -> tuple[Tensor, Tensor]:
        threshold, factor = _steps(wide, levels, group, clip, None, largest)
        return _nearest(wide, threshold, factor, levels), threshold

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
    clip       as for `rounded`, with squared errors weighted by the inputs' mean squares; in groups, they are not
    Other arguments: as for `rounded`. Computed in float64; the same on every call.

    Errors: SpikeplugError as for `rounded`; for a Hessian that was never fed, or of another width.
    Source: Frantar et al., GPTQ, ICLR 2023 (arXiv 2210.17323).
    """
    _check(weight, levels, group, name)
    if hessian.width != weight.shape[1]:
        raise SpikeplugError(
            f"{name} has {weight.shape[1]} inputs, but its Hessian has {hessian.width}: feed it this layer's inputs."
        )
    order, upper = (part.to(weight.device) for part in hessian.inverse_factor(damping, act_order))
    importance = hessian.mean_squares().to(weight.device)
    dead = hessian.dead_channels()
    columns = torch.tensor(dead, device=weight.device, dtype=torch.int64)
    largest = None if group is None else _largest(weight)
    lowest, highest = _range(levels, group)

    def compensated(wide: Tensor) -> tuple[Tensor, Tensor]:
        threshold, factor = _steps(wide, levels, group, clip, importance, largest)
        scales = threshold if factor is None else (threshold[:, None] * factor).T[order].contiguous()
        mantissa = torch.empty_like(wide)
        mantissa[:, order] = _compensated(wide.T[order].contiguous(), upper, scales, lowest, highest).T
        if factor is not None:
            mantissa *= factor
        if dead:
            mantissa[:, columns] = _nearest(wide, threshold, factor, levels)[:, columns]
        return mantissa, threshold

    return _in_parts(compensated, weight, levels, group, name, dead)


def threshold_of(value: Tensor, largest: Tensor | None = None) -> Tensor:
    """Round thresholds up to multiples, from 1 to 2^16 - 1, of the power of two that suits the largest; same shape.

    largest  of a layer's thresholds, (); None: the largest of `value`
    """
    most = (value.max() if largest is None else largest).clamp(_SMALLEST, _LARGEST)
    unit = torch.frexp(most).exponent - THRESHOLD_BITS
    return torch.ldexp(torch.ldexp(value, -unit).ceil().clamp(1, (1 << THRESHOLD_BITS) - 1), unit)


def _compensated(weight: Tensor, factor: Tensor, scales: Tensor, lowest: int, highest: int) -> Tensor:
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
            integers = torch.div(weight[j], scale, out=mantissa[j]).round_().clamp_(lowest, highest)
            torch.addcmul(weight[j], integers, scale, value=-1, out=error[j - start]).div_(factor[j, j])
            weight[j + 1 : end].addr_(factor[j, j + 1 : end], error[j - start], alpha=-1)
        weight[end:].addmm_(factor[start:end, end:].T, error[: end - start], alpha=-1)
    return mantissa


def _range(levels: int, group: int | None) -> tuple[int, int]:
    """Return the least and the largest integer: of `levels`, or of 4 bits in groups."""
    return (-levels, levels) if group is None else NIBBLE


def _steps(
    weight: Tensor, levels: int, group: int | None, clip: bool, importance: Tensor | None, largest: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return thresholds (out,), and the factor of each weight (out, in), None without groups; float64.

    importance  weight of each input's squared error (in,), for the search of a clip; None: all alike. In groups they
                are: GPTQ makes up for the error of large inputs, and factors chosen for them were worse
    largest     magnitude of the layer's weights, (), float64; None: there are no groups
    """
    if group is None or largest is None:
        return _thresholds(weight, levels, clip, importance), None
    return _factors(weight, group, largest)


def _thresholds(weight: Tensor, levels: int, clip: bool, importance: Tensor | None) -> Tensor:
    largest = weight.abs().amax(-1)
    best = threshold_of(largest / levels)
    if not clip:
        return best

    def cost(threshold: Tensor) -> Tensor:
        error = (_nearest(weight, threshold, None, levels) * threshold[:, None] - weight).square()
        return (error if importance is None else error * importance).sum(-1)

    lowest = cost(best)
    for part in _CLIPS:
        candidate = threshold_of(largest * part / levels, (largest / levels).max())
        found = cost(candidate)
        best = torch.where(found < lowest, candidate, best)
        lowest = torch.minimum(found, lowest)
    return best


def _factors(weight: Tensor, group: int, largest: Tensor) -> tuple[Tensor, Tensor]:
    """Return thresholds (out,), and the factor of each weight (out, in), of the smallest squared error that is found.

    largest  magnitude of the layer's weights, ()

    For each threshold that is tried, every group takes its best factor; the row takes the threshold of the least error.
    """
    width, (lowest, highest) = weight.shape[1], NIBBLE
    pieces = F.pad(weight, (0, -width % group)).unflatten(1, (-1, group))
    most, least = pieces.amax(-1).clamp_min(0), pieces.amin(-1).clamp_max(0)
    # By the sign of the factor: the smallest step with which no weight of a group is clipped.
    reach = {1: torch.maximum(most / highest, least / lowest), -1: torch.maximum(most / -lowest, least / -highest)}
    smallest = torch.minimum(reach[1], reach[-1]).amax(-1) / MOST_FACTOR
    best = weight.new_full(smallest.shape, torch.inf)
    threshold, factor = torch.zeros_like(best), torch.zeros_like(most)
    for part in _PARTS:
        tried = threshold_of(smallest * part, largest / highest / MOST_FACTOR)
        error, own = torch.full_like(most, torch.inf), torch.zeros_like(most)
        for sign, less in itertools.product(reach, range(_SMALLER)):
            top = (reach[sign] / tried[:, None]).ceil().clamp(1, MOST_FACTOR)
            candidate = sign * (top - less).clamp(1)
            step = (candidate * tried[:, None]).unsqueeze(-1)
            off = torch.round(pieces / step).clamp_(lowest, highest).mul_(step).sub_(pieces).square_().sum(-1)
            own, error = torch.where(off < error, candidate, own), torch.minimum(off, error)
        found = error.sum(-1)
        better = found < best
        threshold, best = torch.where(better, tried, threshold), torch.where(better, found, best)
        factor = torch.where(better[:, None], own, factor)
    return threshold, factor.repeat_interleave(group, 1)[:, :width]


def _nearest(weight: Tensor, threshold: Tensor, factor: Tensor | None, levels: int) -> Tensor:
    """Return the nearest integers of their range, times their factors, in the weight's dtype; ties to even."""
    if factor is None:
        return torch.round(weight / threshold[:, None]).clamp_(-levels, levels)
    return torch.round(weight / (threshold[:, None] * factor)).clamp_(*NIBBLE) * factor


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
    threshold = weight.new_empty(rows, dtype=torch.float32)
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
    return Rounded(mantissa, threshold, dead_rows, dead_channels)


def _largest(weight: Tensor) -> Tensor:
    """Return the largest magnitude of a weight, (), float64, without a copy of the weight; 0 if it is empty."""
    extremes = weight.detach().aminmax() if weight.numel() else (weight.new_zeros(()),)
    return torch.stack(extremes).abs().amax().to(torch.float64)


def _check(weight: Tensor, levels: int, group: int | None, name: str) -> None:
    """Check shape, levels and group. Errors: SpikeplugError for what cannot be rounded."""
    if weight.dim() != 2 or not weight.is_floating_point():
        raise SpikeplugError(f"{name} is no floating matrix (out, in): its shape is {tuple(weight.shape)}.")
    if not 1 <= levels <= 127:
        raise SpikeplugError(f"levels is {levels}; it must be 1 to 127, so that integers fit int8.")
    if group is not None and group < 1:
        raise SpikeplugError(f"group is {group}; give the number of inputs that share a factor, or None.")
