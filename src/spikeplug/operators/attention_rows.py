"""Attention's rows: sums over the keys of one tile, and one division per head channel when all tiles are summed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from spikeplug.coding import Coded, decode
from spikeplug.numerics import Numerics
from spikeplug.operators.ratio import Ratio, signed
from spikeplug.operators.rows import BLOCK
from spikeplug.operators.scores import Scores, distances, heard, shift_exponential
from spikeplug.operators.softmax import softmax_integers
from spikeplug.operators.tiles import Tile
from spikeplug.primitives.arithmetic import Arithmetic

#: Octaves below which no weight·scale can be seen; a hidden key lies further below even for the largest values.
FARTHEST = 1 << 12


class Sums(NamedTuple):
    """What a row is before the division: Σ w·v (..., rows, channels), Σ w and the scale's octaves (..., rows, 1)."""

    values: Tensor
    weights: Tensor
    ahead: Tensor


def attention_sums(scores: Scores, value: Coded, numerics: Numerics, on: Arithmetic) -> Sums:
    """Σ_i 2^-(M - s_i - e_i)·v_i · 2^ahead and Σ_i 2^-(M - s_i), integers.

    scores: (..., rows, keys), in octaves; whatever follows the value's keys (a sink) counts in Σ w alone. value:
    mantissa (..., keys, channels) of numerics.bits bits, one exponent e_i a key. The value's exponent joins the score as
    whole octaves, so every key keeps its own scale, no key's code depends on another's, and the answer on no tile or
    batch. 2^-ahead is the row's largest weight·scale.
    """
    width, keys = numerics.working_bits, value.mantissa.shape[-2]
    distance = heard(distances(scores, numerics)[0], numerics)
    mantissa = on.mantissa(distance, shift_exponential(numerics))
    octaves = distance >> numerics.fraction_bits
    total = on.accumulate(on.decay(mantissa, octaves), width + 1)
    lag = octaves[..., :keys] - value.exponent.transpose(-1, -2)
    # The bound is met only where all keys are hidden beside a sink: there no hidden key may lead.
    ahead = lag.amin(-1, keepdim=True).clamp(max=FARTHEST)
    weight = on.decay(mantissa[..., :keys], lag - ahead)
    return Sums(on.dot(weight, value.mantissa, width, numerics.bits - 1), total, ahead)


def attention_ratio(sums: Sums, keys: int, numerics: Numerics, on: Arithmetic) -> tuple[Tensor, Tensor]:
    """(q, exponent): Σ w·v / Σ w is q·2^exponent, int64: the one division. A row without a key to attend to gives 0."""
    width, key_bits = numerics.working_bits, keys.bit_length()
    ratio = Ratio("attention", width + numerics.bits + key_bits, width + 1 + key_bits, largest_output=1)
    quotient, exponent = ratio(sums.values.abs(), sums.weights, -sums.ahead, numerics, on)
    return signed(quotient, sums.values), exponent


class Rows:
    """The rows' sums, filled tile by tile; divided at the end, all at once."""

    def __init__(
        self, shape: tuple[int, ...], groups: int, dtype: torch.dtype, numerics: Numerics, device: torch.device
    ) -> None:
        """shape (B, H, Q, Dv); the sums have (B, H/groups, groups, Q, ...). Rows no tile reaches stay 0."""
        grouped = (shape[0], shape[1] // groups, groups, shape[2])
        self.shape, self.dtype, self.numerics = shape, dtype, numerics
        self.values = torch.zeros(
            *grouped, shape[3], dtype=torch.int64 if numerics.divide_last else dtype, device=device
        )
        self.weights = torch.zeros(*grouped, 1, dtype=torch.int64, device=device)
        self.ahead = torch.zeros(*grouped, 1, dtype=torch.int32, device=device)
        self.undefined: list[tuple[Tile, Tensor]] = []

    def add(self, tile: Tile, scores: Scores, value: Coded, on: Arithmetic) -> None:
        """Sum up one tile, which holds all keys its rows may attend to; scores beyond the value's are sinks."""
        place, grouped = (tile.batch, tile.heads, slice(None), tile.rows), (self.values.shape[2], -1)
        if self.numerics.divide_last:
            sums = attention_sums(scores, value, self.numerics, on)
            for target, part in zip((self.values, self.weights, self.ahead), sums, strict=True):
                target[place] = part.unflatten(1, grouped)
        else:
            probability = decode(*softmax_integers(scores, self.numerics, on), self.dtype)
            probability = probability[..., : value.mantissa.shape[-2]]
            product = probability @ decode(value.mantissa, value.exponent, self.dtype)
            self.values[place] = product.unflatten(1, grouped)
        if scores.undefined is not None:
            self.undefined.append((tile, scores.undefined))

    def divided(self, keys: int, on: Arithmetic) -> Tensor:
        """The output (B, H, Q, Dv), in blocks that stay in cache; keys: how many scores a row has at most."""
        output = self.values
        if self.numerics.divide_last:
            output = torch.empty_like(self.values, dtype=self.dtype)
            step = max(1, BLOCK // self.shape[3])
            blocks = (x.flatten(0, 3).split(step) for x in (output, self.values, self.weights, self.ahead))
            for target, *sums in zip(*blocks, strict=True):
                target.copy_(decode(*attention_ratio(Sums(*sums), keys, self.numerics, on), self.dtype))
        for tile, undefined in self.undefined:
            place = (tile.batch, tile.heads, slice(None), tile.rows)
            output[place] = output[place].masked_fill(undefined.unflatten(1, (output.shape[2], -1)), torch.nan)
        return output.flatten(1, 2)
