"""Attention: the bound of operators/README.md; no result depends on tile, batch, autocast or later key; bad input."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from operators.inputs import PAPER, accurate, both, half_step, inf, nan, weight_error
from torch import Tensor

from spikeplug.errors import SpikeplugError
from spikeplug.functional import attention, silu
from spikeplug.numerics import Numerics
from spikeplug.operators.attention import tiles


def grid(*shape: int) -> Tensor:
    """Multiples of 1/64 of modest size: sums and products of a few of them are exact in float32, in any order."""
    return torch.randint(-256, 257, shape, generator=torch.Generator().manual_seed(sum(shape))) / 64


@pytest.mark.parametrize("keys", [1, 2, 17, 300])
@accurate
def test_attention(numerics: Numerics, keys: int) -> None:
    torch.manual_seed(keys)
    query, key, value = (torch.randn(1, 2, n, 16, dtype=torch.float64) * 2 for n in (9, keys, keys))
    value[:, :, :: max(1, keys // 3)] *= 100
    mask = torch.rand(9, keys) < 0.7
    mask[:, 0] = True
    probability = (query @ key.mT / 4).masked_fill(~mask, -math.inf).softmax(-1)
    exact = probability @ value
    spiking = attention(query, key, value, mask, numerics=numerics)
    # codes of queries and keys move a score by at most η, a weight by a factor of at most e^η
    h_query, h_key = (
        torch.maximum(x.abs().amax(-1, keepdim=True) / (2**15 - 1), x.norm(dim=-1, keepdim=True) / (2**15.5 - 2))
        for x in (query, key)
    )
    eta = h_query * key.abs().sum(-1, keepdim=True).mT + h_key.mT * query.abs().sum(-1, keepdim=True)
    eta = ((eta + 16 * h_query * h_key.mT) / 4).amax(-1, keepdim=True)
    delta = (1 + weight_error(numerics)) * eta.exp() - 1
    lost = (keys + 8) * 2.0 ** (1 - numerics.working_bits)
    relative = 2 * delta / (1 - delta) + lost
    # every product w·|v| is off relatively; every value by half an LSB of its own scale; every weight beside the values
    # may lose one LSB of the largest weight·scale
    scale = value.abs().amax(-1, keepdim=True)
    absolute = probability @ value.abs() * relative
    coding = probability @ scale * 2.0 ** (1 - numerics.bits)
    floors = (probability * scale.mT).amax(-1, keepdim=True) * 2 * keys * 2.0 ** (2 - numerics.working_bits)
    bound = absolute + coding + floors + half_step(exact, numerics) + exact.abs() * 2.0 ** (3 - numerics.working_bits)
    assert bool(((spiking - exact).abs() <= bound).all())


def test_the_error_is_far_from_the_published_one() -> None:
    """At 2,048 keys a diffuse row is lost at 8 bits a probability, and kept when divided last."""
    torch.manual_seed(0)
    query, key, value = torch.randn(1, 1, 4, 64) * 0.3, torch.randn(1, 1, 2048, 64), torch.randn(1, 1, 2048, 64) + 1
    exact = F.scaled_dot_product_attention(query, key, value)
    ours = attention(query, key, value)
    published = attention(query, key, value, numerics=PAPER)
    assert (ours - exact).abs().max() < 1e-4
    assert (published - exact).abs().max() > 0.5


@both
def test_attention_does_not_depend_on_tiles_or_batch(numerics: Numerics, monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = grid(3, 6, 17, 8), grid(3, 2, 29, 8), grid(3, 2, 29, 5)
    mask = torch.rand(3, 1, 17, 29, generator=torch.Generator().manual_seed(0)) < 0.6
    whole = attention(query, key, value, mask, numerics=numerics)
    for tile in (1, 50, 1000):
        monkeypatch.setattr(tiles, "_TILE", tile)
        assert torch.equal(attention(query, key, value, mask, numerics=numerics), whole)
    for index in range(3):
        part = slice(index, index + 1)
        assert torch.equal(attention(query[part], key[part], value[part], mask[part], numerics=numerics), whole[part])


@both
def test_a_causal_row_does_not_see_later_keys(numerics: Numerics) -> None:
    """Generation with a cache equals the whole sequence at once: no code is shared between keys."""
    query, key, value = grid(1, 4, 12, 8), grid(1, 2, 12, 8), grid(1, 2, 12, 8)
    value[:, :, 7] *= 1000
    whole = attention(query, key, value, torch.ones(12, 12, dtype=torch.bool).tril(), numerics=numerics)
    for step in range(12):
        one = attention(query[:, :, step : step + 1], key[:, :, : step + 1], value[:, :, : step + 1], numerics=numerics)
        assert torch.equal(one, whole[:, :, step : step + 1])


@both
def test_autocast_changes_nothing(numerics: Numerics) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(1, 4, 12, 8), torch.randn(1, 2, 12, 8), torch.randn(1, 2, 12, 8)
    plain = attention(query, key, value, numerics=numerics)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(attention(query, key, value, numerics=numerics), plain)
        assert torch.equal(silu(query, numerics=numerics), silu(query.clone(), numerics=numerics))


@both
def test_grouped_heads_equal_repeated_heads(numerics: Numerics) -> None:
    query, key, value = grid(2, 6, 5, 8), grid(2, 2, 7, 8), grid(2, 2, 7, 8)
    repeated = attention(query, key.repeat_interleave(3, 1), value.repeat_interleave(3, 1), numerics=numerics)
    assert torch.equal(attention(query, key, value, numerics=numerics), repeated)


@pytest.mark.parametrize(
    "shape", [(), (1,), (7,), (5, 7), (1, 1, 5, 7), (2, 1, 5, 7), (1, 4, 5, 7), (2, 4, 5, 7), (2, 4, 1, 7), (4, 5, 1)]
)
def test_every_broadcast_of_a_mask(shape: tuple[int, ...]) -> None:
    query, key, value = grid(2, 4, 5, 8), grid(2, 2, 7, 8), grid(2, 2, 7, 8)
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(3)) < 0.5
    full = mask.expand(2, 4, 5, 7)
    result = attention(query, key, value, mask)
    assert torch.equal(result, attention(query, key, value, full.contiguous()))
    score = (query @ key.repeat_interleave(2, 1).mT / 8**0.5).masked_fill(~full, -torch.inf)
    exact = score.softmax(-1).nan_to_num(0.0) @ value.repeat_interleave(2, 1)
    assert (result - exact).abs().max() < 2e-3
    assert not result[~full.any(-1)].any(), "a row that may attend to nothing gives 0"


def tokens(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@both
def test_attention_with_rows_that_see_nothing(numerics: Numerics) -> None:
    mask = torch.tensor([[True, False], [False, False]])
    result = attention(tokens(1, 2, 2, 4), tokens(1, 2, 2, 4), tokens(1, 2, 2, 4), mask, numerics=numerics)
    assert not result[:, :, 1].any()
    assert torch.isfinite(result).all()
    nothing = attention(tokens(1, 2, 2, 4), tokens(1, 2, 2, 4), tokens(1, 2, 2, 4), mask & False, numerics=numerics)
    assert not nothing.any()


@both
@pytest.mark.parametrize("bad", [nan, inf, -inf])
def test_attention_beside_values_that_are_not_finite(bad: float, numerics: Numerics) -> None:
    query, key, value = tokens(1, 2, 3, 4), tokens(1, 1, 3, 4), tokens(1, 1, 3, 4)
    value[0, 0, 2, 1] = bad
    mask = torch.ones(3, 3, dtype=torch.bool).tril()
    result = attention(query, key, value, mask, numerics=numerics)
    assert torch.isfinite(result[:, :, :2]).all(), "rows that may not attend to it are unharmed"
    assert torch.isfinite(result[:, :, 2, [0, 2, 3]]).all()
    assert torch.equal(result[0, :, 2, 1], torch.full((2,), bad)) or (bad != bad and result[0, :, 2, 1].isnan().all())


@both
def test_attention_beside_queries_and_keys_that_are_not_finite(numerics: Numerics) -> None:
    query, key, value = tokens(1, 2, 3, 4), tokens(1, 2, 3, 4), tokens(1, 2, 3, 4)
    query[0, 0, 1, 0] = nan
    result = attention(query, key, value, numerics=numerics)
    assert result[0, 0, 1].isnan().all()
    assert torch.isfinite(result[0, 1]).all()
    assert torch.isfinite(result[0, 0, [0, 2]]).all()


@both
@pytest.mark.parametrize("scale", [1e-30, 1e15, 1e-45])
def test_attention_at_the_extremes(scale: float, numerics: Numerics) -> None:
    query, key, value = tokens(1, 2, 3, 4) * scale, tokens(1, 2, 5, 4) * scale, tokens(1, 2, 5, 4)
    exact = F.scaled_dot_product_attention(query, key, value)
    result = attention(query, key, value, numerics=numerics)
    assert torch.allclose(result, exact, atol=1e-3 if numerics == Numerics() else 0.1)


def test_attention_of_huge_values_keeps_small_keys() -> None:
    """Each key has its own scale: a huge value elsewhere costs a row that ignores it nothing."""
    query, key = torch.zeros(1, 1, 2, 1), torch.zeros(1, 1, 2, 1)
    value = torch.tensor([[[[1e30], [1.0]]]])
    mask = torch.tensor([[True, False], [False, True]])
    assert torch.allclose(attention(query, key, value, mask), torch.tensor([[[[1e30], [1.0]]]]), rtol=1e-4)


@pytest.mark.parametrize(
    ("shapes", "mask", "words"),
    [
        (((2, 3, 4), (2, 3, 4), (2, 3, 4)), None, "4 dimensions"),
        (((1, 3, 2, 4), (1, 2, 2, 4), (1, 2, 2, 4)), None, "multiple"),
        (((1, 2, 2, 4), (1, 2, 2, 5), (1, 2, 2, 4)), None, "agree"),
        (((1, 2, 2, 4), (2, 2, 2, 4), (2, 2, 2, 4)), None, "agree"),
        (((1, 2, 2, 4), (1, 2, 3, 4), (1, 2, 2, 4)), None, "agree"),
        (((1, 2, 2, 4), (1, 2, 2, 4), (1, 2, 2, 4)), torch.zeros(2, 2, dtype=torch.int64), "bool"),
        (((1, 2, 2, 4), (1, 2, 2, 4), (1, 2, 2, 4)), torch.ones(3, 3, dtype=torch.bool), "broadcast"),
        (((1, 2, 2, 4), (1, 2, 2, 4), (1, 2, 2, 4)), torch.ones(5, 1, 1, 2, 2, dtype=torch.bool), "broadcast"),
    ],
)
def test_attention_arguments(shapes: tuple[tuple[int, ...], ...], mask: Tensor | None, words: str) -> None:
    with pytest.raises(SpikeplugError, match=words) as caught:
        attention(*(torch.zeros(shape) for shape in shapes), mask)
    assert "\n" not in str(caught.value)


def test_attention_of_nothing() -> None:
    assert attention(torch.zeros(0, 2, 3, 4), torch.zeros(0, 2, 5, 4), torch.zeros(0, 2, 5, 4)).shape == (0, 2, 3, 4)
    assert attention(torch.zeros(1, 2, 0, 4), torch.zeros(1, 2, 5, 4), torch.zeros(1, 2, 5, 4)).shape == (1, 2, 0, 4)
    assert not attention(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 0, 4), torch.zeros(1, 2, 0, 4)).any()
