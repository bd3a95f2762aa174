"""Compute softmax: exp(x - max), sum, divide."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spikeplug.codes import Coded, Scores, decode, encode_scores, natural_unit
from spikeplug.numerics import Numerics
from spikeplug.operators.errors import falling_error, output_rounding, silenced, weight_error, within_scores
from spikeplug.operators.operands import Operands
from spikeplug.operators.ratio import Ratio
from spikeplug.operators.record import Operator, Spelling
from spikeplug.operators.rows import by_vectors
from spikeplug.operators.softmax.weights import distances, score_range, weights
from spikeplug.primitives.arithmetic import Arithmetic


def softmax_integers(scores: Scores, on: Arithmetic) -> Coded:
    """Return the codes of the softmax of encoded scores along the last dimension; int64 mantissas.

    n is numerics.bits. With numerics.shift_scaling, probabilities are rounded to n bits at the scale of the row's
    largest. Without shift_scaling (the published form), they are floored to multiples of 2^-n.
    """
    weight = weights(scores, distances(scores, on)[0], on).to(torch.int64)
    width = on.numerics.working_bits + 1  # a weight may be 2^working_bits itself
    total = on.accumulate(weight, width)
    return Ratio(width, width + weight.shape[-1].bit_length(), largest_output=1, channels=False)(weight, total, 0, on)


def softmax(x: Tensor, dim: int = -1, *, on: Arithmetic) -> Tensor:
    """Return exp(x_i) / Σ_j exp(x_j) along `dim`; same shape and dtype as x (any floating dtype).

    -inf is a masked key, with probability 0; a row of only -inf gives zeros. A row with NaN or +inf gives NaN, as in
    torch.
    Every finite input is in range: huge scores lose low bits, see `encode_scores`.
    Errors: SpikeplugError for a non-floating tensor, or a dim that x does not have.
    """
    return by_vectors(lambda block: _rows(block, on), x, dim, on)


def _rows(x: Tensor, on: Arithmetic) -> Tensor:
    scores = encode_scores(x, natural_unit(on.numerics), on.numerics)
    probability = decode(softmax_integers(scores, on), x.dtype)
    return probability if scores.undefined is None else probability.masked_fill(scores.undefined, math.nan)


def bound(x: Tensor, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - exact| along the last dimension: (A_i + p_i·ΣA) / (S - ΣA) + rounding; x's shape.

    A_i is the error of weight i, p_i its probability, and S the sum of all weights.
    For d elements and P = numerics.working_bits, the shift exponential with power-of-two scales has the closed form
    p·(2δ/(1-δ) + (d + 8)·2^(1-P)) + p_max·2^(3-P); δ is its relative error.
    """
    p = x.softmax(-1)
    top = p.amax(-1, keepdim=True)
    unit, delta = 2.0**-numerics.working_bits, weight_error(numerics, scores=True)
    if numerics.exponential == "shift" and numerics.shift_scaling and numerics.input_bits is None:
        floors = (x.shape[-1] + 8) * 2 * unit
        own = p * (2 * delta / (1 - delta) + floors) + top * 8 * unit
        return within_scores(x, own + output_rounding(p, numerics, channels=False), numerics)
    distance = x.amax(-1, keepdim=True) - x
    weight = (-distance).exp()
    falling = falling_error(distance, numerics, numerics.softmax_half_range, scores=True).absolute
    lost = falling + silenced(distance, numerics)
    if numerics.exponential == "shift":
        lost = lost + 2 * unit  # its maximum is a whole octave up: a floor costs twice as much of the largest weight
    total, all_lost = weight.sum(-1, keepdim=True), lost.sum(-1, keepdim=True)
    error = (lost + p * all_lost) / (total - all_lost).clamp(min=0)
    scaling = top * 8 * unit if numerics.shift_scaling else 0.0
    return within_scores(x, error + scaling + output_rounding(p, numerics, channels=False), numerics)


def softmax_call(
    operator: Callable[..., Tensor],
    input: Tensor,
    dim: int | None = None,
    *positional: Any,
    dtype: Any = None,
    **_: Any,
) -> Tensor:
    """Call operator(input, dim), from the arguments of torch's softmax or log_softmax.

    dim=None takes torch's default: 0 for 0, 1 or 3 dimensions, else 1.
    dtype, or a dtype among the positional arguments, is applied to the input first. Other keywords are ignored.
    """
    if dim is None:  # torch's own rule for a softmax without a dimension
        dim = 0 if input.dim() in (0, 1, 3) else 1
    dtype = dtype or next((value for value in positional if isinstance(value, torch.dtype)), None)
    return operator(input if dtype is None else input.to(dtype), dim)


def integers(given: Operands, on: Arithmetic) -> Coded:
    """Return the code of the operator, from integers that are given."""
    return softmax_integers(given.scores(), on)


RECORD = Operator(
    name="softmax",
    family="softmax",
    formula="exp(x_i) / Σ_j exp(x_j) along `dim`",
    spiking=softmax,
    integers=integers,
    exact=torch.softmax,
    inputs=("scores",),
    settings=(-1,),
    scale="vector",
    bound=bound,
    input_range=score_range,
    spellings=(Spelling(("softmax",), softmax_call),),
    module="Softmax",
)
