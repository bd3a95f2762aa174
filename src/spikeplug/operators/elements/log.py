"""Compute the logarithm of single elements: the leading one gives whole octaves, a table of log2(1 + f) the rest."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from spikeplug.codes import Coded, decode, encode_elements, fixed
from spikeplug.fixedpoint import constant
from spikeplug.numerics import Numerics
from spikeplug.operators.elements.shared import element_range
from spikeplug.operators.operands import Operands
from spikeplug.operators.ratio import EXPONENT_BITS, fixed_step
from spikeplug.operators.record import Operator, rescaled
from spikeplug.operators.record import elementwise as spelt
from spikeplug.operators.rows import by_elements
from spikeplug.primitives.arithmetic import Arithmetic
from spikeplug.primitives.interpolation import Interpolation

#: Widest argument of a logarithm.
_WIDEST = 60


def logarithm_integers(x: Tensor, exponent: Tensor | int, octave: float, on: Arithmetic) -> Tensor:
    """Return octave·log2(x·2^exponent) of integers 1 <= x < 2^60, in units of 2^-P; int64.

    P is numerics.working_bits, n numerics.bits.
    octave  the value of a factor of two: 1 (octaves) or ln 2 (nats)

    x is cut to P bits after its leading one.
    Error in LSB of 2^-P: octave·(2^P/(8·S²) + 1)/ln 2 + 3/2, with S = 2^ceil(n/2) segments.
    In nats, a result of k whole octaves adds k/2. In octaves, powers of two are exact.
    """
    width = on.numerics.working_bits
    position = on.leading_one(x, _WIDEST, "log/leading_one")  # one more than the whole octaves
    places = on.add(-position, width + 1, 7, "log/places")
    fraction = on.add(on.shift(x, places, _WIDEST, width, "log/shift"), -(1 << width), width + 1, "log/fraction")
    octaves = on.scale(
        on.add(position, exponent - 1, EXPONENT_BITS, "log/octaves"),
        constant(octave, width),
        EXPONENT_BITS + 1,
        "log/scale",
    )
    return on.add(
        octaves, on.interpolate(fraction, _table(octave, on.numerics.bits, width), "log/table"), width + 15, "log/sum"
    )


@lru_cache
def _table(octave: float, bits: int, width: int) -> Interpolation:
    # The chords' error, 1/(8·S²·ln 2), is 0.18 LSB of n bits at S = 2^(n/2).
    segments = 1 << (bits + 1) // 2
    return Interpolation.of(
        lambda f: octave * math.log2(1 + f), end=1.0, segments=segments, input_bits=width, output_bits=width
    )


def log2_integers(code: Coded, on: Arithmetic) -> Coded:
    """Return the code of log2(code), int64 with n = numerics.bits fraction bits.

    The mantissa of `code` must be >= 0; 0 is taken as 1.
    """
    width = on.numerics.working_bits
    mantissa = on.clamp(code.mantissa.to(torch.int64), 1, None, code.bits + 1)
    value = logarithm_integers(mantissa, code.exponent, 1.0, on)
    size = fixed_step(on.magnitude(value, width + 15), width, width + 15, on)
    return fixed(on.signed(size, value, width + 15), on.numerics.bits, on.numerics.bits + 14)


def log(x: Tensor, *, on: Arithmetic) -> Tensor:
    """Return the natural logarithm, elementwise; same shape and dtype as x (any floating dtype).

    The result has n = numerics.bits fraction bits in octaves (log2), times ln 2 when decoded.
    So the precision of a logarithm is absolute.
    Powers of two are exact.
    There is no published form; the preset "paper" floors to its n = 8 fraction bits.
    As in torch, 0 gives -inf, a negative number and NaN give NaN, and +inf gives +inf.
    Errors: SpikeplugError for a non-floating tensor.
    """

    def elements(x: Tensor) -> Tensor:
        code = encode_elements(x, on.numerics)
        size = Coded(on.magnitude(code.mantissa, code.bits + 1), code.exponent, code.bits, "element")
        output = decode(log2_integers(size, on), x.dtype) * math.log(2)
        output = output.masked_fill(x == 0, -math.inf).masked_fill((x < 0) | torch.isnan(x), math.nan)
        return output.masked_fill(x == math.inf, math.inf)

    return by_elements(elements, x, on)


def bound(x: Tensor, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - exact|, the same for every x: the output's rounding plus the table's error."""
    lsb = math.log(2) * 2.0**-numerics.bits * (0.5 if numerics.shift_scaling else 1)
    table = 1 / (8 * 4.0 ** math.ceil(numerics.bits / 2)) + 2.0 ** (3 - numerics.working_bits)
    return torch.full_like(x, lsb + table)


def integers(given: Operands, on: Arithmetic) -> Coded:
    """Return the code of the operator, from integers that are given."""
    return log2_integers(given.each(negative=False), on)


RECORD = Operator(
    name="log",
    family="element",
    formula="ln x; -inf at 0, NaN below",
    spiking=log,
    integers=integers,
    exact=torch.log,
    inputs=("positive",),
    scale="octaves",
    elementwise=True,
    grid="octaves",
    bound=bound,
    largest=lambda numerics: 2048.0,
    input_range=element_range,
    spellings=(
        *spelt("log"),
        rescaled("log2", after=1 / math.log(2)),
        rescaled("log10", after=1 / math.log(10)),
        rescaled("log1p", offset=1.0),
    ),
    aten=("log", "log2", "log10", "log1p"),
)
