"""Specify the widths and constants of the two norms."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spikeplug.errors import SpikeplugError
from spikeplug.fixedpoint import constant


@dataclass(frozen=True)
class RootSpec:
    """Specify floor(sqrt(S)) for integers 0 <= S < 2^(2·root_bits).

    root_bits  bits of the root

    The result is at most sqrt(S), and less than 1 below it.
    Errors: SpikeplugError unless root_bits lies in [1, 31].
    """

    root_bits: int

    def __post_init__(self) -> None:
        if not 1 <= self.root_bits <= 31:
            raise SpikeplugError(f"root_bits is {self.root_bits}; it must lie between 1 and 31.")


@dataclass(frozen=True)
class CordicSpec:
    """Specify the L2 norm of vectors of non-negative integers below 2^value_bits, over a binary tree of CORDIC merges.

    iterations  rotations per merge
    value_bits  bits of an element
    guard_bits  fraction bits inside a merge
    gain_bits   bits of the constant that removes the gain

    A merge turns (x, y) by ±atan(2^-k), k = 0..iterations-1, until y is small; x is then gain·hypot(x, y).
    The gain is Π sqrt(1 + 4^-k), 1.6467... at 8 iterations. It is not a power of two.
    Multiplying with a constant removes it.
    Relative error of one merge: at most 2^(1-2·iterations) (the angle left over), plus rounding (see README.md).
    Errors: SpikeplugError for a field out of its domain.
    """

    iterations: int
    value_bits: int
    guard_bits: int = 6
    gain_bits: int = 22

    def __post_init__(self) -> None:
        if not 1 <= self.iterations <= 24:
            raise SpikeplugError(f"iterations is {self.iterations}; it must lie between 1 and 24.")
        # Widest term: gain · sqrt(2^14 elements) · guard · constant, in int64.
        if self.value_bits < 1 or self.value_bits + self.guard_bits + self.gain_bits + 8 > 62:
            raise SpikeplugError(f"value_bits is {self.value_bits}; with the guard and gain bits it exceeds 62 bits.")

    def merge_bits(self, level: int) -> int:
        """Return the bits of the neurons of a merge, without the sign, at a level of the tree; 0 are the leaves.

        After t levels, numbers lie below 2^(value_bits + t/2). A merge adds half a bit, and the gain 0.73 bits.
        """
        return self.value_bits + self.guard_bits + 2 + level // 2

    @property
    def inverse_gain(self) -> int:
        """Return round(2^gain_bits / Π_k sqrt(1 + 4^-k))."""
        gain = math.prod(math.sqrt(1 + 4.0**-k) for k in range(self.iterations))
        return constant(1 / gain, self.gain_bits)
