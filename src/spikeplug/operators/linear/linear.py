"""Compute a linear layer of integers: levels that spike, int8 weights, a firing threshold per row.

    y_j = threshold_j · 2^unit · step · Σ_i weight_ji · m_i        m: the levels of x (levels.py)

The sum over i is an int32 membrane. The thresholds and the step scale it where the output is encoded.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from spikeplug.codes import Coded, as_real, decode, encode
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.operators.linear.levels import STEP_BITS, Levels, check_levels, exactly_rotated, level_integers, rotated
from spikeplug.operators.linear.receiver import received
from spikeplug.operators.linear.scaled import coded, sum_integers
from spikeplug.operators.operands import EXPONENTS, Operands
from spikeplug.operators.ratio import EXPONENT_BITS
from spikeplug.operators.record import Operator
from spikeplug.operators.rows import by_rows
from spikeplug.primitives.arithmetic import Arithmetic

#: Bits of a row's firing threshold, in units that all rows of a layer share.
THRESHOLD_BITS = 16
#: Bits of an int8 weight, without the sign.
WEIGHT_BITS = 7


def linear_integers(x: Levels, weight: Tensor, threshold: Coded, bias: Coded | None, on: Arithmetic) -> Coded:
    """Return the code of threshold · (weight @ x) + bias in numerics.bits bits, one exponent per vector.

    x          levels (..., in)
    weight     int8 (out, in)
    threshold  mantissa (out,) of THRESHOLD_BITS bits, one exponent
    bias       mantissa (out,), one exponent; None: no bias

    With a bias, the product is rounded to 24 bits before it.
    """
    bits, terms = on.numerics.bits, weight.shape[-1]
    rows = weight.T
    membrane = on.signed_dot(x.mantissa, rows, x.bits + 1, WEIGHT_BITS, levels=True, constant=True, name="membrane")
    membrane_bits = x.bits + WEIGHT_BITS + terms.bit_length()
    scaled = on.gate(x.step, membrane, x.step_bits, "membrane/step")
    width = membrane_bits + x.step_bits + THRESHOLD_BITS + 1
    scaled = on.scale(scaled, threshold.mantissa, membrane_bits + x.step_bits, "threshold")
    exponent = on.add(x.exponent, threshold.exponent, EXPONENT_BITS, "scale")
    if bias is None:
        return coded(scaled, exponent, width, bits, on)
    return sum_integers(coded(scaled, exponent, width, 24, on), bias, bits, on)


def linear(
    x: Tensor,
    weight: Tensor,
    threshold: Tensor,
    unit: Tensor,
    bias: Tensor | None = None,
    levels: int = 127,
    block: int = 0,
    rotation: int = 0,
    *,
    on: Arithmetic,
) -> Tensor:
    """Return x @ (weight·threshold·2^unit).T + bias; (..., out), a code of numerics.bits bits and a sign per vector.

    x          float (..., in), encoded in `levels` levels
    weight     int8 (out, in)
    threshold  int32 (out,), 0 <= threshold < 2^16
    unit       int32 (): the exponent that all thresholds share
    bias       float (out,), taken in 16 bits and a sign; None: no bias
    levels     |m| <= levels for the inputs' spike counts
    block      channels with a firing threshold of their own; 0: one per vector
    rotation   order of the Hadamard matrix that rotates each block of channels first, see `levels.rotated`; 0: none

    A vector with NaN or an infinity gives NaN.
    Errors: SpikeplugError for shapes and dtypes that do not fit, and settings out of their domain.
    """
    check_linear(on.operator, x, weight, threshold, unit, bias)
    check_levels(on.operator, levels, block, rotation)
    if rotation and x.shape[-1] % rotation:
        raise SpikeplugError(f"{on.operator} got rotation={rotation} for {x.shape[-1]} channels: give a divisor of it.")
    shape = (*x.shape[:-1], weight.shape[0])
    if 0 in shape or x.shape[-1] == 0:
        return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
    scale = Coded(threshold, unit, THRESHOLD_BITS, "vector")
    offset = None if bias is None else encode(as_real(bias, on.operator), THRESHOLD_BITS + 1)

    def rows(x: Tensor) -> Tensor:
        finite = torch.isfinite(x).all(-1, keepdim=True)
        levelled = input_levels(x.masked_fill(~finite, 0.0), levels, block, rotation, on)
        output = decode(linear_integers(levelled, weight, scale, offset, on), x.dtype)
        return output.masked_fill(~finite, torch.nan)

    return by_rows(lambda part: rows(as_real(part, on.operator)), torch.atleast_2d(x)).reshape(shape)


def input_levels(x: Tensor, levels: int, block: int, rotation: int, on: Arithmetic) -> Levels:
    """Return the levels in which a layer reads x, float32 or float64 vectors of finite numbers, rotated first."""
    return level_integers(rotated(received(x), rotation, on), levels, block, on)


@torch.no_grad()
def seen(x: Tensor, levels: int, block: int, rotation: int, on: Arithmetic) -> Tensor:
    """Return the input that a linear layer computes with: x rotated and rounded to levels, in x's dtype and shape."""

    def rows(x: Tensor) -> Tensor:
        code = input_levels(x, levels, block, rotation, on)
        return decode(Coded(code.mantissa * code.step, code.exponent, code.bits + code.step_bits, "vector"), x.dtype)

    return by_rows(lambda part: rows(as_real(part, on.operator)), torch.atleast_2d(x)).reshape(x.shape)


def check_linear(
    operator: str, x: Tensor, weight: Tensor, threshold: Tensor, unit: Tensor, bias: Tensor | None
) -> None:
    """Raise SpikeplugError unless weight is int8 (out, in), threshold and bias (out,), unit (), and x (..., in)."""
    if weight.dtype != torch.int8 or weight.dim() != 2:
        raise SpikeplugError(f"{operator} takes an int8 weight (out, in), not {weight.dtype} of {weight.dim()} dims.")
    if x.dim() == 0 or x.shape[-1] != weight.shape[1]:
        raise SpikeplugError(f"{operator} got an input of {tuple(x.shape)} for a weight of {tuple(weight.shape)}.")
    if threshold.dtype != torch.int32 or unit.dtype != torch.int32 or unit.dim():
        raise SpikeplugError(f"{operator} takes int32 thresholds (out,) and one int32 unit (), not {threshold.dtype}.")
    for name, value in (("threshold", threshold), ("bias", bias)):
        if value is not None and value.shape != weight.shape[:1]:
            raise SpikeplugError(f"{operator} got a {name} of {tuple(value.shape)}: give {weight.shape[0]}, one a row.")


def dense(weight: Tensor, threshold: Tensor, unit: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the weights weight·threshold·2^unit as numbers in `dtype`; shape (rows, columns) of the int8 weight."""
    return torch.ldexp((weight.to(torch.int32) * threshold.unsqueeze(-1)).to(dtype), unit)


def exact(
    x: Tensor,
    weight: Tensor,
    threshold: Tensor,
    unit: Tensor,
    bias: Tensor | None,
    levels: int,
    block: int,
    rotation: int,
) -> Tensor:
    """Return rotated x @ (weight·threshold·2^unit).T + bias in float arithmetic."""
    numbers = dense(weight, threshold, unit, x.dtype)
    return F.linear(exactly_rotated(x, rotation), numbers, None if bias is None else bias.to(x.dtype))


def bound(
    x: Tensor,
    weight: Tensor,
    threshold: Tensor,
    unit: Tensor,
    bias: Tensor | None = None,
    levels: int = 127,
    block: int = 0,
    rotation: int = 0,
    *,
    numerics: Numerics,
) -> Tensor:
    """Return the bound of |spiking - exact|: half a step of every input through |weight|, and the output's rounding."""
    size = exactly_rotated(x, rotation).abs().amax(-1, keepdim=True)
    step = size / levels * (1 + 2.0**-8) / 2 + size * 2.0**-11 / levels
    error = step * dense(weight, threshold, unit, x.dtype).abs().sum(-1)
    output = exact(x, weight, threshold, unit, bias, levels, block, rotation).abs()
    largest = (output + error).amax(-1, keepdim=True)
    if bias is not None:
        error = error + bias.abs().amax() * 2.0**-15 + largest * 2.0**-22
    return error + largest * 2.0 ** (1 - numerics.bits)


def integers(given: Operands, on: Arithmetic) -> Coded:
    """Return the code of the operator, from levels that are given; every threshold is 1, in units of 2^-15.

    Errors: SpikeplugError without an int8 weight (out, elements).
    """
    weight = given.weight
    if weight is None or weight.dtype != torch.int8 or weight.dim() != 2 or weight.shape[1] != given.elements:
        raise SpikeplugError(f"the circuit of {on.operator} needs weight, an int8 tensor (out, {given.elements}).")
    step_bits, bits = STEP_BITS + 2, 7
    levels = given.vector("levels", 1 - (1 << bits), (1 << bits) - 1)
    step, exponent = given.shared("step", 0, (1 << step_bits) - 1), given.shared("exponent", *EXPONENTS)
    thresholds = torch.full((weight.shape[0],), 1 << THRESHOLD_BITS - 1)
    threshold = Coded(thresholds, torch.tensor(1 - THRESHOLD_BITS), THRESHOLD_BITS, "fixed")
    return linear_integers(Levels(levels, step, exponent, bits, step_bits), weight, threshold, None, on)


RECORD = Operator(
    name="linear",
    family="linear",
    formula="x·weightᵀ + bias",
    spiking=linear,
    integers=integers,
    exact=exact,
    inputs=("residual", "weight", "threshold", "unit"),
    settings=(None, 127, 0, 0),
    scale="vector",
    bound=bound,
    input_range=lambda numerics: "levels of a step per vector or block",
)
