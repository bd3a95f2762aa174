"""Specify a quantising neuron, and the ones that ANN-to-SNN pipelines publish."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from spikeplug.errors import SpikeplugError
from spikeplug.fixedpoint import constant

_INTEGERS = (torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True, kw_only=True)
class QuantiseSpec:
    """Specify a neuron that turns an integer x into spikes, which add up to about x / θ; θ is its firing threshold.

    bits            |x| < 2^bits
    threshold_bits  1 <= θ < 2^threshold_bits
    weights         what a spike is worth, in units of θ, in each of the T time steps; the firing threshold of a step
                    is θ times its weight
    levels          L, the most spikes per time step
    signed          whether a second population sends the spikes of negative x; else negative x are refused
    bounds          for one neuron that sends spikes of both signs: the least and the greatest sum of its spikes
    rounds          whether the membrane starts at half the smallest firing threshold, which rounds to nearest
    strict          whether a neuron fires above its threshold only, and not at it
    paced           whether x / T arrives in every time step; else x arrives in the first one

    Errors: SpikeplugError for fields that describe no such neuron, for membranes of more than 64 bits, and for too few
    time steps to reach the bounds.
    """

    bits: int
    threshold_bits: int
    weights: tuple[int, ...]
    levels: int = 1
    signed: bool = True
    bounds: tuple[int, int] | None = None
    rounds: bool = True
    strict: bool = False
    paced: bool = False

    def __post_init__(self) -> None:
        for name in ("bits", "threshold_bits", "levels"):
            if getattr(self, name) < 1:
                raise SpikeplugError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if not self.weights or min(self.weights) < 1:
            raise SpikeplugError(f"weights are {self.weights}; give one integer from 1 on per time step.")
        if self.paced and len(set(self.weights)) > 1:
            raise SpikeplugError("a neuron with a constant input current needs the same weight in all time steps.")
        if self.bounds is not None:
            self._check_bounds(*self.bounds)
        if self.width > 64:
            raise SpikeplugError(
                f"a quantising neuron for {self.bits} bits, with thresholds of {self.threshold_bits} bits, needs "
                f"membranes of {self.width} bits, more than 64: use fewer bits or time steps."
            )

    def _check_bounds(self, low: int, high: int) -> None:
        if not low <= 0 < high:
            raise SpikeplugError(f"bounds are {low} and {high}; the first must be at most 0, the second at least 1.")
        if self.levels > 1 or self.paced or set(self.weights) != {1}:
            raise SpikeplugError("a neuron with bounds sends spikes of weight 1, at most one per time step, not paced.")
        if self.steps < max(high, -low):
            raise SpikeplugError(
                f"{self.steps} time steps are too few for sums of spikes from {low} to {high} to settle: use at least "
                f"{max(high, -low)}."
            )

    @property
    def steps(self) -> int:
        """Return T, the number of time steps."""
        return len(self.weights)

    @property
    def populations(self) -> int:
        """Return 2 if negative numbers have a population of their own, else 1."""
        return 2 if self.signed and self.bounds is None else 1

    @property
    def lowest(self) -> int:
        """Return the least sum of spikes."""
        return self.bounds[0] if self.bounds else -self.highest if self.signed else 0

    @property
    def highest(self) -> int:
        """Return the greatest sum of spikes."""
        return self.bounds[1] if self.bounds else self.levels * sum(self.weights)

    @property
    def runs(self) -> tuple[tuple[int, int], ...]:
        """Return (weight, time steps) for each run of time steps with the same weight."""
        return tuple((weight, len(list(steps))) for weight, steps in groupby(self.weights))

    @property
    def pace(self) -> int:
        """Return the factor of all membranes that makes the input current of a step an integer: T if paced, else 1."""
        return self.steps if self.paced else 1

    @property
    def width(self) -> int:
        """Return the bits of a membrane, its sign included."""
        inputs, threshold = 2 * ((1 << self.bits) - 1), (1 << self.threshold_bits) - 1
        highest = max(inputs + threshold * min(self.weights), 2 * threshold * max(self.weights) * self.levels)
        if self.bounds:  # input that leaves again while the spikes that it caused are still counted
            highest = inputs + threshold * (1 + 2 * max(self.bounds[1], -self.bounds[0]))
        return (self.pace * highest).bit_length() + 1

    @property
    def total_width(self) -> int:
        """Return the bits of the sum of the spikes, its sign included."""
        return max(self.highest, -self.lowest).bit_length() + 1

    def start(self, threshold: Tensor) -> Tensor:
        """Return the membrane before the first time step; membranes and their thresholds are doubled, and paced."""
        start = threshold * (self.pace * min(self.weights) if self.rounds else 0)
        return start - 1 if self.strict else start

    def operands(self, x: Tensor, threshold: Tensor | int) -> tuple[Tensor, Tensor]:
        """Return x and the thresholds as int64 tensors of one shape.

        Errors: SpikeplugError unless both are integers of the stated widths, and for negative x that no population
        sends.
        """
        thresholds = torch.as_tensor(threshold, device=x.device)
        for name, values in (("input", x), ("threshold", thresholds)):
            if values.dtype not in _INTEGERS:
                raise SpikeplugError(f"a neuron's {name} must be an int16, int32 or int64 tensor, not {values.dtype}.")
        x, thresholds = torch.broadcast_tensors(x.to(torch.int64), thresholds.to(torch.int64))
        if x.numel() == 0:
            return x, thresholds
        if int(thresholds.min()) < 1 or int(thresholds.max()) >> self.threshold_bits:
            raise SpikeplugError(
                f"a neuron's threshold must lie in [1, 2^{self.threshold_bits}); shift or clamp it first."
            )
        if max(int(x.max()), -int(x.min())) >> self.bits:
            raise SpikeplugError(
                f"a neuron's input must lie in (-2^{self.bits}, 2^{self.bits}); shift or clamp it first."
            )
        if not self.signed and not self.bounds:
            least = 2 * x + thresholds * min(self.weights) if self.rounds else x
            if int(least.min()) < 0:
                raise SpikeplugError(
                    f"this neuron has no population for negative numbers, and its input reaches {int(x.min())}: use "
                    "one with signed=True, or add a zero point first."
                )
        return x, thresholds


def st_bif(bits: int, threshold_bits: int, low: int, high: int, steps: int | None = None) -> QuantiseSpec:
    """Return the ST-BIF neuron of SpikeZIP-TF: clamp(floor(x/θ + 1/2), low, high), by spikes of both signs.

    steps: T, at least the larger of high and -low, which is the default.
    """
    steps = max(high, -low) if steps is None else steps
    return QuantiseSpec(bits=bits, threshold_bits=threshold_bits, weights=(1,) * steps, bounds=(low, high))


def qcfs(bits: int, threshold_bits: int, steps: int, signed: bool = True) -> QuantiseSpec:
    """Return the integrate-and-fire neuron after QCFS: clamp(floor(|x|/θ + 1/2), 0, T)·sign(x), by a constant current.

    signed: True for SpikingJelly's two populations, False for the one of FAS, which refuses negative x.
    θ is one level: for FAS, its threshold over L = T.
    """
    return QuantiseSpec(bits=bits, threshold_bits=threshold_bits, weights=(1,) * steps, signed=signed, paced=True)


def gif(bits: int, threshold_bits: int, code_bits: int, extra_bits: int = 0) -> QuantiseSpec:
    """Return the GIF neuron of SpikeLLM: clamp(floor(x/θ + 1/2), 0, T·L), up to L = 2^code_bits spikes per step.

    extra_bits: bits of a salient channel beyond those of the others: T = 2^extra_bits. x has its zero point added.
    """
    return QuantiseSpec(
        bits=bits,
        threshold_bits=threshold_bits,
        weights=(1,) * (1 << extra_bits),
        levels=1 << code_bits,
        signed=False,
    )


def few_spikes(bits: int, threshold_bits: int, steps: int) -> QuantiseSpec:
    """Return the few-spikes neuron of LAS: |x|/θ rounded up, less 1, in T binary digits, with the sign of x.

    θ is what a spike of the last step is worth, v_max / 2^T.
    """
    return QuantiseSpec(
        bits=bits,
        threshold_bits=threshold_bits,
        weights=tuple(1 << place for place in range(steps - 1, -1, -1)),
        rounds=False,
        strict=True,
    )


def phase(bits: int, threshold_bits: int, bases: Sequence[float], fraction_bits: int) -> QuantiseSpec:
    """Return the phase neuron of SpikingLLM: step t = 1, 2, ... has the threshold τ·B^-t; B may differ by step.

    bases          B of each time step
    fraction_bits  θ is τ / 2^fraction_bits, and the weight of a step is 2^fraction_bits · B^-t, rounded
    """
    if any(base <= 1 for base in bases):
        raise SpikeplugError(f"bases are {tuple(bases)}; a phase neuron needs bases above 1.")
    weights = tuple(constant(base**-step, fraction_bits) for step, base in enumerate(bases, 1))
    return QuantiseSpec(bits=bits, threshold_bits=threshold_bits, weights=weights, strict=True)
