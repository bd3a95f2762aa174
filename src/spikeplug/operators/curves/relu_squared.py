"""Compute ReLU²: max(x, 0)², the positive part gated by itself."""

from __future__ import annotations

import math

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from spikeplug.codes import FIXED_RANGE_BITS, Coded, decode, encode_amplitude
from spikeplug.numerics import Numerics
from spikeplug.operators.curves.scaled import scaled
from spikeplug.operators.errors import output_rounding
from spikeplug.operators.finite import elementwise
from spikeplug.operators.gates.gate import coding_error, narrow_range
from spikeplug.operators.operands import Operands
from spikeplug.operators.record import Operator, no_settings
from spikeplug.primitives.arithmetic import Arithmetic


def relu_squared_integers(code: Coded, on: Arithmetic) -> Coded:
    """Return the code of max(x, 0)², with an int64 mantissa; `code` is x as `encode_amplitude` returns it."""
    positive = on.clamp(code.mantissa, 0, None, code.bits, "positive")
    square = on.gate(positive, positive, code.bits, "square")
    return scaled(square, code.exponent << 1, 2 * code.bits, 2 * on.numerics.fraction_bits, on)


def relu_squared(x: Tensor, *, on: Arithmetic) -> Tensor:
    """Return max(x, 0)² by spiking neurons, elementwise; x's shape and dtype. -inf gives 0, and NaN gives NaN."""

    def rows(x: Tensor) -> Tensor:
        return decode(relu_squared_integers(encode_amplitude(x, "relu_squared", on.numerics), on), x.dtype)

    return elementwise(rows, x, on, ends=(0.0, math.inf))


def exact(x: Tensor) -> Tensor:
    """Return max(x, 0)² in float arithmetic, elementwise."""
    return F.relu(x).square()


def bound(x: Tensor, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - exact|, in x's shape: 2·max(x, 0)·c + c² plus the output's rounding.

    c is the error of coding x.
    """
    positive = x.clamp(min=0)
    if numerics.shift_scaling:
        code = x.abs().amax(-1, keepdim=True) * 2.0 ** (1 - numerics.working_bits)
    else:
        code = coding_error(x, numerics)
    error = (2 * positive * code + code * code) * (1 + 2.0 ** (1 - numerics.bits))
    return error + output_rounding(positive.square(), numerics, 1.0)


def _input_range(numerics: Numerics) -> str:
    if numerics.input_bits is not None:
        return narrow_range(numerics)
    if not numerics.shift_scaling:
        return f"to 2^{FIXED_RANGE_BITS}, step 2^-{numerics.fraction_bits}"
    return f"{numerics.working_bits} bits per vector"


def integers(given: Operands, on: Arithmetic) -> Coded:
    """Return the code of the operator, from integers that are given."""
    return relu_squared_integers(given.amplitude(), on)


RECORD = Operator(
    name="relu_squared",
    family="curve",
    formula="max(x, 0)²",
    spiking=relu_squared,
    integers=integers,
    exact=exact,
    inputs=("gate",),
    scale="vector",
    grid="exponent",
    bound=bound,
    largest=lambda numerics: float(1 << 2 * FIXED_RANGE_BITS),
    input_range=_input_range,
    modules={"transformers.activations.ReLUSquaredActivation": no_settings},
    module="ReLUSquared",
)
