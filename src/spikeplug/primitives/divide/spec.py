"""Specify the division floor(2^n · A / B) and its widths."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spikeplug.errors import SpikeplugError


@dataclass(frozen=True)
class DivideSpec:
    """Specify q = min(floor(2^n · A / B), limit), for integers A >= 0 (the numerator) and B >= 0 (the denominator).

    numerator_bits    0 <= A < 2^numerator_bits
    denominator_bits  0 <= B < 2^denominator_bits
    fraction_bits     n, the fraction bits of the quotient
    limit             the largest quotient, and the neurons of the ordered group; None: nothing saturates

    B = 0 gives 0 for every A: without a denominator, the population is silent.
    Where q < limit, q·2^-n is at most A/B, and less than 2^-n below it.
    Errors: SpikeplugError for widths that do not fit 60 bits, and for limit < 1.
    """

    numerator_bits: int
    denominator_bits: int
    fraction_bits: int
    limit: int | None = None

    def __post_init__(self) -> None:
        for name in ("numerator_bits", "denominator_bits"):
            if not 1 <= getattr(self, name) <= 60:
                raise SpikeplugError(f"{name} is {getattr(self, name)}; it must lie between 1 and 60.")
        if self.fraction_bits < 0 or self.numerator_bits + self.fraction_bits > 60:
            raise SpikeplugError(
                f"fraction_bits is {self.fraction_bits}; with {self.numerator_bits} numerator bits it must lie between "
                f"0 and {60 - self.numerator_bits}, so that 2^n·A fits 60 bits."
            )
        if self.limit is not None and self.limit < 1:
            raise SpikeplugError(f"limit is {self.limit}; the group needs at least one neuron.")

    @property
    def largest(self) -> int:
        """Return the largest quotient that this division can give."""
        unlimited = ((1 << self.numerator_bits) - 1) << self.fraction_bits
        return unlimited if self.limit is None else min(self.limit, unlimited)

    def check(self, numerator: Tensor, denominator: Tensor) -> None:
        """Raise SpikeplugError unless both are integer tensors of the stated widths."""
        for name, x, bits in (
            ("numerator", numerator, self.numerator_bits),
            ("denominator", denominator, self.denominator_bits),
        ):
            if x.dtype not in (torch.int16, torch.int32, torch.int64):
                raise SpikeplugError(f"the {name} must be an int16, int32 or int64 tensor, not {x.dtype}.")
            if x.numel() and (int(x.min()) < 0 or int(x.max()) >> bits):
                raise SpikeplugError(f"the {name} must lie in [0, 2^{bits}); shift or saturate it first.")
