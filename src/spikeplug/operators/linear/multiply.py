"""Multiply two spike codes element by element: gate times up, a norm's gain, a rotary factor, a constant."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.codes import Coded
from spikeplug.numerics import Numerics
from spikeplug.operators.linear.pair import of_pair
from spikeplug.operators.linear.receiver import RECEIVED_BITS
from spikeplug.operators.linear.scaled import coded
from spikeplug.operators.operands import Operands
from spikeplug.operators.ratio import EXPONENT_BITS
from spikeplug.operators.record import Operator
from spikeplug.primitives.arithmetic import Arithmetic


def product_integers(a: Coded, b: Coded, bits: int, on: Arithmetic) -> Coded:
    """Return the code of a·b in `bits` bits, an exponent per element; a and b are received, and broadcast."""
    width = RECEIVED_BITS
    size = on.magnitude(a.mantissa.to(torch.int64), width)
    product = on.signed(on.gate(size, b.mantissa.to(torch.int64), width), a.mantissa, 2 * width, "product/sign")
    exponent = on.add(a.exponent, b.exponent, EXPONENT_BITS, "product/exponent")
    # Mantissas other than 0 have all of their bits.
    return coded(product, exponent, 2 * width, bits, on, least=2 * (RECEIVED_BITS - 1))


def multiply(a: Tensor, b: Tensor, *, on: Arithmetic) -> Tensor:
    """Return a·b, broadcast; each element is a code of numerics.bits bits and a sign with its own power of two.

    NaN, infinities, and numbers from 2^96 on give what torch's product gives, and change no other.
    Errors: SpikeplugError for tensors that are not floating.
    """
    return of_pair(a, b, product_integers, torch.mul, on)


def bound(a: Tensor, b: Tensor, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - exact|: half a step of each input's code, then the rounding."""
    size = (a * b).abs()
    given = size * (2.0**-23 + 2.0**-46)
    return given + (size + given) * 2.0**-numerics.bits


def integers(given: Operands, on: Arithmetic) -> Coded:
    """Return the code of the operator, from integers that are given."""
    return product_integers(given.received("a"), given.received("b"), on.numerics.bits, on)


RECORD = Operator(
    name="multiply",
    family="linear",
    formula="a·b",
    spiking=multiply,
    integers=integers,
    exact=torch.mul,
    inputs=("residual", "residual"),
    scale="element",
    elementwise=True,
    bound=bound,
    input_range=lambda numerics: "24 bits per element",
)
