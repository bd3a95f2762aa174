"""Say what the neurons of a population need of a chip, beyond the bits of a membrane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Factors by which a step multiplies a membrane, from the least to the most demanding. 1 keeps it; 0 forgets it.
LEAKS = (1.0, 0.0, 0.5, 2.0, 4.0)
#: Kinds of firing threshold, from the least to the most demanding.
#: operand: a number that arrives; moving: another one in each step
THRESHOLDS = ("none", "constant", "operand", "moving")
Threshold = Literal["none", "constant", "operand", "moving"]


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Describe one neuron of a population, as the verb that made it uses it.

    leak            factor of the membrane per step, one of LEAKS
    threshold       kind of firing threshold, one of THRESHOLDS; "none" for an accumulator
    threshold_bits  binary digits of the largest firing threshold
    soft_reset      whether a spike subtracts the threshold, and the rest is needed. If not, any reset will do: the
                    neuron decides once, and `v >= θ` may be computed as `v > θ - 1`
    fan_in          synapses of a neuron
    weight_bits     binary digits of the largest weight, without the sign
    weights         how many weights a neuron tells apart; None: not known without looking at every synapse
    gated           whether data set, open or close a synapse or a leak: an operand is the weight, or a gate
    arriving_bits   binary digits of the largest number that a synapse delivers in a step; 1: a spike, or none
    """

    leak: float = 1.0
    threshold: Threshold = "none"
    threshold_bits: int = 0
    soft_reset: bool = False
    fan_in: int = 1
    weight_bits: int = 1
    weights: int | None = 1
    gated: bool = False
    arriving_bits: int = 1

    def joined(self, other: Needs) -> Needs:
        """Return the larger need of both in every field: that of a population which several calls share."""
        return Needs(
            leak=max(self.leak, other.leak, key=LEAKS.index),
            threshold=max(self.threshold, other.threshold, key=THRESHOLDS.index),
            threshold_bits=max(self.threshold_bits, other.threshold_bits),
            soft_reset=self.soft_reset or other.soft_reset,
            fan_in=max(self.fan_in, other.fan_in),
            weight_bits=max(self.weight_bits, other.weight_bits),
            weights=None if None in (self.weights, other.weights) else max(self.weights or 0, other.weights or 0),
            gated=self.gated or other.gated,
            arriving_bits=max(self.arriving_bits, other.arriving_bits),
        )
