"""Attention from scores to values: weights, value product, and one division per head channel at the very end."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spikeplug.coding import Coded, as_real, decode, encode, received
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.operators.attention_inputs import check_attention, masking
from spikeplug.operators.attention_rows import Rows, Sums, attention_ratio, attention_sums
from spikeplug.operators.attention_scores import score_tiles, without_autocast
from spikeplug.operators.scores import encode_scores, natural_unit
from spikeplug.operators.softmax import softmax_integers
from spikeplug.presets import as_numerics
from spikeplug.primitives.arithmetic import arithmetic

__all__ = ["Sums", "attention", "attention_ratio", "attention_sums", "attention_weights"]


@torch.no_grad()
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    numerics: Numerics | None = None,
    events: Events | None = None,
) -> Tensor:
    """softmax(cap(query·keyᵀ·scaling) + mask)·value with a spiking softmax; (B, H, Q, Dv), dtype of query.

    query (B, H, Q, D); key (B, G, K, D) and value (B, G, K, Dv), not repeated: H must be a multiple of G.
    mask: broadcastable to (B, H, Q, K), or None: bool (True = may attend), or floating, added to the scaled and capped
    scores. A bias of at most -1e4 hides, as False does. Or int64 with one column, (..., Q, 1): how many keys, from the
    first on, each row may attend to; torch.arange(1, Q + 1).view(Q, 1) is a causal mask that takes no memory.
    scaling: default D^-0.5.
    softcap: cap(s) = softcap·tanh(s / softcap) with a spiking tanh; None: cap(s) = s.
    sinks: (H,), one logit a query head that takes part in the row's maximum and sum and has no value; or None.

    query·keyᵀ is an integer product of codes of numerics.query_key_bits, exact, scaled and rounded once to float32
    (float64 for float64); with None, the model's own float product. Bias and sinks are added in that dtype. With
    numerics.divide_last the value product runs in integers, exactly; without, each probability is divided and decoded on
    its own and the value product is the model's (the published form).
    A row that may attend to nothing gives 0; one with a NaN or +inf score, bias or sink gives NaN. A NaN or inf value
    reaches the rows that may attend to it. events: count into it, simulating neuron by neuron.
    Errors: SpikeplugError for shapes that do not fit, a mask that is none of these, a softcap that is no number
    above 0, non-floating tensors.
    """
    numerics = as_numerics(numerics)
    queries, keys, values = (as_real(x, "attention") for x in (query, key, value))
    check_attention(query, key, value, mask, softcap, sinks)
    shape = (*query.shape[:3], value.shape[-1])
    if key.shape[2] == 0 or 0 in shape:
        return query.new_zeros(shape)
    dtype = torch.promote_types(queries.dtype, torch.promote_types(keys.dtype, values.dtype))
    queries, keys, values = queries.to(dtype), keys.to(dtype), values.to(dtype)
    on, hides = arithmetic(numerics, events), masking(mask, key.shape[2], dtype, natural_unit(numerics))
    coded = encode(received(values, numerics.input_bits), numerics.bits, twos_complement=True)
    sums = Rows(shape, query.shape[1] // key.shape[1], dtype, numerics, query.device)
    with without_autocast(query.device):
        for tile, scores in score_tiles(
            queries, keys, hides, scaling=scaling, softcap=softcap, sinks=sinks, numerics=numerics, events=events
        ):
            place = (tile.batch, tile.heads, tile.keys)
            part = Coded(coded.mantissa[place], coded.exponent[place], None)
            sums.add(tile, encode_scores(scores, 1.0, numerics), part, on)
    output = sums.divided(key.shape[2] + (sinks is not None), on)
    if coded.nonfinite is not None:
        output = _spread_nonfinite(output, values, coded.nonfinite, hides.visible)
    return output.to(query.dtype)


@torch.no_grad()
def attention_weights(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None = None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    numerics: Numerics | None = None,
    events: Events | None = None,
) -> Tensor:
    """The spiking softmax itself, each probability divided and decoded on its own: (B, H, Q, K), dtype of query.

    Arguments, domain and errors as of `attention`. The sink's own probability is dropped, so that a row sums to less
    than 1 by it. With numerics.divide_last, attention does not divide these; they are what it weighs with, rounded.
    """
    numerics = as_numerics(numerics)
    queries, keys = (as_real(x, "attention") for x in (query, key))
    check_attention(query, key, key, mask, softcap, sinks)
    shape = (*query.shape[:3], key.shape[2])
    output = query.new_zeros(shape)
    if 0 in shape:
        return output
    dtype = torch.promote_types(queries.dtype, keys.dtype)
    queries, keys = queries.to(dtype), keys.to(dtype)
    on, hides = arithmetic(numerics, events), masking(mask, key.shape[2], dtype, natural_unit(numerics))
    by_group = output.unflatten(1, (-1, query.shape[1] // key.shape[1]))
    with without_autocast(query.device):
        for tile, raw in score_tiles(
            queries, keys, hides, scaling=scaling, softcap=softcap, sinks=sinks, numerics=numerics, events=events
        ):
            scores = encode_scores(raw, 1.0, numerics)
            part = by_group[tile.batch, tile.heads, :, tile.rows]
            probability = decode(*softmax_integers(scores, numerics, on), dtype)[
                ..., : tile.keys.stop - tile.keys.start
            ]
            part[..., tile.keys] = probability.unflatten(1, part.shape[1:3])
            if scores.undefined is not None:
                part.masked_fill_(scores.undefined.unflatten(1, part.shape[1:3]), torch.nan)
    return output


def _spread_nonfinite(output: Tensor, value: Tensor, nonfinite: Tensor, mask: Tensor | None) -> Tensor:
    """Add what inf and NaN values (coded as 0) would: a visible inf gives inf, NaN or both signs give NaN."""
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
