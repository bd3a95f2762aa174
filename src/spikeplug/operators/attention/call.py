"""Define a call of attention: its tensors, mask, softcap and sinks. Check that they fit."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from spikeplug.codes import as_real, is_packed, levels_of, unpacked
from spikeplug.errors import SpikeplugError, shown
from spikeplug.saturation import record

#: exp(-1e4) is 0 compared with the weight of any score in use. So a bias of at most this hides its key.
HIDDEN = -1e4
#: Beyond this, softcap times a score exceeds float32.
_LARGEST_CAP = 1e30


class Masking(NamedTuple):
    """Hold a mask in two parts, both of 4 dimensions, broadcastable to (B, H, Q, K).

    visible  bool, True = may attend; None if all may
    bias     floating, in the unit of the scores: finite, NaN or +inf, and 0 where a key is hidden; None without a bias
    """

    visible: Tensor | None
    bias: Tensor | None


@dataclass(frozen=True)
class AttentionCall:
    """Hold the arguments of attention, in the one order they have everywhere.

    query    (B, H, Q, D)
    key      (B, G, K, D), not repeated: H must be a multiple of G; or packed (`codes.pack`)
    value    (B, G, K, Dv), or packed; None for the weights alone
    mask     broadcastable to (B, H, Q, K), or None:
             bool (True = may attend);
             floating, added to the scaled and capped scores (at most -1e4 hides, as False does);
             or int64 with one column, (..., Q, 1): how many keys, from the first on, each row may attend to
    scaling  factor of query·keyᵀ; None: D^-0.5
    softcap  scores become softcap·tanh(score / softcap); None: they stay
    sinks    (H,): one logit per query head, part of the row's maximum and sum, without a value; or None

    Errors: SpikeplugError for shapes that do not fit, another mask, a softcap <= 0, and tensors that are not floating.
    """

    query: Tensor
    key: Tensor
    value: Tensor | None = None
    mask: Tensor | None = None
    scaling: float | None = None
    softcap: float | None = None
    sinks: Tensor | None = None

    def __post_init__(self) -> None:
        as_real(self.query, "attention")
        key = self._checked(self.key)
        check_shapes(self.query, key, key if self.value is None else self._checked(self.value))
        check_mask(self.mask, (*self.query.shape[:3], self.key.shape[2]))
        check_softcap(self.softcap)
        check_scaling(self.scaling)
        check_sinks(self.sinks, self.query.shape[1])

    @staticmethod
    def _checked(x: Tensor) -> Tensor:
        """Return keys or values, or their levels if they are packed, once they are known to be numbers."""
        if isinstance(x, Tensor) and is_packed(x):
            return levels_of(x)
        as_real(x, "attention")
        return x

    def unpacked(self) -> AttentionCall:
        """Return the call with keys and values as numbers, in float64 if the query is and they were packed."""
        dtype = as_real(self.query, "attention").dtype
        return replace(
            self,
            key=unpacked(self.key, dtype),
            value=None if self.value is None else unpacked(self.value, dtype),
        )

    @cached_property
    def dtype(self) -> torch.dtype:
        """Return the dtype in which scores are computed: float64 if any tensor is, else float32."""
        dtypes = [as_real(x, "attention").dtype for x in (self.query, self.key, self.value) if x is not None]
        return torch.float64 if torch.float64 in dtypes else torch.float32

    @property
    def groups(self) -> int:
        """Return how many query heads share one key head: H / G."""
        return self.query.shape[1] // self.key.shape[1]

    @property
    def factor(self) -> float:
        """Return the number that multiplies query·keyᵀ: `scaling`, or D^-0.5 if that is None."""
        return max(self.query.shape[-1], 1) ** -0.5 if self.scaling is None else self.scaling

    def masking(self, unit: float) -> Masking:
        """Return the mask of this call in two parts: which keys are visible, and the bias times `unit`."""
        return masking(self.mask, self.key.shape[2], self.dtype, unit)


def visible_keys(mask: Tensor, keys: int) -> Tensor:
    """Return a mask of counts (int64) as a bool mask; other masks are unchanged.

    The bool mask is True for that many keys, from the first on.
    """
    return torch.arange(keys, device=mask.device) < mask if mask.dtype == torch.int64 else mask


def masking(mask: Tensor | None, keys: int, dtype: torch.dtype, unit: float) -> Masking:
    """Split a mask of any kind into the keys that it leaves visible and the bias that it adds to scores.

    keys  number of keys
    dtype, unit  the bias is returned in `dtype`, multiplied by `unit`

    Each element hides or is added on its own. So a row does not depend on the rest of the mask.
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
    """Return x·unit, in x's shape and dtype.

    A product of a finite x that exceeds the dtype becomes its largest number, and is recorded as a saturation.
    """
    product, limit = x * unit, torch.finfo(x.dtype).max
    beyond = (product.abs() > limit) & torch.isfinite(x)
    record("attention: bias or sink beyond its dtype", beyond)
    return torch.where(beyond, torch.copysign(torch.full_like(x, limit), x), product)


def check_shapes(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Check that query (B, H, Q, D), key (B, G, K, D) and value (B, G, K, any) fit, with H a multiple of G.

    Errors: SpikeplugError for other shapes, or tensors on different devices.
    """
    if not query.dim() == key.dim() == value.dim() == 4:
        raise SpikeplugError("attention takes query, key and value of 4 dimensions (batch, heads, tokens, channels).")
    fits = query.shape[0] == key.shape[0] == value.shape[0] and query.shape[3] == key.shape[3]
    fits = fits and key.shape[1:3] == value.shape[1:3] and key.shape[1] > 0 and query.shape[1] % key.shape[1] == 0
    if not fits:
        raise SpikeplugError(
            f"attention got query {tuple(query.shape)}, key {tuple(key.shape)} and value {tuple(value.shape)}; batch "
            "and channels must agree, and the query's heads be a multiple of the key's."
        )
    if not query.device == key.device == value.device:
        raise SpikeplugError(
            f"attention got query on {query.device}, key on {key.device} and value on {value.device}; move all to one "
            "device."
        )


def check_mask(mask: Tensor | None, target: tuple[int, ...]) -> None:
    """Raise SpikeplugError unless the mask is of a known kind and broadcasts to the shape `target` (B, H, Q, K).

    The kinds are None, bool, floating, and int64 (..., 1): how many keys a row may attend to.
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
    # torch.broadcast_shapes takes longer than attention over a few keys, so it is not used.
    shape = (1,) * (4 - mask.dim()) + tuple(mask.shape)
    if len(shape) > 4 or any(size not in (1, whole) for size, whole in zip(shape, target, strict=True)):
        raise SpikeplugError(
            f"attention got a mask of shape {tuple(mask.shape)}, which does not broadcast to {target}."
        )


def check_scaling(scaling: float | None) -> None:
    """Raise SpikeplugError unless the scaling is a finite number, or None."""
    if scaling is None or (type(scaling) in (int, float) and math.isfinite(scaling)):
        return
    number = isinstance(scaling, (int, float, torch.SymFloat)) and not isinstance(scaling, bool)
    if not number or (isinstance(scaling, (int, float)) and not math.isfinite(scaling)):
        raise SpikeplugError(f"attention got scaling={shown(scaling)}; give a finite number, or None for D^-0.5.")


def check_softcap(softcap: float | None) -> None:
    """Raise SpikeplugError unless the softcap is a number above 0, or None."""
    if softcap is None:
        return
    number = isinstance(softcap, (int, float)) and not isinstance(softcap, bool) and math.isfinite(softcap)
    if not number or not 1 / _LARGEST_CAP <= softcap <= _LARGEST_CAP:
        raise SpikeplugError(
            f"attention got softcap={softcap!r}; give a number above 0 (1e-30 to 1e30), or None for no cap."
        )


def check_sinks(sinks: Tensor | None, heads: int) -> None:
    """Raise SpikeplugError unless the sinks are one floating logit per query head, or None."""
    if sinks is None:
        return
    if not isinstance(sinks, Tensor) or not sinks.dtype.is_floating_point:
        kind = sinks.dtype if isinstance(sinks, Tensor) else f"a {type(sinks).__name__}"
        raise SpikeplugError(f"attention takes a floating-point tensor as sinks, not {kind}; use .float().")
    if sinks.shape != (heads,):
        raise SpikeplugError(
            f"attention got sinks of shape {tuple(sinks.shape)}; give one logit for each of the {heads} query heads."
        )
