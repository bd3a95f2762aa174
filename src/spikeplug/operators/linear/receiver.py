"""Receive numbers as integers with exponents of their own, or one per vector: what every linear operator does first."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.codes import Coded, decode, encode_each
from spikeplug.operators.ratio import EXPONENT_BITS
from spikeplug.primitives.arithmetic import Arithmetic

#: Numbers are received with 24 bits, sign excluded: every float32 fits, so nothing is rounded.
RECEIVED_BITS = 24
#: The exponent of 0, below that of any other number: 0 sets no scale.
LOWEST_EXPONENT = -(1 << 11)


def received(x: Tensor) -> Coded:
    """Encode finite float32 or float64 numbers in 24 bits and a sign, with an exponent each: no float32 loses a bit.

    2^23 <= |mantissa| < 2^24, or 0
    """
    code = encode_each(x, RECEIVED_BITS)
    if x.dtype == torch.float64:
        code = encode_each(decode(code, x.dtype), RECEIVED_BITS)  # rounding may have carried
    return Coded(code.mantissa, code.exponent.masked_fill(x == 0, LOWEST_EXPONENT), RECEIVED_BITS, "element")


def in_vectors(code: Coded, bits: int, on: Arithmetic) -> Coded:
    """Return the magnitudes of a received code, int64, with one exponent per vector: its largest has `bits` bits.

    code  mantissa (..., d), an exponent each; what lies below the unit of a vector is cut off
    """
    highest = on.maximum(code.exponent, EXPONENT_BITS, "receiver/maximum")
    wider = bits - code.bits
    places = on.add(code.exponent, wider - highest, EXPONENT_BITS, "receiver/places")
    size = on.magnitude(code.mantissa.to(torch.int64), code.bits, "receiver/magnitude")
    size = on.shift(size, places, code.bits, max(wider, 0), "receiver/shift")
    return Coded(size, highest - wider, bits, "vector")
