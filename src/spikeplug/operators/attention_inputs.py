"""What attention accepts: shapes that fit, masks and biases, softcap and sinks; one sentence for anything else."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from spikeplug.errors import SpikeplugError
from spikeplug.saturation import record

#: exp(-1e4) is 0 beside any score in use: a bias of at most this hides its key, alone or beside real biases.
HIDDEN = -1e4
#: Beyond, softcap times a score leaves float32.
_LARGEST_CAP = 1e30


class Masking(NamedTuple):
    """A mask, taken apart; both of 4 dimensions, broadcastable to (B, H, Q, K).

    visible: bool, True = may attend; None if all may. bias: floating, in the unit of the scores, finite or NaN or +inf;
    None if there is none. 0 where a key is hidden.
    """

    visible: Tensor | None
    bias: Tensor | None


def visible_keys(mask: Tensor, keys: int) -> Tensor:
    """A mask of counts (int64) as a bool one: True for so many of the keys, from the first on. Any other as it is."""
    return torch.arange(keys, device=mask.device) < mask if mask.dtype == torch.int64 else mask


def masking(mask: Tensor | None, keys: int, dtype: torch.dtype, unit: float) -> Masking:
    """Any mask as what hides and what is added to scores of `dtype`, which count in 1/`unit`.

    Each element by itself hides or is added, so that no row depends on what stands elsewhere in the mask.
    """
    if mask is None:
        return Masking(None, None)
    mask = visible_keys(mask, keys)[(None,) * (4 - mask.dim())]
    if mask.dtype == torch.bool:
        return Masking(mask, None)
    # -1e4 rounded to the mask's own dtype: bfloat16 has -9984.
    bias = mask.to(dtype)
    hidden = bias <= float(torch.tensor(HIDDEN, dtype=mask.dtype))
    bias = bias.masked_fill(hidden, 0.0)
    return Masking(~hidden if bool(hidden.any()) else None, in_unit(bias, unit) if bool(bias.any()) else None)


def in_unit(x: Tensor, unit: float) -> Tensor:
    """x·unit; what is finite stays so, and is counted where that takes a clamp."""
    product, limit = x * unit, torch.finfo(x.dtype).max
    beyond = (product.abs() > limit) & torch.isfinite(x)
    record("attention: bias or sink beyond its dtype", beyond)
    return torch.where(beyond, torch.copysign(torch.full_like(x, limit), x), product)


def check_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, softcap: float | None, sinks: Tensor | None
) -> None:
    """Errors: SpikeplugError for anything that attention does not accept."""
    check_shapes(query, key, value)
    check_mask(mask, (*query.shape[:3], key.shape[2]))
    check_softcap(softcap)
    check_sinks(sinks, query.shape[1])


def check_shapes(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Batch, heads, keys and channels fit. Errors: SpikeplugError."""
    if not query.dim() == key.dim() == value.dim() == 4:
        raise SpikeplugError("attention takes query, key and value of 4 dimensions (batch, heads, tokens, channels).")
    fits = query.shape[0] == key.shape[0] == value.shape[0] and query.shape[3] == key.shape[3]
    fits = fits and key.shape[1:3] == value.shape[1:3] and key.shape[1] > 0 and query.shape[1] % key.shape[1] == 0
    if not fits:
        raise SpikeplugError(
            f"attention got query {tuple(query.shape)}, key {tuple(key.shape)} and value {tuple(value.shape)}; batch "
            "and channels must agree, and the query's heads be a multiple of the key's."
        )


def check_mask(mask: Tensor | None, target: tuple[int, ...]) -> None:
    """A bool or floating mask, or counts of visible keys, that broadcasts to `target`; or None.

    Errors: SpikeplugError.
    """
    if mask is None:
        return
    if not isinstance(mask, Tensor):
        raise SpikeplugError(
            f"attention takes a bool or floating tensor as mask, not a {type(mask).__name__}; use torch.as_tensor."
        )
    counts = mask.dtype == torch.int64 and mask.dim() > 0 and mask.shape[-1] == 1
    if mask.dtype != torch.bool and not mask.dtype.is_floating_point and not counts:
        raise SpikeplugError(
            f"attention takes a bool mask (True = may attend), a floating one (added to the scores) or, int64 and with "
            f"one column, how many keys each row may attend to, not {mask.dtype} of shape {tuple(mask.shape)}; use "
            "mask.bool() or mask.float()."
        )
    # Not torch.broadcast_shapes, which takes longer than all of attention over a few keys.
    shape = (1,) * (4 - mask.dim()) + tuple(mask.shape)
    if len(shape) > 4 or any(size not in (1, whole) for size, whole in zip(shape, target, strict=True)):
        raise SpikeplugError(
            f"attention got a mask of shape {tuple(mask.shape)}, which does not broadcast to {target}."
        )


def check_softcap(softcap: float | None) -> None:
    """A number above 0, or None. Errors: SpikeplugError."""
    if softcap is None:
        return
    number = isinstance(softcap, (int, float)) and not isinstance(softcap, bool) and math.isfinite(softcap)
    if not number or not 1 / _LARGEST_CAP <= softcap <= _LARGEST_CAP:
        raise SpikeplugError(
            f"attention got softcap={softcap!r}; give a number above 0 (1e-30 to 1e30), or None for no cap."
        )


def check_sinks(sinks: Tensor | None, heads: int) -> None:
    """One floating logit a query head, or None. Errors: SpikeplugError."""
    if sinks is None:
        return
    if not isinstance(sinks, Tensor) or not sinks.dtype.is_floating_point:
        kind = sinks.dtype if isinstance(sinks, Tensor) else f"a {type(sinks).__name__}"
        raise SpikeplugError(f"attention takes a floating-point tensor as sinks, not {kind}; use .float().")
    if sinks.shape != (heads,):
        raise SpikeplugError(
            f"attention got sinks of shape {tuple(sinks.shape)}; give one logit for each of the {heads} query heads."
        )
