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
    """Return ε/(1-ε)."""
    return delta / (1 - delta)


def weight_error(numerics: Numerics, *, curved: bool = False, fine: bool = False, scores: bool = False) -> float:
    """Return δ of operators/README.md: the relative error of 2^-x from the input's step, chords and knots.

    curved  the exponent comes from a table, off by 2^(1-F) octaves
    fine    the input and table of tanh
    scores  the input step is that of encoded scores
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
    """Hold the error of t̂ = exp(-g).

    absolute  bound of |t̂ - exp(-g)|, with t̂ = 0 for g > H
    above     bool: whether -g may exceed H, where t̂ is exp(H)
    near      bool: whether -g may be on either side of H; `absolute` holds there too
    """

    absolute: Tensor
    above: Tensor
    near: Tensor


def falling_error(
    g: Tensor, numerics: Numerics, half_range: float, *, curved: bool = False, scores: bool = False
) -> Falling:
    """Return the error of t̂ = exp(-g), g in nats, coded with F fraction bits.

    curved  g comes from a table, off by 2^(1-F)
    scores  g has the input step of encoded scores

    Shift: δ·t and two floors.
    Chords on [-H, H]: K segments, w = 2H/K + 2^-F wide (knots lie on the input's grid).
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
    """Return exp(-distance) of scores that may lie beyond the range of numerics.input_bits, else 0.

    A score beyond the range sends no spike.
    distance >= 0 is in nats, from the row's largest score.
    The row's ceiling is up to an octave above that score, and codes may be half a step off at both ends.
    """
    if numerics.input_bits is None:
        return torch.zeros_like(distance)
    step = 2.0 ** -score_fraction_bits(numerics)
    nearest = (1 << SCORE_RANGE_BITS) - step - (1 if numerics.exponential == "shift" else 0)
    return (-distance).exp().masked_fill(distance * natural_unit(numerics) < nearest, 0.0)


def as_coded(x: Tensor, numerics: Numerics) -> Tensor:
    """Return queries or keys as their codes of numerics.query_key_bits represent them."""
    if numerics.query_key_bits is None:
        return x
    return decode(encode_for_product(x, numerics.query_key_bits), x.dtype)


def product_error(query: Tensor, key: Tensor, scaling: float, numerics: Numerics) -> Tensor:
    """Return η (rows, 1): the most by which a score of the row changes when queries and keys are coded.

    An element is off by at most half a step h. So query·key is off by h_q·‖k‖₁ + h_k·‖q‖₁ + D·h_q·h_k.
    The encoder takes the smallest step that fits: h <= max(x_max / (2^(b-1) - 1), ‖x‖₂ / (2^(b-1/2) - sqrt(D)/2)).
    b = query_key_bits; rounding adds at most sqrt(D)/2 to a norm.
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
    """Return λ: the relative error of ‖x‖ over `dimension` elements (or that many and an extension).

    It includes vectors summed in parts: their floors and the root's coarser unit lose less than the last term.
    """
    levels = dimension.bit_length()
    angle = levels * 2.0 ** (1 - 2 * numerics.iterations) if numerics.norm == "cordic" else 0.0
    return angle + (math.sqrt(dimension + 1) / 2 + 3 * 2 ** (levels / 2)) * 2.0 ** (2 - numerics.working_bits)


def output_rounding(y: Tensor, numerics: Numerics, half: float = 2.0, *, channels: bool = True) -> Tensor:
    """Return half·y_max·2^-n: half an LSB of a vector's own scale; without shift_scaling, the floor to 2^-n.

    channels  the vector is one of channels, cut into blocks of numerics.scale_block
    """
    if not numerics.shift_scaling:
        return torch.full_like(y, 2.0**-numerics.bits)
    return (half * block_maximum(y, numerics if channels else None) * 2.0**-numerics.bits).expand_as(y)


def block_maximum(y: Tensor, numerics: Numerics | None) -> Tensor:
    """Return the largest |y| of each element's block of `scale_block`.

    y's shape; (..., 1) if the block is the whole vector.
    """
    return largest_in_blocks(y, None if numerics is None else numerics.scale_block)


def within_scores(x: Tensor, bound: Tensor, numerics: Numerics) -> Tensor:
    """Return `bound`, replaced by infinity in rows with scores of 2^(28-F) and more, which lose fraction bits."""
    return bound.masked_fill(x.abs().amax(-1, keepdim=True) >= 2.0 ** (28 - numerics.fraction_bits), math.inf)
