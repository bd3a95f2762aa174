"""Numerator over denominator, and the output's scale: what every operator ends in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from spikeplug.fixedpoint import bit_length, halve_to_nearest, shift
from spikeplug.numerics import Numerics
from spikeplug.operators.blocks import in_blocks
from spikeplug.primitives.arithmetic import Arithmetic
from spikeplug.primitives.divide import DivideSpec
from spikeplug.saturation import record


@dataclass(frozen=True)
class Ratio:
    """y = A / B · 2^exponent for vectors A >= 0 along the last dimension; numerics says how the quotient is scaled.

    operator         name under which saturations are counted
    numerator_bits   A < 2^numerator_bits
    denominator_bits B < 2^denominator_bits
    largest_output   the largest |y| the published group is built for: it has 2^n · largest_output neurons
    per_element      B has the shape of A and at least working_bits bits; else it is (..., 1) and of any size
    channels         the vector is one of channels, which numerics.scale_block cuts; else (keys) it has one scale
    """

    operator: str
    numerator_bits: int
    denominator_bits: int
    largest_output: int
    per_element: bool = False
    channels: bool = True

    def __call__(
        self, numerator: Tensor, denominator: Tensor, exponent: Tensor | int, numerics: Numerics, on: Arithmetic
    ) -> tuple[Tensor, Tensor]:
        """(q, exponent): y ≈ q·2^exponent, int64.

        shift_scaling: each vector is shifted so that its largest element fills working_bits; n + 1 bits are divided
        out and the guard bit rounded away, so |q - y·2^-exponent| <= 1/2 + 2^(n+3-working_bits).
        Without: q = min(floor(2^n · y), 2^n · largest_output), the fixed step 2^-n; exponent must be an int <= 0.
        """
        if numerics.shift_scaling:
            block = numerics.scale_block if self.channels else None
            return in_blocks(partial(self.scaled, numerics=numerics, on=on), block, numerator, denominator, exponent)
        assert isinstance(exponent, int)  # a fixed step needs a fixed scale; negative as fraction bits are
        limit = self.largest_output << numerics.bits
        # 2^n·A must fit 60 bits; what is dropped of A lies as far below its lowest output bit as A is wide.
        drop = max(0, self.numerator_bits + numerics.bits - 60)
        places = -exponent - drop
        spec = DivideSpec(self.numerator_bits - drop, self.denominator_bits + places, numerics.bits, limit)
        quotient = on.divide(numerator >> drop, denominator << places, spec)
        if self.largest_output > 1:  # a quotient of at most 1 fills its group without saturating
            record(f"{self.operator}: quotient at the size of the group", quotient >= limit)
        return quotient, torch.tensor(-numerics.bits, device=quotient.device)

    def scaled(
        self, numerator: Tensor, denominator: Tensor, exponent: Tensor | int, numerics: Numerics, on: Arithmetic
    ) -> tuple[Tensor, Tensor]:
        """The form of shift_scaling, whatever numerics says of it."""
        width, denominator_bits = numerics.working_bits, self.denominator_bits
        # The leading one of the largest element sets the shift of the whole vector.
        places = width - bit_length(numerator.amax(-1, keepdim=True))
        numerator, exponent = shift(numerator, places), exponent - places
        if not self.per_element:
            places = width - bit_length(denominator)
            denominator, exponent, denominator_bits = shift(denominator, places), exponent + places, width
        # A < 2^P and B >= 2^(P-1) now, so the quotient stays below 2: a group of 2^(n+2) neurons never saturates.
        spec = DivideSpec(width, denominator_bits, numerics.bits + 1, limit=4 << numerics.bits)
        return halve_to_nearest(on.divide(numerator, denominator, spec)), exponent - numerics.bits


def signed(magnitude: Tensor, sign_of: Tensor) -> Tensor:
    """magnitude with the sign of `sign_of`: one population for each sign, of which one is silent."""
    return torch.where(sign_of < 0, -magnitude, magnitude)
