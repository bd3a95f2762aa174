"""State the errors of the parts of operators, of which the bounds are made.

README.md in this folder has proofs and formulas for the shift exponential and power-of-two scales.
docs/ops.md has those of the published form.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from spikeplug.codes import (
    SCORE_RANGE_BITS,
    decode,
    encode_for_product,
    largest_in_blocks,
    natural_unit,
    score_fraction_bits,
)
from spikeplug.numerics import Numerics


def relative(delta: float) -> float:
    """Return delta / (1 - delta): the relative error of 1/x when x has the relative error delta < 1."""
    return delta / (1 - delta)


def weight_error(numerics: Numerics, *, curved: bool = False, fine: bool = False, scores: bool = False) -> float:
    """Return δ, the largest relative error of the shift exponential 2^-x (proof: operators/README.md).

    It adds up the step of the input x, the table's chords (linear pieces), and the rounding of its knots.
    curved  the exponent x comes from a table, and is off by 2^(1-F) octaves; F = numerics.fraction_bits
    fine    x has the finer step and table of tanh: up to 4 fraction bits more
    scores  x has the step of encoded attention or softmax scores
    """
    fraction_bits, segments = numerics.fraction_bits, numerics.segments
    if scores:
        fraction_bits = score_fraction_bits(numerics)
    if fine:
        fraction_bits = min(16, fraction_bits + 4)
        segments = min(8 * segments, 1 << fraction_bits)
    step = math.expm1(math.log(2) * 2.0 ** ((1 if curved else -1) - fraction_bits))
    return step + 2 * (math.log(2) / segments) ** 2 / 8 + 3 * 2.0**-numerics.working_bits


class Falling(NamedTuple):
    """Hold the error of t̂, the spiking result for exp(-g); three tensors in the shape of g.

    H is the half range of the piecewise exponential, which saturates outside [-H, H].
    absolute  bound of |t̂ - exp(-g)|, with t̂ = 0 for g > H; it does not hold where only `above` is True
    above     bool: whether -g may exceed H, where t̂ is exp(H)
    near      bool: whether -g may be on either side of H; `absolute` holds there too
    """

    absolute: Tensor
    above: Tensor
    near: Tensor


def falling_error(
    g: Tensor, numerics: Numerics, half_range: float, *, curved: bool = False, scores: bool = False
) -> Falling:
    """Return a bound for the error of t̂, the spiking result for t = exp(-g), with g in nats.

    F is numerics.fraction_bits, K numerics.segments, P numerics.working_bits, H half_range.
    curved  g comes from a table, and is off by 2^(1-F)
    scores  g has the step of encoded scores

    Shift exponential: δ·t (see `weight_error`) plus two floors of 2^-P.
    Piecewise exponential, chords on [-H, H]: K segments, w = 2H/K + 2^-F wide (knots lie on the input's grid).
    Their relative errors are w²/8·e^w (chord), 2^-16 (intercept of 16 bits) and (e^w - 1)·2^-8 (slope of 8 bits).
    The input's step s adds e^s - 1; then 3/2 LSB of 2^-P.
    Beyond H the result is 0, and the error is t itself, at most exp(-H).
    Within a step of ±H, both cases are possible, and the bound includes both.
    """
    t = (-g).clamp(max=half_range + 1).exp()
    unit = 2.0**-numerics.working_bits
    never = torch.zeros_like(g, dtype=torch.bool)
    if numerics.exponential == "shift":
        delta = weight_error(numerics, curved=curved, scores=scores)
        return Falling(t * delta + 2 * unit, never, never)
    fraction_bits = score_fraction_bits(numerics) if scores else numerics.fraction_bits
    step = 2.0 ** ((1 if curved else -1) - fraction_bits)
    width = 2 * half_range / numerics.segments + 2.0**-numerics.fraction_bits
    chord = width**2 / 8 * math.exp(width) + 2.0**-16 + math.expm1(width) * 2.0**-8
    moved = math.expm1(step)
    inside = t * (chord + moved + chord * moved) + 1.5 * unit
    # The coded end of the range is off by half a step itself.
    margin = step + 2.0**-numerics.fraction_bits
    absolute = torch.where(g > half_range + margin, t, inside)
    absolute = torch.where((g - half_range).abs() <= margin, torch.maximum(t, inside), absolute)
    above = -g >= half_range - margin
    return Falling(absolute, above, above & (-g <= half_range + margin))


def silenced(distance: Tensor, numerics: Numerics) -> Tensor:
    """Return the weight lost by each score that may send no spike: exp(-distance), or 0 for the other scores.

    A score sends no spike if it lies beyond the range of a code of numerics.input_bits (None: no score is lost).
    distance >= 0 is in nats, from the row's largest score.
    The row's ceiling is up to an octave above that score, and codes may be half a step off at both ends.
    """
    if numerics.input_bits is None:
        return torch.zeros_like(distance)
    step = 2.0 ** -score_fraction_bits(numerics)
    nearest = (1 << SCORE_RANGE_BITS) - step - (1 if numerics.exponential == "shift" else 0)
    return (-distance).exp().masked_fill(distance * natural_unit(numerics) < nearest, 0.0)


def as_coded(x: Tensor, numerics: Numerics) -> Tensor:
    """Return queries or keys x after coding: each rounded to numerics.query_key_bits bits; x's shape and dtype.

    With query_key_bits=None, x is returned unchanged.
    """
    if numerics.query_key_bits is None:
        return x
    return decode(encode_for_product(x, numerics.query_key_bits), x.dtype)


def product_error(query: Tensor, key: Tensor, scaling: float, numerics: Numerics) -> Tensor:
    """Return η (rows, 1): the most by which a score of the row changes when queries and keys are coded.

    query (..., rows, D), key (..., keys, D). `scaling` multiplies the scores.
    The elements of a query q and a key k are off by at most half a step, h_q and h_k.
    So q·k is off by at most h_q·‖k‖₁ + h_k·‖q‖₁ + D·h_q·h_k.
    The encoder takes the smallest step that fits: h <= max(x_max / (2^(b-1) - 1), ‖x‖₂ / (2^(b-1/2) - sqrt(D)/2)).
    Here x is q or k, and b = numerics.query_key_bits; rounding adds at most sqrt(D)/2 to a norm.
    """
    if numerics.query_key_bits is None:
        return torch.zeros_like(query[..., :1])
    bits, rounding = numerics.query_key_bits, math.sqrt(query.shape[-1]) / 2
    query_step, key_step = (
        torch.maximum(
            x.abs().amax(-1, keepdim=True) / (2.0 ** (bits - 1) - 1),
            x.norm(dim=-1, keepdim=True) / (2.0 ** (bits - 0.5) - rounding),
        )
        for x in (query, key)
    )
    moved = query_step * key.abs().sum(-1, keepdim=True).mT + query.abs().sum(-1, keepdim=True) * key_step.mT
    return scaling * (moved + query.shape[-1] * query_step * key_step.mT).amax(-1, keepdim=True)


def length_error(dimension: int, numerics: Numerics) -> float:
    """Return λ, the largest relative error of the spiking length ‖x‖ of a vector of `dimension` elements.

    One more element, which stands for eps in a norm, is allowed for.
    It holds too for long vectors, whose squares are summed in parts and floored.
    """
    levels = dimension.bit_length()
    angle = levels * 2.0 ** (1 - 2 * numerics.iterations) if numerics.norm == "cordic" else 0.0
    return angle + (math.sqrt(dimension + 1) / 2 + 3 * 2 ** (levels / 2)) * 2.0 ** (2 - numerics.working_bits)


def output_rounding(y: Tensor, numerics: Numerics, half: float = 2.0, *, channels: bool = True) -> Tensor:
    """Return the rounding error of an output y: half·y_max·2^-n, in y's shape; n is numerics.bits.

    y_max is the largest |y| that shares y's scale. Without numerics.shift_scaling, the error is one fixed step, 2^-n.
    half      the error in units of y_max·2^-n
    channels  True: each block of numerics.scale_block elements has its own scale; False: the whole vector has one
    """
    if not numerics.shift_scaling:
        return torch.full_like(y, 2.0**-numerics.bits)
    return (half * block_maximum(y, numerics if channels else None) * 2.0**-numerics.bits).expand_as(y)


def block_maximum(y: Tensor, numerics: Numerics | None) -> Tensor:
    """Return, for each element of y, the largest |y| in its block of numerics.scale_block elements; y's shape.

    The shape is (..., 1) if the block is the whole vector, as with numerics=None.
    """
    return largest_in_blocks(y, None if numerics is None else numerics.scale_block)


def within_scores(x: Tensor, bound: Tensor, numerics: Numerics) -> Tensor:
    """Return `bound`, replaced by infinity in rows where some |x| >= 2^(28-F).

    x are the scores, rows along the last dimension. F is numerics.fraction_bits; larger scores lose fraction bits.
    """
    return bound.masked_fill(x.abs().amax(-1, keepdim=True) >= 2.0 ** (28 - numerics.fraction_bits), math.inf)
