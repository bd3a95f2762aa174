"""Run torch's own attention functions by the spiking operator, for `nn.MultiheadAttention` and direct callers."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from spikeplug import functional as spiking
from spikeplug.codes import unpacked
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    numerics: Numerics | None,
) -> Tensor:
    """Return what `F.scaled_dot_product_attention` returns, (..., H, L, Dv), computed by the spiking operator.

    query  (..., H, L, D): H heads, L queries, D features
    key    (..., G, S, D): G key heads, S keys
    value  (..., G, S, Dv)

    All leading dimensions are broadcast. H may be a multiple of G, whatever `enable_gqa` says.
    """
    if is_causal:
        attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    dropped = max(4 - query.dim(), 0)
    inputs = [x[(None,) * (4 - x.dim())] for x in (query, key, value)]
    batch = torch.broadcast_shapes(*(x.shape[:-3] for x in inputs))
    if inputs[0].shape[-3] == 1:
        inputs[0] = inputs[0].expand(*inputs[0].shape[:-3], inputs[1].shape[-3], -1, -1)
    lead = (*batch, inputs[0].shape[-3])
    if attn_mask is not None and len(batch) > 1:
        attn_mask = attn_mask.expand(*lead, query.shape[-2], key.shape[-2]).flatten(0, -4)
    query, key, value = (x.expand(*batch, *x.shape[-3:]).flatten(0, -4) for x in inputs)
    output = attend(query, key, value, attn_mask, dropout_p, scaling=scale, numerics=numerics)
    return output.view(*lead[dropped:], *output.shape[-2:])


def multi_head_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
    *,
    numerics: Numerics | None,
) -> tuple[Tensor, Tensor | None]:
    """Return what `F.multi_head_attention_forward` returns, with the spiking operator: output, and weights or None.

    query  (L, N, E), or (L, E) without a batch: L queries, batch of N, E features; the output has this shape

    Errors: SpikeplugError for bias_k, bias_v, add_zero_attn and static keys.
    """
    if add_zero_attn or bias_k is not None or bias_v is not None or static_k is not None or static_v is not None:
        raise SpikeplugError(
            "spiking multi-head attention does not take bias_k, bias_v, add_zero_attn or static keys: exclude this "
            "module from the conversion."
        )
    batched = query.dim() == 3
    inputs = [x if batched else x.unsqueeze(1) for x in (query, key, value)]
    weights: Any = (q_proj_weight, k_proj_weight, v_proj_weight)
    if not use_separate_proj_weight:
        assert in_proj_weight is not None  # one of torch's two forms
        weights = in_proj_weight.chunk(3)
    biases: Any = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
    q, k, v = (
        F.linear(x, weight, bias).unflatten(-1, (num_heads, -1)).permute(1, 2, 0, 3)  # (N, H, L, D)
        for x, weight, bias in zip(inputs, weights, biases, strict=True)
    )
    mask = _merged(attn_mask, key_padding_mask, q, num_heads)
    output = attend(q, k, v, mask, dropout_p if training else 0.0, numerics=numerics).permute(2, 0, 1, 3).flatten(2)
    output = F.linear(output, out_proj_weight, out_proj_bias)
    probabilities = None
    if need_weights:
        probabilities = spiking.attention_weights(q, k, mask, numerics=numerics)
        probabilities = probabilities.mean(1) if average_attn_weights else probabilities
        probabilities = probabilities if batched else probabilities.squeeze(0)
    return (output if batched else output.squeeze(1)), probabilities


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float, **how: Any) -> Tensor:
    """Return the output of spiking attention, (B, H, Q, Dv): without dropout, that of `functional.attention`.

    With dropout, the attention weights are computed first and dropped one by one, and a float matrix product
    multiplies them with the values.

    query    (B, H, Q, D)
    key      (B, Hkv, K, D), or packed
    value    (B, Hkv, K, Dv), or packed
    dropout  probability that a weight is dropped
    how      the keyword arguments of `functional.attention`, such as `numerics` and `scaling`
    """
    if not dropout:
        return spiking.attention(query, key, value, mask, **how)
    return weighed(spiking.attention_weights(query, key, mask, **how), value, dropout)


def weighed(weights: Tensor, value: Tensor, dropout: float) -> Tensor:
    """Return the sum of values by their weights, (B, H, Q, Dv), a float matrix product.

    weights  (B, H, Q, K); each is dropped with probability `dropout`
    value    (B, Hkv, K, Dv), or packed
    """
    value = unpacked(value, weights.dtype)
    heads = weights.shape[1] // max(value.shape[1], 1)
    return F.dropout(weights, dropout).to(value.dtype) @ value.repeat_interleave(heads, 1)


def _merged(mask: Tensor | None, padding: Tensor | None, query: Tensor, heads: int) -> Tensor | None:
    """Merge the two masks of torch's multi-head attention into the one that the spiking operator takes, or None.

    mask     attn_mask: (L, S) or (N·heads, L, S)
    padding  key_padding_mask: (N, S)
    query    (N, heads, L, D), for dtype and device

    Two bool masks give a bool one: True hides a key in torch's masks, and shows it in the operator's.
    A float mask is added to the scores: if there is one, the result is a float mask.
    """
    parts = []
    if mask is not None:
        parts.append(mask if mask.dim() == 2 else mask.view(-1, heads, *mask.shape[-2:]))
    if padding is not None:
        parts.append(padding.view(-1, 1, 1, padding.shape[-1]))
    if not parts:
        return None
    if all(part.dtype == torch.bool for part in parts):
        hidden = parts[0] if len(parts) == 1 else parts[0] | parts[1]
        return ~hidden
    floats = [
        torch.zeros(part.shape, dtype=query.dtype, device=part.device).masked_fill(part, -math.inf)
        if part.dtype == torch.bool
        else part
        for part in parts
    ]
    return floats[0] if len(floats) == 1 else floats[0] + floats[1]
