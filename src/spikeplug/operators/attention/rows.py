"""Sum attention's rows over the keys of a tile. Divide once per head channel when all tiles are summed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from spikeplug.codes import Coded, Scores, decode
from spikeplug.operators.attention.tiles import Tile
from spikeplug.operators.gates.gate import with_sign_of
from spikeplug.operators.ratio import Ratio
from spikeplug.operators.rows import BLOCK
from spikeplug.operators.softmax.softmax import softmax_integers
from spikeplug.operators.softmax.weights import DISTANCE_BITS, distances, in_range, shift_exponential
from spikeplug.primitives.arithmetic import Arithmetic

#: Octaves below which weight·scale has no effect. A hidden key lies further below, even for the largest values.
FARTHEST = 1 << 12


class Sums(NamedTuple):
    """Hold the sums of attention's rows over their keys, before the division; integers.

    values   Σ w·v over keys, w the weight and v the value; times 2^ahead (..., rows, channels)
    weights  Σ w over keys and sinks (..., rows, 1)
    ahead    whole octaves, chosen so that the row's largest weight·(scale of its value) becomes 1 (..., rows, 1)
    """

    values: Tensor
    weights: Tensor
    ahead: Tensor


def attention_sums(scores: Scores, value: Coded, on: Arithmetic) -> Sums:
    """Sum weighted values and weights over the keys: Σ_i 2^-(M - s_i - e_i)·v_i · 2^ahead, and Σ_i 2^-(M - s_i).

    s_i is the score of key i, v_i its value's mantissa, e_i that value's exponent, and M the row's largest score,
    rounded up to a whole octave. Returns integers.
    scores  (..., rows, keys) in octaves; a score after the last value (a sink) counts in Σ w only
    value   mantissa (..., keys, channels) of numerics.bits bits, one exponent e_i per key

    The value's exponent joins the score as whole octaves, so every key keeps its own scale.
    No key's code depends on another's, and the result does not depend on tile or batch.
    2^-ahead is the row's largest weight·scale.
    """
    width, keys, fraction_bits = on.numerics.working_bits, value.mantissa.shape[-2], on.numerics.fraction_bits
    distance = in_range(distances(scores, on)[0], on)
    mantissa = on.mantissa(distance, shift_exponential(on.numerics))
    octaves = distance >> fraction_bits
    total = on.accumulate(on.decay(mantissa, octaves), width + 1)
    octave_bits = DISTANCE_BITS - fraction_bits + 1
    lag = on.add(octaves[..., :keys], -value.exponent.transpose(-1, -2), octave_bits, "lag")
    # The clamp acts only where all keys are hidden and a sink is left: there a hidden key must not set the scale.
    nearest = on.maximum(-lag, octave_bits, "ahead/maximum")
    ahead = on.clamp(-nearest, None, FARTHEST, octave_bits, "ahead/clamp")
    weight = on.decay(mantissa[..., :keys], on.add(lag, -ahead, octave_bits + 1, "octaves"), "decay of values")
    return Sums(on.dot(weight, value.mantissa, width, on.numerics.bits - 1), total, ahead)


def attention_ratio(sums: Sums, keys: int, on: Arithmetic) -> Coded:
    """Divide each row's sum of weighted values by its sum of weights; int64 codes (..., rows, channels).

    keys  the most scores that a row has
    A row without a visible key gives 0.
    """
    width, key_bits, bits = on.numerics.working_bits, keys.bit_length(), on.numerics.bits
    ratio = Ratio(width + bits + key_bits, width + 1 + key_bits, largest_output=1)
    size = on.magnitude(sums.values, width + bits + key_bits)
    return with_sign_of(ratio(size, sums.weights, -sums.ahead, on), sums.values, on)


class Rows:
    """Hold the sums of all query rows of attention: `add` fills them tile by tile, `divided` returns the output."""

    def __init__(
        self, shape: tuple[int, ...], groups: int, dtype: torch.dtype, on: Arithmetic, device: torch.device
    ) -> None:
        """Allocate the sums, filled with 0.

        shape   of the output, (B, H, Q, Dv); the sums are (B, H/groups, groups, Q, Dv or 1)
        groups  query heads per key head
        dtype   of the output

        Rows without a tile stay 0.
        """
        grouped = (shape[0], shape[1] // groups, groups, shape[2])
        self.shape, self.dtype, self.on, self.last = shape, dtype, on, on.numerics.divide_last
        self.values = torch.zeros(*grouped, shape[3], dtype=torch.int64 if self.last else dtype, device=device)
        self.weights = torch.zeros(*grouped, 1, dtype=torch.int64, device=device)
        self.ahead = torch.zeros(*grouped, 1, dtype=torch.int32, device=device)
        self.undefined: list[tuple[Tile, Tensor]] = []

    def add(self, tile: Tile, scores: Scores, value: Coded) -> None:
        """Store the sums of one tile's rows; the tile must hold all keys that these rows may attend to.

        scores  (heads, groups·rows, keys), or one column more: the sink, which has no value
        value   codes of the tile's values (heads, keys, Dv)
        """
        place, grouped = (tile.batch, tile.heads, slice(None), tile.rows), (self.values.shape[2], -1)
        if self.last:
            sums = attention_sums(scores, value, self.on)
            for target, part in zip((self.values, self.weights, self.ahead), sums, strict=True):
                target[place] = part.unflatten(1, grouped)
        else:
            probability = decode(softmax_integers(scores, self.on), self.dtype)
            probability = probability[..., : value.mantissa.shape[-2]]
            self.values[place] = (probability @ decode(value, self.dtype)).unflatten(1, grouped)
        if scores.undefined is not None:
            self.undefined.append((tile, scores.undefined))

    def divided(self, keys: int) -> Tensor:
        """Return the output (B, H, Q, Dv), computed in blocks that stay in cache.

        keys  the most scores that a row has
        """
        output = self.values
        if self.last:
            output = torch.empty_like(self.values, dtype=self.dtype)
            step = max(1, BLOCK // self.shape[3])
            blocks = (x.flatten(0, 3).split(step) for x in (output, self.values, self.weights, self.ahead))
            for target, *sums in zip(*blocks, strict=True):
                target.copy_(decode(attention_ratio(Sums(*sums), keys, self.on), self.dtype))
        for tile, undefined in self.undefined:
            place = (tile.batch, tile.heads, slice(None), tile.rows)
            output[place] = output[place].masked_fill(undefined.unflatten(1, (output.shape[2], -1)), torch.nan)
        return output.flatten(1, 2)
