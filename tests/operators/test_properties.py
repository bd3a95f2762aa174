"""Algebra that must hold exactly: the answer depends on no tile, block, batch, layout or later key."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spikeplug.numerics import Numerics
from spikeplug.operators import attention, rms_norm, silu, softmax
from spikeplug.presets import PRESETS

CONFIGS = [Numerics(), PRESETS["paper"].numerics]
UNARY = {
    "softmax": lambda x, numerics: softmax(x, numerics=numerics),
    "silu": silu,
    "rms_norm": lambda x, numerics: rms_norm(x, None, 1e-5, numerics=numerics),
}
both = pytest.mark.parametrize("numerics", CONFIGS, ids=["default", "paper"])
each = pytest.mark.parametrize("name", UNARY)


def grid(*shape: int) -> Tensor:
    """Multiples of 1/64 of modest size: sums and products of a few of them are exact in float32, in any order."""
    return torch.randint(-256, 257, shape, generator=torch.Generator().manual_seed(sum(shape))) / 64


@both
@each
@pytest.mark.parametrize("shape", [(5,), (1, 1), (123, 5), (2, 3, 4, 7), (5, 123), (1, 577)])
def test_shape_dtype_and_batch_split(name: str, shape: tuple[int, ...], numerics: Numerics) -> None:
    x = torch.randn(shape)
    y = UNARY[name](x, numerics)
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    rows = torch.stack([UNARY[name](row, numerics) for row in x.reshape(-1, shape[-1])])
    assert torch.equal(rows.view(shape), y)


@both
@each
def test_blocks_do_not_matter(name: str, numerics: Numerics, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(37, 11) * 3
    whole = UNARY[name](x, numerics)
    for block in (1, 12, 100):
        monkeypatch.setattr("spikeplug.operators.rows.BLOCK", block)
        assert torch.equal(UNARY[name](x, numerics), whole)


@both
@each
def test_layout_does_not_matter(name: str, numerics: Numerics) -> None:
    x = torch.randn(14, 20)
    strided = torch.randn(28, 60)[::2, ::3].copy_(x)
    assert torch.equal(UNARY[name](strided, numerics), UNARY[name](x, numerics))
    assert torch.equal(UNARY[name](x.t().contiguous().t(), numerics), UNARY[name](x, numerics))
    expanded = x[:1].expand(14, 20)
    assert torch.equal(UNARY[name](expanded, numerics), UNARY[name](expanded.clone(), numerics))


@both
@each
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_their_float32_results_rounded(name: str, dtype: torch.dtype, numerics: Numerics) -> None:
    x = (torch.randn(9, 33) * 4).to(dtype)
    assert torch.equal(UNARY[name](x, numerics), UNARY[name](x.float(), numerics).to(dtype))


@each
@pytest.mark.parametrize("places", [-20, -1, 3, 60])
def test_a_power_of_two_scales_out(name: str, places: int) -> None:
    """Shift scaling: RMSNorm (eps = 0) does not see a power of two; SiLU and softmax do, through the exponential."""
    x = torch.randn(8, 16)
    scaled = torch.ldexp(x, torch.tensor(places))
    if name == "rms_norm":
        assert torch.equal(rms_norm(scaled, None, 0.0), rms_norm(x, None, 0.0))
    else:
        assert not torch.equal(UNARY[name](scaled, Numerics()), UNARY[name](x, Numerics()))


@given(st.integers(-50, 50), st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_softmax_is_shift_invariant(octaves: int, length: int) -> None:
    """Exactly so for shifts by whole octaves, up to the float32 rounding of the encoder's product: use float64."""
    import math

    x = torch.randn(3, length, dtype=torch.float64, generator=torch.Generator().manual_seed(length))
    x = (x * math.log2(math.e) * 4096).round() / 4096 / math.log2(math.e)
    shifted = x + octaves / math.log2(math.e)
    assert torch.equal(softmax(shifted), softmax(x))


@both
@pytest.mark.parametrize("dim", [0, 1, 2, -1, -3])
def test_softmax_over_any_dim(dim: int, numerics: Numerics) -> None:
    x = torch.randn(4, 5, 6)
    assert torch.equal(
        softmax(x, dim, numerics=numerics), softmax(x.movedim(dim, -1), numerics=numerics).movedim(-1, dim)
    )


def test_softmax_sums_to_one_within_the_rounding_of_its_elements() -> None:
    for length in (1, 2, 100, 5000):
        p = softmax(torch.randn(20, length, dtype=torch.float64) * 3)
        slack = p.amax(-1) * 2.0**-16 * length + length * 2.0**-20
        assert bool(((p.sum(-1) - 1).abs() <= slack + 1e-4).all())


def test_softmax_keeps_order() -> None:
    x = torch.randn(50, 40).sort(-1).values
    assert bool((softmax(x).diff(dim=-1) >= 0).all())


def test_silu_of_a_permuted_vector_is_permuted() -> None:
    x, order = torch.randn(6, 50), torch.randperm(50)
    for numerics in CONFIGS:
        assert torch.equal(silu(x[:, order], numerics), silu(x, numerics)[:, order])
        assert torch.equal(rms_norm(-x, None, 1e-5, numerics=numerics), -rms_norm(x, None, 1e-5, numerics=numerics))


@both
def test_attention_does_not_depend_on_tiles_or_batch(numerics: Numerics, monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = grid(3, 6, 17, 8), grid(3, 2, 29, 8), grid(3, 2, 29, 5)
    mask = torch.rand(3, 1, 17, 29, generator=torch.Generator().manual_seed(0)) < 0.6
    whole = attention(query, key, value, mask, numerics=numerics)
    for tile in (1, 50, 1000):
        monkeypatch.setattr("spikeplug.operators.tiles._TILE", tile)
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
        assert torch.equal(silu(query, numerics), silu(query.clone(), numerics))


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
