"""Scale the output of an activation that does not end in a division."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from spikeplug.codes import Coded, in_blocks
from spikeplug.operators.ratio import EXPONENT_BITS, normalise
from spikeplug.primitives.arithmetic import Arithmetic


def scaled(magnitude: Tensor, exponent: Tensor, width: int, fraction_bits: int, on: Arithmetic) -> Coded:
    """Return magnitude·2^exponent as a code of n = `numerics.bits` bits.

    With `numerics.shift_scaling`, each vector has its own exponent, by which its largest element has n bits. Without,
    the code is fixed-point, and elements are floored to multiples of 2^-n.

    magnitude      int64, 0 <= magnitude < 2^width
    fraction_bits  -exponent of a fixed-point input; its step is not finer than that
    """
    numerics = on.numerics
    if numerics.shift_scaling:

        def core(x: Tensor) -> Coded:
            quotient, places = normalise(x, width, numerics.bits, on)
            return Coded(quotient, places, numerics.bits, "vector")

        code = in_blocks(partial(core), numerics.scale_block, magnitude)
        exponent = on.add(exponent, code.exponent, EXPONENT_BITS, "exponent")
        return Coded(code.mantissa, exponent, code.bits, code.granularity)
    drop = max(0, fraction_bits - numerics.bits)
    return Coded(magnitude >> drop, exponent + drop, max(1, width - drop), "fixed")
