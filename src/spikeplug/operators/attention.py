"""Attention from scores to values: weights, value product, and one division per head channel at the very end."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from spikeplug.coding import Coded, as_real, decode, encode
from spikeplug.config import SpikeConfig, as_config
from spikeplug.errors import SpikeplugError
from spikeplug.neurons import Events
from spikeplug.operators.ratio import Ratio, signed
from spikeplug.operators.rows import BLOCK
from spikeplug.operators.scores import Scores, distances, encode_scores, natural_unit, shift_exponential
from spikeplug.operators.softmax import softmax_integers
from spikeplug.operators.tiles import Tile, tiles
from spikeplug.primitives.arithmetic import Arithmetic, arithmetic


class Sums(NamedTuple):
    """What a row is before the division: Σ w·v (..., rows, channels), Σ w and the scale's octaves (..., rows, 1)."""

    values: Tensor
    weights: Tensor
    ahead: Tensor


def attention_sums(scores: Scores, value: Coded, config: SpikeConfig, on: Arithmetic) -> Sums:
    """Σ_i 2^-(M - s_i - e_i)·v_i · 2^ahead and Σ_i 2^-(M - s_i), integers.

    scores: (..., rows, keys), in octaves. value: mantissa (..., keys, channels) of config.bits bits, one exponent e_i a
    key. The value's exponent joins the score as whole octaves, so every key keeps its own scale, no key's code depends
    on another's, and the answer on no tile or batch. 2^-ahead is the row's largest weight·scale.
    """
    width = config.working_bits
    distance, _ = distances(scores, config)
    mantissa = on.mantissa(distance, shift_exponential(config))
    octaves = distance >> config.fraction_bits
    total = on.accumulate(on.decay(mantissa, octaves), width + 1)
    lag = octaves - value.exponent.transpose(-1, -2)
    ahead = lag.amin(-1, keepdim=True)
    return Sums(on.dot(on.decay(mantissa, lag - ahead), value.mantissa, width, config.bits - 1), total, ahead)


def attention_ratio(sums: Sums, keys: int, config: SpikeConfig, on: Arithmetic) -> tuple[Tensor, Tensor]:
    """(q, exponent): Σ w·v / Σ w is q·2^exponent, int64: the one division. A row without a key to attend to gives 0."""
    width, key_bits = config.working_bits, keys.bit_length()
    ratio = Ratio("attention", width + config.bits + key_bits, width + 1 + key_bits, largest_output=1)
    quotient, exponent = ratio(sums.values.abs(), sums.weights, -sums.ahead, config, on)
    return signed(quotient, sums.values), exponent


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
    config = as_config(config)
    queries, keys, values = (as_real(x, "attention") for x in (query, key, value))
    _check_shapes(query, key, value, mask)
    if mask is not None:
        mask = mask[(None,) * (4 - mask.dim())]
    scaling = max(query.shape[-1], 1) ** -0.5 if scaling is None else scaling
    dtype = torch.promote_types(queries.dtype, torch.promote_types(keys.dtype, values.dtype))
    batch, heads, rows, _ = query.shape
    groups = heads // key.shape[1]
    shape = (batch, heads, rows, value.shape[-1])
    if key.shape[2] == 0 or 0 in shape:
        return query.new_zeros(shape)
    on = arithmetic(config, events)
    # The natural unit is folded into the queries, so encode_scores has nothing left to multiply by.
    queries = (queries.to(dtype) * (scaling * natural_unit(config))).unflatten(1, (-1, groups))
    keys, values = keys.to(dtype), values.to(dtype)
    coded = encode(values, config.bits)
    rows_of = _Rows(shape, groups, dtype, config, query.device)
    with _without_autocast(query.device):
        for tile in tiles(query.shape, key.shape, mask):
            score = torch.matmul(
                queries[tile.batch, tile.heads, :, tile.rows].flatten(1, 2),
                keys[tile.batch, tile.heads, tile.keys].transpose(-1, -2),
            )
            if tile.hidden is not None:
                score.unflatten(1, (groups, -1)).masked_fill_(tile.hidden, -math.inf)
            part = Coded(
                coded.mantissa[tile.batch, tile.heads, tile.keys],
                coded.exponent[tile.batch, tile.heads, tile.keys],
                None,
            )
            rows_of.add(tile, encode_scores(score, 1.0, config), part, on)
    output = rows_of.divided(key.shape[2], on)
    if coded.nonfinite is not None:
        output = _spread_nonfinite(output, values, coded.nonfinite, mask)
    return output.to(query.dtype)


class _Rows:
    """The rows' sums, filled tile by tile; divided at the end, all at once."""

    def __init__(
        self, shape: tuple[int, ...], groups: int, dtype: torch.dtype, config: SpikeConfig, device: torch.device
    ) -> None:
        """shape (B, H, Q, Dv); the sums have (B, H/groups, groups, Q, ...). Rows no tile reaches stay 0."""
        grouped = (shape[0], shape[1] // groups, groups, shape[2])
        self.shape, self.dtype, self.config = shape, dtype, config
        self.values = torch.zeros(*grouped, shape[3], dtype=torch.int64 if config.divide_last else dtype, device=device)
        self.weights = torch.zeros(*grouped, 1, dtype=torch.int64, device=device)
        self.ahead = torch.zeros(*grouped, 1, dtype=torch.int32, device=device)
        self.undefined: list[tuple[Tile, Tensor]] = []

    def add(self, tile: Tile, scores: Scores, value: Coded, on: Arithmetic) -> None:
        """Sum up one tile, which holds all keys its rows may attend to."""
        place, grouped = (tile.batch, tile.heads, slice(None), tile.rows), (self.values.shape[2], -1)
        if self.config.divide_last:
            sums = attention_sums(scores, value, self.config, on)
            for target, part in zip((self.values, self.weights, self.ahead), sums, strict=True):
                target[place] = part.unflatten(1, grouped)
        else:
            probability = decode(*softmax_integers(scores, self.config, on), self.dtype)
            product = probability @ decode(value.mantissa, value.exponent, self.dtype)
            self.values[place] = product.unflatten(1, grouped)
        if scores.undefined is not None:
            self.undefined.append((tile, scores.undefined))

    def divided(self, keys: int, on: Arithmetic) -> Tensor:
        """The output (B, H, Q, Dv), in blocks that stay in cache."""
        output = self.values
        if self.config.divide_last:
            output = torch.empty_like(self.values, dtype=self.dtype)
            step = max(1, BLOCK // self.shape[3])
            blocks = (x.flatten(0, 3).split(step) for x in (output, self.values, self.weights, self.ahead))
            for target, *sums in zip(*blocks, strict=True):
                target.copy_(decode(*attention_ratio(Sums(*sums), keys, self.config, on), self.dtype))
        for tile, undefined in self.undefined:
            place = (tile.batch, tile.heads, slice(None), tile.rows)
            output[place] = output[place].masked_fill(undefined.unflatten(1, (output.shape[2], -1)), torch.nan)
        return output.flatten(1, 2)


def _without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Scores stay in float32 under autocast: in bfloat16 they would be off by more than the softmax is fine."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


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
    if not isinstance(mask, Tensor):
        raise SpikeplugError(
            f"attention takes a bool tensor as mask, not a {type(mask).__name__}; use torch.as_tensor."
        )
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
