"""Interpolate by neurons: ordered neurons find the segment, and the remaining bits gate the chord's rise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spikeplug.neurons import Scope, blocks, integrate, population_step
from spikeplug.primitives.interpolation.closed import output_dtype
from spikeplug.primitives.interpolation.spec import Interpolation
from spikeplug.primitives.product.simulate import gate


def interpolate(x: Tensor, spec: Interpolation, scope: Scope) -> Tensor:
    """Return the function that `spec` tabulates, interpolated at each integer 0 <= x <= spec.domain.

    One neuron per inner knot, with the knot as threshold, finds the segment.
    Two table reads and one gated product follow.
    """
    x = x.to(torch.int64)
    thresholds = [j << spec.rest_bits for j in range(1, spec.segments)]
    segment = ordered(x, thresholds, spec.domain.bit_length(), scope / "segment")
    knots = torch.tensor(spec.knots, dtype=torch.int64, device=x.device)
    left, right = (read(knots, place, scope / "knots") for place in (segment, segment + 1))
    # The end of the domain is a whole segment away from the last knot but one: hence one bit more.
    rise = gate(x - (segment << spec.rest_bits), (right - left).abs(), spec.rest_bits + 1, scope / "rise")
    rise = torch.sign(right - left) * (rise >> spec.rest_bits)
    return summed(rise, left, max(map(abs, spec.knots)).bit_length(), scope / "chord").to(output_dtype(spec))


def summed(rise: Tensor, start: Tensor, bits: int, scope: Scope) -> Tensor:
    """Return rise + start, below 2^bits: one neuron per element holds `rise` and adds `start` in one time step."""
    scope.population("accumulator", bits + 1, rise.numel()).steps += 1
    return integrate(rise.clone(), start, scope)


def ordered(x: Tensor, thresholds: Sequence[int], bits: int, scope: Scope) -> Tensor:
    """Return, for each integer |x| < 2^bits, how many of `thresholds` it reaches, int64.

    Each element has one neuron per threshold; all compare in one time step.
    """
    reached = torch.empty(x.shape, dtype=torch.int64, device=x.device)
    scope.population("threshold", bits + 1, x.numel() * len(thresholds)).steps += 1
    for current, target in blocks(scope, x, reached):
        target.copy_(population_step(current, thresholds, scope))
    return reached


def read(table: Tensor, index: Tensor, scope: Scope) -> Tensor:
    """Return the entries of `table` at `index`, and count one table read per index."""
    width = max(abs(int(end)) for end in torch.aminmax(table)).bit_length() + 1
    scope.population("table", width, table.numel()).table_reads += index.numel()
    return torch.take(table, index)
