"""Scores as exact integer products: equal in any tile, batch, order of channels and number of threads; and the float
product, where it is asked for."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from spikeplug.codes import encode_for_product
from spikeplug.functional import attention, attention_weights
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.operators.attention import tiles
from spikeplug.operators.attention.products import query_key_product
from spikeplug.operators.attention.tiles import Tile
from spikeplug.presets import PRESETS
from spikeplug.primitives.arithmetic import Closed, Simulated
from spikeplug.saturation import saturations

nan, inf = math.nan, math.inf


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def inputs(batch: int = 2, rows: int = 9, keys: int = 13, channels: int = 24) -> tuple[Tensor, Tensor, Tensor]:
    """Of 4 heads and 2 key heads; reals whose float products round."""
    return random(batch, 4, rows, channels) * 3, random(batch, 2, keys, channels, seed=1), random(batch, 2, keys, 6)


def whole(query: Tensor, key: Tensor) -> Tile:
    return Tile(0, slice(0, key.shape[1]), slice(0, query.shape[3]), slice(0, key.shape[2]), None)


@pytest.mark.parametrize("bits", [8, 13, 16, 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_score_is_the_product_of_the_codes_rounded_once(bits: int, dtype: torch.dtype) -> None:
    query, key = random(1, 2, 3, 5, 24).to(dtype), random(1, 2, 7, 24).to(dtype)
    numerics, factor = Numerics(query_key_bits=bits), 0.31
    found = query_key_product(query, key, factor, Closed(numerics))(whole(query, key))
    q, k = (encode_for_product(x, bits) for x in (query.flatten(2, 3)[0], key[0]))
    total = (q.mantissa.to(torch.int64)[:, :, None] * k.mantissa.to(torch.int64)[:, None]).sum(-1)
    expected = total.double() * (torch.exp2(q.exponent.double()) * factor) * torch.exp2(k.exponent.double()).mT
    assert torch.equal(found, expected.to(dtype))
    simulated = query_key_product(query, key, factor, Simulated(numerics))(whole(query, key))
    assert torch.equal(simulated, found)


def test_without_bits_the_product_is_the_models_own() -> None:
    query, key = random(1, 2, 3, 5, 24), random(1, 2, 7, 24)
    numerics = Numerics(query_key_bits=None)
    found = query_key_product(query, key, 0.5, Closed(numerics))(whole(query, key))
    assert torch.equal(found, (query * 0.5).flatten(2, 3)[0] @ key[0].mT)


@pytest.mark.parametrize("mask", [None, "causal"])
def test_reals_give_the_same_bits_in_any_tile_batch_and_order_of_channels(
    mask: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, key, value = inputs()
    shown = None if mask is None else torch.ones(9, 13, dtype=torch.bool).tril(4)
    output, weights = attention(query, key, value, shown), attention_weights(query, key, shown)
    for tile in (1, 60):
        monkeypatch.setattr(tiles, "_TILE", tile)
        assert torch.equal(attention(query, key, value, shown), output)
        assert torch.equal(attention_weights(query, key, shown), weights)
    monkeypatch.undo()
    for index in range(2):
        part = slice(index, index + 1)
        assert torch.equal(attention(query[part], key[part], value[part], shown), output[part])
    order = torch.randperm(24, generator=torch.Generator().manual_seed(3))
    assert torch.equal(attention(query[..., order], key[..., order], value, shown), output)
    assert torch.equal(attention(query.flip(-2), key, value, None if shown is None else shown.flip(0)).flip(-2), output)


def test_the_products_events_are_counted() -> None:
    query, key, value = inputs(1, 3, 4)
    with_codes, without = Events(), Events()
    attention(query, key, value, events=with_codes)
    attention(query, key, value, numerics=Numerics(query_key_bits=None), events=without)
    spikes = sum(
        int(((encode_for_product(query, 16).mantissa.abs() >> place) & 1).sum()) for place in range(15)
    )  # 15 bits of magnitude, phase by phase
    train, product = (with_codes.populations[name] for name in ("attention/scores/operand", "attention/scores"))
    assert (train.kind, train.spikes, train.synops) == ("input", spikes, spikes * 4)
    assert (product.kind, product.steps, product.membrane_updates) == ("accumulator", 15, 15 * 4 * 3 * 4)
    assert not {name for name in without.populations if name.startswith("attention/scores")}


@pytest.mark.parametrize("bad", [nan, inf, -inf])
def test_what_is_not_finite_reaches_the_rows_that_see_it_and_no_others(bad: float) -> None:
    query, key, value = inputs(1)
    mask = torch.ones(9, 13, dtype=torch.bool)
    mask[4:, 3] = False
    expected = attention(query, key, value, mask)
    key[0, 0, 3, 5] = bad
    before = saturations()
    output = attention(query, key, value, mask)
    assert torch.equal(output[:, :, 4:], expected[:, :, 4:])
    assert torch.equal(output[:, 2:], expected[:, 2:])
    exact = (query[0, :2] @ key[0, 0].mT).masked_fill(~mask, -inf).softmax(-1)
    assert torch.equal(output[0, :2].isnan().all(-1), exact.isnan().any(-1))
    counted = int(exact.isnan().any(-1).sum())
    assert saturations().get("softmax: row not finite", 0) - before.get("softmax: row not finite", 0) == counted


def test_narrow_and_paper_leave_the_product_to_the_model() -> None:
    for numerics in (PRESETS["narrow"].numerics, PRESETS["paper"].numerics):
        assert numerics.query_key_bits is None
        query, key, value = inputs(1)
        coded = attention(query, key, value, numerics=dataclasses.replace(numerics, query_key_bits=8))
        assert not torch.equal(attention(query, key, value, numerics=numerics), coded)
