"""The float functions the operators stand for, in plain torch: what gradients, shapes and comparisons are taken from.

A gradient goes straight through the integers: backward differentiates the function here, at the operator's own inputs.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from spikeplug.operators.attention_inputs import visible_keys


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x²) + eps)."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


def layer_norm(x: Tensor, eps: float) -> Tensor:
    """(x - mean) / sqrt(variance + eps)."""
    return F.layer_norm(x, x.shape[-1:], None, None, eps)


def gelu(x: Tensor, approximate: str) -> Tensor:
    """x·Φ(x), its tanh form, or x·σ(1.702·x) for "quick"."""
    return x * torch.sigmoid(1.702 * x) if approximate == "quick" else F.gelu(x, approximate=approximate)


def relu_squared(x: Tensor) -> Tensor:
    """max(x, 0)²."""
    return F.relu(x).square()


def vector_norm(x: Tensor, dim: int, keepdim: bool) -> Tensor:
    """sqrt(Σ x²) along one dimension."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=dim, keepdim=keepdim)
    return norm


def attention_weights(
    query: Tensor, key: Tensor, mask: Tensor | None, sinks: Tensor | None, scaling: float | None, softcap: float | None
) -> Tensor:
    """softmax over keys (and the sink) of softcap·tanh(query·keyᵀ·scaling / softcap) + mask; (B, H, Q, K).

    query (B, H, Q, D), key (B, G, K, D) unrepeated; a row that may attend to nothing is 0.
    """
    groups = query.shape[1] // max(key.shape[1], 1)
    scaling = max(query.shape[-1], 1) ** -0.5 if scaling is None else scaling
    scores = query @ key.repeat_interleave(groups, 1).transpose(-1, -2) * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        mask = visible_keys(mask, key.shape[2])
        # As the operator has it: a bias of at most -1e4 hides, as False does.
        hidden = ~mask if mask.dtype == torch.bool else mask <= -1e4
        scores = (scores if mask.dtype == torch.bool else scores + mask).masked_fill(hidden, -math.inf)
    if sinks is not None:
        column = sinks.view(1, -1, 1, 1).expand(*scores.shape[:3], 1).to(scores.dtype)
        return torch.cat([scores, column], -1).softmax(-1)[..., :-1]
    hidden = (scores == -math.inf).all(-1, keepdim=True)
    return scores.masked_fill(hidden, 0.0).softmax(-1).masked_fill(hidden, 0.0)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    sinks: Tensor | None,
    scaling: float | None,
    softcap: float | None,
) -> Tensor:
    """attention_weights · value, value (B, G, K, Dv) unrepeated; (B, H, Q, Dv)."""
    weights = attention_weights(query, key, mask, sinks, scaling, softcap)
    return weights.to(value.dtype) @ value.repeat_interleave(query.shape[1] // max(key.shape[1], 1), 1)
