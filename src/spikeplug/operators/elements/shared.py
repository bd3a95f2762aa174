"""Share between operators on single elements: their bound, their input range, and their square root."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from spikeplug.codes import Coded
from spikeplug.numerics import Numerics
from spikeplug.operators.ratio import EXPONENT_BITS
from spikeplug.primitives.arithmetic import Arithmetic
from spikeplug.primitives.norm import RootSpec


def root_integers(code: Coded, on: Arithmetic) -> Coded:
    """Return sqrt(code) >= 0, low by less than one LSB; int64, P or P + 1 bits.

    code  of `encode_elements`, mantissa >= 0; it is shifted until its exponent is even
    """
    width = on.numerics.working_bits
    odd = on.add(code.exponent, width + 1, EXPONENT_BITS, "odd") & 1  # its lowest bit
    places = on.add(odd, width + 1, 6, "places")
    square = on.shift(code.mantissa.to(torch.int64), places, width, width + 2, "even")
    root = on.root(square, RootSpec(width + 1))
    exponent = on.add(code.exponent, -places, EXPONENT_BITS, "exponent") >> 1
    return Coded(root, exponent, width + 1, "element")


def relative_bound(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the bound of n significant bits: relative 2^-n + 2^(3-P)."""

    def bound(*inputs: Tensor, numerics: Numerics) -> Tensor:
        size: Tensor = function(*inputs).abs()
        return size * (2.0**-numerics.bits + 2.0 ** (3 - numerics.working_bits))

    return bound


def element_range(numerics: Numerics) -> str:
    """Return how many bits an element's code has, in words."""
    if numerics.input_bits is not None:
        return f"{numerics.input_bits} bits and a sign per element"
    return f"{numerics.working_bits} bits per element"
