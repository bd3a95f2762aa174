"""The two hooks registered with transformers under the name "spiking": the attention function and its mask function.

Which operator an attention module runs is read from a plain attribute of that module (an `AttentionPlug`), so one
process may hold models converted with different configs, and one model may leave some of its layers exact.

Not supported, each with a one-line SpikeplugError: `output_attentions=True` (the division comes last, so no attention
weights exist), attention dropout in training mode, masks that weigh instead of hide, continuous batching.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from spikeplug.config import SpikeConfig
from spikeplug.errors import SpikeplugError
from spikeplug.operators import attention

IMPLEMENTATION = "spiking"
PLUG = "spikeplug_attention"
# sdpa gets no mask where `is_causal` says the same; set on the mask that stands in for that None.
_IMPLIED = "implied_by_is_causal"
# exp(-1e4) is zero in every floating dtype: an additive mask at or below this hides.
_HIDDEN = -1e4


@dataclass(frozen=True)
class AttentionPlug:
    """What one attention module runs: the spiking operator, or, with `config` None, what it ran before (`original`)."""

    config: SpikeConfig | None
    original: str


def spiking_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """transformers' attention function.

    query (B, H, Q, D); key, value (B, Hkv, K, D), unrepeated; attention_mask broadcastable to (B, H, Q, K), bool (True
    = may attend), additive (0 or very negative) or None (causal if the module is). Returns (B, Q, H, D) and no weights.
    """
    plug: AttentionPlug | None = getattr(module, PLUG, None)
    if plug is None:
        raise SpikeplugError(
            f'{type(module).__name__} has attn_implementation "{IMPLEMENTATION}" but was not converted: give its model '
            "a config of its own, set another attn_implementation, and call spikeplug.convert(model)."
        )
    if plug.config is None:
        kwargs |= {"dropout": dropout, "scaling": scaling, "is_causal": is_causal}
        return _original_attention(plug, module, query, key, value, attention_mask, kwargs)
    _refuse_unsupported(dropout, kwargs)
    mask = _visible(attention_mask, module, query, key, is_causal)
    output = attention(query, key, value, mask, scaling=scaling, config=plug.config)
    return output.transpose(1, 2).contiguous(), None


def spiking_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """transformers' mask function: always a bool mask (True = may attend), also where sdpa relies on `is_causal`."""
    mask: Tensor | None = sdpa_mask(*args, **kwargs)
    if mask is None:
        kwargs |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
        mask = sdpa_mask(*args, **kwargs)
        setattr(mask, _IMPLIED, True)
    return mask


def _refuse_unsupported(dropout: float, kwargs: dict[str, Any]) -> None:
    if kwargs.get("output_attentions"):
        raise SpikeplugError(
            "spiking attention returns no attention weights: drop output_attentions=True, or convert without 'softmax'."
        )
    if dropout:
        raise SpikeplugError("spiking attention has no dropout: call model.eval(), or set attention_dropout to 0.")
    for name in ("cache", "position_bias", "s_aux", "softcap"):
        if kwargs.get(name) is not None:
            raise SpikeplugError(f"spiking attention does not take {name!r}: revert the model for this call.")


def _visible(
    mask: Tensor | None, module: nn.Module, query: Tensor, key: Tensor, is_causal: bool | None
) -> Tensor | None:
    """The mask as the operator wants it: bool, or None where everything may be attended."""
    if mask is None:
        queries, keys = query.shape[2], key.shape[2]
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        if not causal or queries == 1:
            return None
        # Upper-left aligned, as sdpa aligns it: rows beyond the queries are the unused end of a static cache.
        return torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril()
    if mask.dtype == torch.bool:
        return mask
    hidden = mask <= _HIDDEN
    if not mask.is_floating_point() or not bool((hidden | (mask == 0)).all()):
        raise SpikeplugError(
            "spiking attention takes masks that show (True, or 0) or hide (False, or the dtype's minimum): give a 2D "
            "padding mask or such a 4D mask, or convert without 'softmax'."
        )
    return ~hidden


def _original_attention(
    plug: AttentionPlug,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    kwargs: dict[str, Any],
) -> tuple[Tensor, Tensor | None]:
    """What an excluded layer ran before, with the mask it got before: the model's own eager attention, or sdpa."""
    # eager is no registered function: each model file has its own.
    eager = inspect.unwrap(type(module).forward).__globals__.get("eager_attention_forward")
    if plug.original == "eager" and eager is not None:
        if mask is not None and mask.dtype == torch.bool:
            zero = torch.zeros((), device=mask.device, dtype=query.dtype)
            mask = torch.where(mask, zero, torch.finfo(query.dtype).min)
        output, weights = eager(module, query, key, value, mask, **kwargs)
        return output, weights
    if getattr(mask, _IMPLIED, False):
        mask = None
    return sdpa_attention_forward(module, query, key, value, mask, **kwargs)


AttentionInterface.register(IMPLEMENTATION, spiking_attention)
AttentionMaskInterface.register(IMPLEMENTATION, spiking_mask)
