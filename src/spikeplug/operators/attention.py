"""Attention from scores to values: weights, value product, and one division per head channel at the very end."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spikeplug.coding import Coded, as_real, decode, encode
from spikeplug.config import SpikeConfig
from spikeplug.errors import SpikeplugError
from spikeplug.neurons import Events
from spikeplug.operators.ratio import Ratio, signed
from spikeplug.operators.scores import Scores, distances, encode_scores, natural_unit, shift_exponential
from spikeplug.operators.softmax import softmax_integers
from spikeplug.operators.tiles import tiles
from spikeplug.primitives.arithmetic import Arithmetic, arithmetic


def attention_integers(scores: Scores, value: Coded, config: SpikeConfig, on: Arithmetic) -> tuple[Tensor, Tensor]:
    """(q, exponent): Σ_i w_i·v_i / Σ_i w_i is q·2^exponent, (..., rows, channels), int64; division last.

    scores: (..., rows, keys), in octaves. value: mantissa (..., keys, channels) of config.bits bits, one exponent e_i a
    key. Key i's weight beside the values is 2^(s_i - M + e_i): the value's exponent joins the score as whole octaves,
    so every key keeps its own scale, no key's code depends on another's, and the answer on no tile or batch.
    A row without an unmasked key gives 0.
    """
    width = config.working_bits
    distance, _ = distances(scores, config)
    mantissa = on.mantissa(distance, shift_exponential(config))
    octaves = distance >> config.fraction_bits
    total = on.accumulate(on.decay(mantissa, octaves), width + 1)
    lag = octaves - value.exponent.transpose(-1, -2)
    ahead = lag.amin(-1, keepdim=True)  # the largest weight·value scale of the row is 2^-ahead
    summed = on.dot(on.decay(mantissa, lag - ahead), value.mantissa, width, config.bits - 1)
    key_bits = scores.integers.shape[-1].bit_length()
    ratio = Ratio("attention", width + config.bits + key_bits, width + 1 + key_bits, largest_output=1)
    quotient, exponent = ratio(summed.abs(), total, -ahead, config, on)
    return signed(quotient, summed), exponent


@torch.no_grad()
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    scaling: float | None = None,
    config: SpikeConfig | None = None,
    events: Events | None = None,
) -> Tensor:
    """softmax(query·keyᵀ·scaling)·value with a spiking softmax; (B, H, Q, Dv), dtype of query.

    query (B, H, Q, D); key (B, G, K, D) and value (B, G, K, Dv), not repeated: H must be a multiple of G. mask: bool,
    True = may attend, broadcastable to (B, H, Q, K), or None. scaling: default D^-0.5.
    The products query·keyᵀ (float32, or float64 for float64) belong to the model's matrix products and are left as they
    are. With config.divide_last the value product runs in integers, exactly; without, each probability is divided and
    decoded on its own and the value product is the model's (the published form).
    A row that may attend to nothing gives 0; one with a NaN or +inf score gives NaN. A NaN or inf value reaches the
    rows that may attend to it. events: count into it, simulating neuron by neuron.
    Errors: SpikeplugError for shapes that do not fit, a mask that is not bool, non-floating tensors.
    """
    config = config or SpikeConfig()
    queries, keys, values = (as_real(x, "attention") for x in (query, key, value))
    _check_shapes(query, key, value, mask)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    dtype = torch.promote_types(queries.dtype, torch.promote_types(keys.dtype, values.dtype))
    batch, heads, rows, _ = query.shape
    groups = heads // key.shape[1]
    output = torch.zeros(batch, heads, rows, value.shape[-1], dtype=dtype, device=query.device)
    if output.numel() == 0 or key.shape[2] == 0:
        return output.to(query.dtype)
    on = arithmetic(config, events)
    queries = (queries.to(dtype) * (scaling * natural_unit(config))).unflatten(1, (-1, groups))
    keys, values = keys.to(dtype), values.to(dtype)
    # The natural unit is folded into the queries, so encode_scores has nothing left to multiply by.
    coded = encode(values, config.bits)
    target = output.unflatten(1, (-1, groups))
    for tile in tiles(query.shape, key.shape, mask):
        score = torch.matmul(
            queries[tile.batch, tile.heads, :, tile.rows].flatten(1, 2),
            keys[tile.batch, tile.heads, tile.keys].transpose(-1, -2),
        )
        if tile.hidden is not None:
            score.unflatten(1, (groups, -1)).masked_fill_(tile.hidden, -math.inf)
        part = Coded(
            coded.mantissa[tile.batch, tile.heads, tile.keys], coded.exponent[tile.batch, tile.heads, tile.keys], None
        )
        scores = encode_scores(score, 1.0, config)
        if config.divide_last:
            result = decode(*attention_integers(scores, part, config, on), dtype)
        else:
            result = decode(*softmax_integers(scores, config, on), dtype) @ decode(part.mantissa, part.exponent, dtype)
        if scores.undefined is not None:
            result = result.masked_fill(scores.undefined, torch.nan)
        target[tile.batch, tile.heads, :, tile.rows] = result.unflatten(1, (groups, -1))
    if coded.nonfinite is not None:
        output = _spread_nonfinite(output, values, coded.nonfinite, mask)
    return output.to(query.dtype)


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


def _check_shapes(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> None:
    if not query.dim() == key.dim() == value.dim() == 4:
        raise SpikeplugError("attention takes query, key and value of 4 dimensions (batch, heads, tokens, channels).")
    fits = query.shape[0] == key.shape[0] == value.shape[0] and query.shape[3] == key.shape[3]
    fits = fits and key.shape[1:3] == value.shape[1:3] and key.shape[1] > 0 and query.shape[1] % key.shape[1] == 0
    if not fits:
        raise SpikeplugError(
            f"attention got query {tuple(query.shape)}, key {tuple(key.shape)} and value {tuple(value.shape)}; batch "
            "and channels must agree, and the query's heads be a multiple of the key's."
        )
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise SpikeplugError(
            f"attention takes a bool mask (True = may attend), not {mask.dtype}; use mask >= 0 or the like."
        )
    target = (*query.shape[:3], key.shape[2])
    try:
        expanded = torch.broadcast_shapes(mask.shape, target)
    except RuntimeError:
        expanded = ()
    if tuple(expanded) != target:
        raise SpikeplugError(
            f"attention got a mask of shape {tuple(mask.shape)}, which does not broadcast to {target}."
        )
