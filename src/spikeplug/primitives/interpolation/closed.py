"""Interpolate in closed form."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from spikeplug.primitives.interpolation.spec import Interpolation

#: Functions of at most this many inputs are tabulated whole: one gather, no product.
_WHOLE = 1 << 16


def interpolate(x: Tensor, spec: Interpolation) -> Tensor:
    """Return the function that `spec` tabulates, interpolated at each integer 0 <= x <= spec.domain.

    The result is int32 if every knot fits it, else int64.
    """
    if spec.domain <= _WHOLE:
        return _gather(whole_table(spec, x.device), x.to(torch.int64))
    knots = knots_of(spec, x.device)
    x = x.to(torch.int64)
    segment = (x >> spec.rest_bits).clamp(max=spec.segments - 1)
    left = _gather(knots, segment)
    return _chord(left, _gather(knots, segment + 1), x - (segment << spec.rest_bits), spec).to(output_dtype(spec))


def output_dtype(spec: Interpolation) -> torch.dtype:
    """Return int32 (half the memory) if it holds every knot, else int64."""
    return torch.int32 if max(map(abs, spec.knots)) < 1 << 31 else torch.int64


def _chord(left: Tensor, right: Tensor, rest: Tensor, spec: Interpolation) -> Tensor:
    rise = right - left
    return left + torch.sign(rise) * (rise.abs() * rest >> spec.rest_bits)


def _gather(table: Tensor, index: Tensor) -> Tensor:
    # gather over a broadcast table is torch's fastest look-up, several times faster than indexing.
    return torch.gather(table.expand(1, -1), 1, index.reshape(1, -1)).view(index.shape)


@lru_cache(maxsize=64)
def knots_of(spec: Interpolation, device: torch.device) -> Tensor:
    """Return the values of the function at the ends of its segments (`spec.knots`), as an int64 tensor on `device`."""
    return torch.tensor(spec.knots, dtype=torch.int64, device=device)


@lru_cache(maxsize=64)
def whole_table(spec: Interpolation, device: torch.device) -> Tensor:
    """Return the interpolated value for every input 0, 1, ..., spec.domain, as one tensor on `device`."""
    x = torch.arange(spec.domain + 1)
    segment = (x >> spec.rest_bits).clamp(max=spec.segments - 1)
    knots = torch.tensor(spec.knots, dtype=torch.int64)
    answers = _chord(knots[segment], knots[segment + 1], x - (segment << spec.rest_bits), spec)
    return answers.to(output_dtype(spec)).to(device)
