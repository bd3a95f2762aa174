"""Return a signed integer vector as a code of n bits: what every linear operator does last."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.codes import Coded
from spikeplug.operators.ratio import EXPONENT_BITS, normalise
from spikeplug.primitives.arithmetic import Arithmetic

#: Octaves that the smaller of two operands of a sum may lie below the larger one without losing a bit.
GUARD_BITS = 24


def coded(value: Tensor, exponent: Tensor | int, width: int, bits: int, on: Arithmetic, least: int = 0) -> Coded:
    """Return value·2^exponent as a code of `bits` bits and a sign per vector, rounded to nearest, halves away from 0.

    value  int64 (..., d), |value| < 2^width <= 2^62; a code per element is one of vectors (..., 1)
    least  as for `normalise`
    """
    magnitude, places = normalise(on.magnitude(value, width), width, bits, on, least)
    exponent = on.add(places, exponent, EXPONENT_BITS, "exponent")
    return Coded(on.signed(magnitude, value, bits + 1), exponent, bits, "vector")


def sum_integers(a: Coded, b: Coded, bits: int, on: Arithmetic) -> Coded:
    """Return the code of a + b in `bits` bits, one exponent per vector; the vectors of a and b broadcast.

    The operand with the smaller exponent is shifted right; it loses only what lies GUARD_BITS octaves below the unit of
    the other one.
    """
    exponents = torch.stack(torch.broadcast_tensors(a.exponent, b.exponent), -1)
    exponent = on.maximum(exponents, EXPONENT_BITS, "exponent/maximum").squeeze(-1)
    width = max(a.bits, b.bits) + 1 + GUARD_BITS

    def aligned(code: Coded, name: str) -> Tensor:
        places = on.add(code.exponent, -exponent, EXPONENT_BITS + 1, f"{name}/places")
        size = on.magnitude(code.mantissa.to(torch.int64), code.bits + 1, f"{name}/magnitude") << GUARD_BITS
        return on.signed(on.shift(size, places, width, 0, f"{name}/shift"), code.mantissa, width, f"{name}/sign")

    total = on.add(aligned(a, "first"), aligned(b, "second"), width, "sum")
    return coded(total, exponent - GUARD_BITS, width + 1, bits, on)
