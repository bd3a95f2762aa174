"""Compute attention from queries to outputs: scores, weights, value product, and one division per head channel."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spikeplug.codes import as_real, as_received, encode, encode_scores, natural_unit, unpacked
from spikeplug.numerics import Numerics
from spikeplug.operators.attention.attention_weights import exact as exact_weights
from spikeplug.operators.attention.call import AttentionCall
from spikeplug.operators.attention.errors import coded_scores
from spikeplug.operators.attention.rows import Rows
from spikeplug.operators.attention.scores import score_tiles, without_autocast
from spikeplug.operators.errors import output_rounding, silenced, weight_error, within_scores
from spikeplug.operators.record import Operator
from spikeplug.operators.softmax.softmax import bound as softmax_bound
from spikeplug.operators.softmax.weights import score_range
from spikeplug.primitives.arithmetic import Arithmetic


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    scaling: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    *,
    on: Arithmetic,
) -> Tensor:
    """Return softmax(cap(query·keyᵀ·scaling) + mask)·value with a spiking softmax; (B, H, Q, Dv), dtype of query.

    Arguments and errors: see `AttentionCall`.

    query·keyᵀ is an exact integer product of codes of query_key_bits.
    Each score is scaled and rounded once, to float32 (float64 for float64). Bias and sinks are added in that dtype.
    With query_key_bits=None, query·keyᵀ is the model's own float product.
    With divide_last, the value product runs in integers, exactly.
    Without, each probability is divided and decoded on its own, and the value product is the model's (the published
    form).

    A row without a visible key gives 0. A row with a NaN or +inf score, bias or sink gives NaN.
    A NaN or infinite value affects only the rows that may attend to it.
    """
    call = AttentionCall(query, key, value, mask, scaling, softcap, sinks).unpacked()
    assert call.value is not None
    values = call.value.to(call.dtype)
    shape = (*query.shape[:3], values.shape[-1])
    keys, dtype, numerics = key.shape[2], call.dtype, on.numerics
    if keys == 0 or 0 in shape:
        return query.new_zeros(shape)
    masking = call.masking(natural_unit(numerics))
    coded = encode(as_received(values, numerics.input_bits), numerics.bits, twos_complement=True)
    sums = Rows(shape, call.groups, dtype, on, query.device)
    with without_autocast(query.device):
        for tile, scores in score_tiles(call, masking, on):
            part = coded[tile.batch, tile.heads, tile.keys]
            sums.add(tile, encode_scores(scores, 1.0, numerics), part)
    output = sums.divided(keys + (sinks is not None))
    if coded.nonfinite is not None:
        output = _spread_nonfinite(output, values, coded.nonfinite, masking.visible)
    return output.to(query.dtype)


def _spread_nonfinite(output: Tensor, value: Tensor, nonfinite: Tensor, mask: Tensor | None) -> Tensor:
    """Return `output` with the effect of infinite and NaN values, which were coded as 0; (B, H, Q, Dv).

    An output is ±inf if its row may attend to a value of ±inf, and NaN for a NaN, or infinities of both signs.
    mask  bool (True = may attend), broadcastable to (B, H, Q, K); None: all may
    """
    batch, heads, rows, _ = output.shape
    if mask is None:
        visible = torch.ones(1, 1, 1, value.shape[-2], dtype=output.dtype, device=output.device)
    else:
        visible = mask.to(output.dtype)
    visible = visible.expand(batch, heads, rows, value.shape[-2])
    repeated = value.repeat_interleave(heads // value.shape[1], dim=1)
    positive, negative, undefined = (
        (visible @ kind.to(output.dtype)) > 0
        for kind in (repeated == math.inf, repeated == -math.inf, repeated.isnan())
    )
    output = output.masked_fill(positive, math.inf).masked_fill(negative, -math.inf)
    return output.masked_fill(undefined | (positive & negative), torch.nan)


def exact(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Return attention in float arithmetic: softmax weights (B, H, Q, K) times value; (B, H, Q, Dv).

    query has H heads, key and value G; each key head serves H/G query heads.
    """
    value = unpacked(value, as_real(query, "attention").dtype)
    weights = exact_weights(query, key, mask, scaling, softcap, sinks)
    return weights.to(value.dtype) @ value.repeat_interleave(query.shape[1] // max(key.shape[1], 1), 1)


def bound(query: Tensor, key: Tensor, value: Tensor, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - exact| of attention; (..., Q, Dv).

    It adds the error of softmax and value product to Σ p|v|·(e^(2η) - 1), the effect of coding queries and keys.
    p are the probabilities, v the values, and η is the most by which coding changes a score.
    """
    scores, moved = coded_scores(query, key, numerics)
    found: Tensor = _of_scores(scores, value, numerics) + scores.softmax(-1) @ value.abs() * moved
    return found


def _of_scores(scores: Tensor, value: Tensor, numerics: Numerics) -> Tensor:
    """Return the bound of attention's error for exact scores (..., Q, K) and values (..., K, Dv); (..., Q, Dv).

    With numerics.divide_last, it is the bound proven in README.md.
    Without, it is the sum over keys of the probability's bound times |value|,
    plus the error of coding the values with numerics.bits bits.
    """
    p, scale = scores.softmax(-1), value.abs().amax(-1, keepdim=True)
    coding = 2.0 ** (1 - numerics.bits)
    if not numerics.divide_last:
        lost = softmax_bound(scores, numerics=numerics)
        found: Tensor = lost @ value.abs() + (p + lost) @ scale * coding + 1e-12 * (p @ value.abs())
        return found.nan_to_num(nan=math.inf, posinf=math.inf)
    keys, unit, exact_output = value.shape[-2], 2.0**-numerics.working_bits, p @ value
    delta = weight_error(numerics, scores=True)
    # What sends no spike is missing from both sums, a share of `silent` of the weights.
    missing = p.masked_fill(silenced(scores.amax(-1, keepdim=True) - scores, numerics) == 0, 0.0)
    silent = missing.sum(-1, keepdim=True)
    absent = (missing @ value.abs() + silent * exact_output.abs()) / (1 - silent)
    error: Tensor = p @ value.abs() * (2 * delta / (1 - delta) + (keys + 8) * 2 * unit) + p @ scale * coding
    error = error + 2 * keys * 4 * unit * (p * scale.mT).amax(-1, keepdim=True) + exact_output.abs() * 8 * unit
    found = absent + error / (1 - silent) + output_rounding(exact_output, numerics)
    return found + within_scores(scores, torch.zeros_like(scores[..., :1]), numerics)


RECORD = Operator(
    name="attention",
    family="attention",
    formula="softmax(query·keyᵀ·scaling + mask)·value",
    spiking=attention,
    exact=exact,
    inputs=("query", "key", "value"),
    settings=(None, None, None, None),
    scale="vector",
    bound=bound,
    input_range=score_range,
)
