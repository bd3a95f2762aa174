"""Attention with biases, softcap and sinks, and its weights: what must be equal, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from operators.inputs import CONFIGS as ALL
from operators.inputs import both, inf, nan, same
from torch import Tensor

from spikeplug.codes import natural_unit
from spikeplug.functional import attention, attention_weights
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.operators.attention import tiles
from spikeplug.saturation import saturations

CONFIGS = {
    name: ALL[name]
    for name in ("default", "narrow, blocks of 4", "paper", "8 bits", "ordered", "piecewise, scaled", "shift, floored")
}
each = pytest.mark.parametrize("name", CONFIGS)
EXTRAS = ["bias", "softcap", "sinks", "all"]


def grid(*shape: int, seed: int = 0) -> Tensor:
    """Multiples of 1/64 of modest size: sums and products of a few of them are exact in float32, in any order."""
    return torch.randint(-256, 257, shape, generator=torch.Generator().manual_seed(seed)) / 64


def tensors(batch: int = 2, rows: int = 5, keys: int = 7, head_dim: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Query of 4 heads, key and value of 2."""
    return grid(batch, 4, rows, head_dim), grid(batch, 2, keys, head_dim, seed=1), grid(batch, 2, keys, 6, seed=2)


def extras(which: str, batch: int = 2, rows: int = 5, keys: int = 7) -> dict[str, Any]:
    """Arguments that are not in plain attention: a bias that also hides, a cap the scores reach, sinks."""
    bias = grid(batch, 4, rows, keys, seed=3)
    bias[:, :, -1, keys // 2 :] = -inf
    bias[:, :, 0] = -1e4
    everything = {"mask": bias, "softcap": 4.0, "sinks": grid(4, seed=4)}
    return (
        everything
        if which == "all"
        else {name: value for name, value in everything.items() if name == which} or {"mask": bias}
    )


def exact_scaling(numerics: Numerics, softcap: float | None) -> float:
    """A scaling that keeps query·keyᵀ on the grid, so that the float product cannot depend on how it is cut."""
    unit = natural_unit(numerics) if softcap is None else 1.0
    assert 0.25 / unit * unit == 0.25
    return 0.25 / unit


@each
@pytest.mark.parametrize("which", EXTRAS)
def test_simulated_equals_closed(name: str, which: str) -> None:
    query, key, value = tensors(1)
    value[0, 0, 2] *= 1e6
    value[0, 1, 3] = 0.0
    options: dict[str, Any] = {"numerics": CONFIGS[name].numerics, **extras(which, 1)}
    for run, given in ((attention, (query, key, value)), (attention_weights, (query, key))):
        events = Events(CONFIGS[name].realisation)
        assert torch.equal(run(*given, **options), run(*given, events=events, **options))
        assert events.steps > 0


@both
@pytest.mark.parametrize("which", EXTRAS)
def test_no_result_depends_on_tiles_or_batch(which: str, numerics: Numerics, monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = tensors(2, 9, 13)
    options: dict[str, Any] = {"numerics": numerics, **extras(which, 2, 9, 13)}
    options["scaling"] = exact_scaling(numerics, options.get("softcap"))
    if which == "all":
        query[0, 2, 3], options["mask"][1, 1, 4, 5] = nan, nan
    whole, weights = attention(query, key, value, **options), attention_weights(query, key, **options)
    for tile in (1, 60):
        monkeypatch.setattr(tiles, "_TILE", tile)
        assert same(attention(query, key, value, **options), whole)
        assert same(attention_weights(query, key, **options), weights)
    monkeypatch.undo()
    for index in range(2):
        part = slice(index, index + 1)
        if "mask" in options:
            options["mask"] = extras(which, 2, 9, 13)["mask"][part]
            if which == "all" and index == 1:
                options["mask"][0, 1, 4, 5] = nan
        assert same(attention(query[part], key[part], value[part], **options), whole[part])
        assert same(attention_weights(query[part], key[part], **options), weights[part])


@both
@pytest.mark.parametrize("softcap", [None, 4.0])
def test_a_causal_row_does_not_see_later_keys(softcap: float | None, numerics: Numerics) -> None:
    query, key, value = tensors(1, 12, 12)
    key[:, :, 7] *= 100
    options: dict[str, Any] = {"softcap": softcap, "sinks": grid(4, seed=4), "numerics": numerics}
    options["scaling"] = exact_scaling(numerics, softcap)
    slope = -torch.tensor([0.5, 0.25, 0.125, 0.0625]).view(1, 4, 1, 1)
    distance = (torch.arange(12)[:, None] - torch.arange(12)).float()
    bias = (slope * distance).masked_fill(distance < 0, -inf)
    whole = attention(query, key, value, bias, **options)
    for step in range(12):
        past = slice(0, step + 1)
        one = attention(
            query[:, :, step : step + 1],
            key[:, :, past],
            value[:, :, past],
            bias[..., step : step + 1, past],
            **options,
        )
        assert torch.equal(one, whole[:, :, step : step + 1])


@each
@pytest.mark.parametrize("softcap", [None, 4.0])
def test_a_bias_of_zeros_is_no_mask_and_one_that_hides_is_a_bool_mask(name: str, softcap: float | None) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, heads, n, 16) for heads, n in ((4, 9), (2, 11), (2, 11)))
    options: dict[str, Any] = {"numerics": CONFIGS[name].numerics, "softcap": softcap}
    plain = attention(query, key, value, **options)
    visible = torch.rand(2, 1, 9, 11) < 0.5
    visible[0, :, 3] = False
    hidden = attention(query, key, value, visible, **options)
    weights = attention_weights(query, key, visible, **options)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        zero = torch.zeros(2, 1, 9, 11, dtype=dtype)
        assert torch.equal(attention(query, key, value, zero, **options), plain)
        for low in (-inf, torch.finfo(dtype).min, -1e4):
            bias = zero.masked_fill(~visible, low)
            assert torch.equal(attention(query, key, value, bias, **options), hidden)
            assert torch.equal(attention_weights(query, key, bias, **options), weights)
    assert not hidden[0, :, 3].any()


@each
@pytest.mark.parametrize("softcap", [None, 4.0])
@pytest.mark.parametrize("masked", [False, True])
def test_a_sink_is_one_more_key_without_a_value(name: str, softcap: float | None, masked: bool) -> None:
    """The key's score is the sink, by way of a bias: bit for bit the same output and weights."""
    query, key, value = tensors()
    sinks = torch.tensor([3.0, -2.5, 9.75, -inf])
    bias = extras("bias")["mask"] if masked else torch.zeros(2, 4, 5, 7)
    options: dict[str, Any] = {"numerics": CONFIGS[name].numerics, "softcap": softcap}
    longer_key = torch.cat([key, torch.zeros(2, 2, 1, 8)], 2)
    longer_bias = torch.cat([bias, sinks.view(1, 4, 1, 1).expand(2, 4, 5, 1)], -1)
    mask = bias if masked else None
    # Zero at the lowest scale there is, and zero as it is coded, beside values of a higher scale.
    for scale, nothing in ((1.0, 1e-45), (1e-6, 1e-45), (2.0**24, 0.0)):
        longer_value = torch.cat([value * scale, torch.full((2, 2, 1, 6), nothing)], 2)
        assert torch.equal(
            attention(query, key, value * scale, mask, sinks=sinks, **options),
            attention(query, longer_key, longer_value, longer_bias, **options),
        )
    weights = attention_weights(query, key, mask, sinks=sinks, **options)
    assert torch.equal(weights, attention_weights(query, longer_key, longer_bias, **options)[..., :-1])


@each
def test_a_sink_of_minus_infinity_is_none(name: str) -> None:
    query, key, value = tensors()
    options: dict[str, Any] = {"numerics": CONFIGS[name].numerics, "mask": extras("bias")["mask"]}
    sinks = torch.full((4,), -inf)
    assert torch.equal(attention(query, key, value, sinks=sinks, **options), attention(query, key, value, **options))
    assert torch.equal(attention_weights(query, key, sinks=sinks, **options), attention_weights(query, key, **options))


@pytest.mark.parametrize(
    "shape", [(), (1,), (7,), (5, 7), (1, 1, 5, 7), (2, 1, 5, 7), (1, 4, 5, 7), (2, 4, 5, 7), (2, 4, 1, 7), (4, 5, 1)]
)
@both
def test_every_broadcast_of_a_bias(shape: tuple[int, ...], numerics: Numerics) -> None:
    query, key, value = tensors()
    bias = grid(*shape, seed=5)
    full = bias.expand(2, 4, 5, 7)
    result = attention(query, key, value, bias, numerics=numerics)
    assert torch.equal(result, attention(query, key, value, full.contiguous(), numerics=numerics))
    weights = attention_weights(query, key, bias, numerics=numerics)
    assert torch.equal(weights, attention_weights(query, key, full.contiguous(), numerics=numerics))


@both
def test_grouped_heads_equal_repeated_heads(numerics: Numerics) -> None:
    query, key, value = tensors()
    options: dict[str, Any] = {"numerics": numerics, **extras("all"), "scaling": exact_scaling(numerics, 4.0)}
    repeated = key.repeat_interleave(2, 1), value.repeat_interleave(2, 1)
    assert torch.equal(attention(query, key, value, **options), attention(query, *repeated, **options))
    assert torch.equal(attention_weights(query, key, **options), attention_weights(query, repeated[0], **options))


@pytest.mark.parametrize("name", ["paper", "piecewise, scaled", "shift, floored"])
def test_where_every_probability_is_divided_these_are_what_weighs(name: str) -> None:
    """The output is the weights times the values, which are coded without loss here."""
    query, key, value = tensors()
    options: dict[str, Any] = {"numerics": CONFIGS[name].numerics, **extras("all")}
    value = value.round()
    product = attention_weights(query, key, **options) @ value.repeat_interleave(2, 1)
    assert torch.equal(product, attention(query, key, value, **options))


@both
def test_what_is_hidden_stays_unseen_under_a_softcap(numerics: Numerics) -> None:
    """A key that no row may attend to may be anything; its scores reach neither the result nor the ledger."""
    query, key, value = grid(1, 2, 2, 4), grid(1, 1, 4, 4, seed=1), grid(1, 1, 4, 4, seed=2)
    mask = torch.tensor([True, False, True, True])
    expected = attention(query, key, value, mask, softcap=3.0, numerics=numerics)
    before = saturations()
    key[:, :, 1] = torch.tensor([nan, inf, -inf, 1e38])
    assert torch.equal(attention(query, key, value, mask, softcap=3.0, numerics=numerics), expected)
    assert saturations() == {name: 2 * count for name, count in before.items()}


@both
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype, numerics: Numerics) -> None:
    query, key, value = (x.to(dtype) for x in tensors())
    arguments = extras("all")
    arguments |= {"mask": arguments["mask"].to(dtype), "sinks": arguments["sinks"].to(dtype), "numerics": numerics}
    wide = {**arguments, "mask": arguments["mask"].float(), "sinks": arguments["sinks"].float()}
    result, weights = attention(query, key, value, **arguments), attention_weights(query, key, **arguments)
    assert torch.equal(result, attention(query.float(), key.float(), value.float(), **wide).to(dtype))
    assert torch.equal(weights, attention_weights(query.float(), key.float(), **wide).to(dtype))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(attention(query, key, value, **arguments), result)
