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
    """Return the code of the square root of `code`, floored: low by less than one unit of its last bit.

    code  as `encode_elements` returns it, mantissa >= 0; it is shifted until its exponent is even
    The result's mantissa has P or P + 1 bits, P = numerics.working_bits.
    """
    width = on.numerics.working_bits
    odd = on.add(code.exponent, width + 1, EXPONENT_BITS, "odd") & 1  # its lowest bit
    places = on.add(odd, width + 1, 6, "places")
    square = on.shift(code.mantissa.to(torch.int64), places, width, width + 2, "even")
    root = on.root(square, RootSpec(width + 1))
    exponent = on.add(code.exponent, -places, EXPONENT_BITS, "exponent") >> 1
    return Coded(root, exponent, width + 1, "element")


def relative_bound(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function (*inputs, numerics) that bounds the error of a spiking `function` of one element.

    The bound is |function(*inputs)| · (2^-n + 2^(3-P)), with n = numerics.bits and P = numerics.working_bits.
    """

    def bound(*inputs: Tensor, numerics: Numerics) -> Tensor:
        size: Tensor = function(*inputs).abs()
        return size * (2.0**-numerics.bits + 2.0 ** (3 - numerics.working_bits))

    return bound


def element_range(numerics: Numerics) -> str:
    """Return how many bits the code of an input element has, as text for reports ("22 bits per element")."""
    if numerics.input_bits is not None:
        return f"{numerics.input_bits} bits and a sign per element"
    return f"{numerics.working_bits} bits per element"
