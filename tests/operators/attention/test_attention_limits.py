"""Attention with biases, softcap and sinks: the bound of operators/README.md, and what nasty inputs give."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from spikeplug.errors import SpikeplugError
from spikeplug.functional import attention, attention_weights
from spikeplug.numerics import Numerics
from spikeplug.presets import PRESETS
from spikeplug.saturation import saturations

nan, inf = math.nan, math.inf
both = pytest.mark.parametrize("numerics", [Numerics(), PRESETS["paper"].numerics], ids=["default", "paper"])
CONFIGS = [Numerics(), Numerics(bits=8), Numerics(bits=12, working_bits=16, segments=8, fraction_bits=10)]
#: A bias, a cap and sinks, one by one and together.
EXTRAS = ["none", "bias", "softcap", "sinks", "bias softcap sinks"]


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


def reference(
    query: Tensor, key: Tensor, mask: Tensor | None, softcap: float | None, sinks: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(probabilities, the sink's last if there is one; scores before the mask), as transformers' eager attention."""
    scores = query @ key.repeat_interleave(query.shape[1] // key.shape[1], 1).mT * query.shape[-1] ** -0.5
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    logits = scores if mask is None else scores + mask
    if sinks is not None:
        logits = torch.cat([logits, sinks.view(1, -1, 1, 1).expand(*logits.shape[:3], 1)], -1)
    return logits.softmax(-1).masked_fill((logits == -inf).all(-1, keepdim=True), 0.0), scores


def weight_error(numerics: Numerics, scores: Tensor, mask: Tensor | None, softcap: float | None) -> Tensor:
    """δ' = (1 + δ)·e^η - 1, per row: δ of the weight itself, η of the score it is the weight of."""
    step = math.expm1(math.log(2) * 2.0 ** -(numerics.fraction_bits + 1))
    delta = step + 2 * (math.log(2) / numerics.segments) ** 2 / 8 + 2 * 1.5 * 2.0**-numerics.working_bits
    eta = torch.zeros_like(scores)
    if mask is not None:
        eta = eta + 2.0**-51 * mask.masked_fill(mask == -inf, 0.0).abs()
    if softcap is not None:
        eta = eta + tanh_error(scores / softcap, numerics) * softcap
    if mask is not None or softcap is not None:
        eta = eta + 2.0**-51 * scores.abs()
    return (1 + delta) * eta.amax(-1, keepdim=True).exp() - 1


def tanh_error(tanh: Tensor, numerics: Numerics) -> Tensor:
    """τ: error of tanh = (1 - t)/(1 + t), t = 2^-(2|x|·log2 e) of a finer input and table, and of its own rounding."""
    fraction_bits, unit = min(16, numerics.fraction_bits + 4), 2.0**-numerics.working_bits
    chord = math.log(2) / min(8 * numerics.segments, 1 << fraction_bits)
    delta = math.expm1(math.log(2) * 2.0 ** -(fraction_bits + 1)) + 2 * chord**2 / 8 + 3 * unit
    return delta + 2 * unit + tanh.abs() * (2.0 ** (1 - numerics.bits) + 8 * unit)


def half_step(x: Tensor, bits: int) -> Tensor:
    """Half the step of a code for products; with half of it, the largest element or the norm would not have fit."""
    largest, norm = x.abs().amax(-1, keepdim=True), x.norm(dim=-1, keepdim=True)
    return torch.maximum(largest / (2.0 ** (bits - 1) - 1), norm / (2.0 ** (bits - 0.5) - x.shape[-1] ** 0.5 / 2))


def moved(delta: Tensor, query: Tensor, key: Tensor, numerics: Numerics) -> Tensor:
    """δ' with what the codes of queries and keys add to η (a softcap only takes from it)."""
    assert numerics.query_key_bits is not None
    key, bits = key.repeat_interleave(2, 1), numerics.query_key_bits
    h_query, h_key = (half_step(x, bits) for x in (query, key))
    eta = h_query * key.abs().sum(-1, keepdim=True).mT + h_key.mT * query.abs().sum(-1, keepdim=True)
    eta = (eta + query.shape[-1] * h_query * h_key.mT) * query.shape[-1] ** -0.5
    return (1 + delta) * eta.amax(-1, keepdim=True).exp() - 1


def case(which: str, keys: int, head_dim: int = 16) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
    """float64 query, key, value, and arguments; the bias reaches far and hides a few keys, never the first."""
    query, key, value = (
        random(2, heads, n, head_dim, dtype=torch.float64) for heads, n in ((4, 9), (2, keys), (2, keys))
    )
    value[:, :, :: max(1, keys // 3)] *= 100
    value[:, :, keys // 2] *= 1e-7
    arguments: dict[str, Any] = {"mask": None, "softcap": None, "sinks": None}
    if "bias" in which:
        slope = torch.tensor([8.0, 1.0, 0.1, 0.01], dtype=torch.float64).view(1, 4, 1, 1)
        mask = random(1, 4, 9, keys, dtype=torch.float64) - slope * torch.arange(keys)
        hidden = random(9, keys) < -0.5
        hidden[:, 0] = False
        arguments["mask"] = mask.masked_fill(hidden, -inf)
    if "softcap" in which:
        query, arguments["softcap"] = query * 20, 7.5
    if "sinks" in which:
        arguments["sinks"] = torch.tensor([-4.0, 0.0, 3.0, 11.0], dtype=torch.float64)
    return query, key, value, arguments


@pytest.mark.parametrize("keys", [1, 2, 17, 300])
@pytest.mark.parametrize("which", EXTRAS)
@pytest.mark.parametrize("numerics", CONFIGS, ids=lambda c: f"{c.bits} bits")
def test_attention_meets_its_bound(numerics: Numerics, which: str, keys: int) -> None:
    query, key, value, arguments = case(which, keys)
    p, scores = reference(query, key, **arguments)
    delta = moved(weight_error(numerics, scores, arguments["mask"], arguments["softcap"]), query, key, numerics)
    scores_a_row, p = p.shape[-1], p[..., :keys]
    value_of_head = value.repeat_interleave(2, 1)
    exact = p @ value_of_head
    spiking = attention(query, key, value, numerics=numerics, **arguments)
    unit = 2.0**-numerics.working_bits
    scale = value_of_head.abs().amax(-1, keepdim=True)
    bound = (
        p @ value_of_head.abs() * (2 * delta / (1 - delta) + (scores_a_row + 8) * 2 * unit)
        + p @ scale * 2.0 ** (1 - numerics.bits)
        + (p * scale.mT).amax(-1, keepdim=True) * 2 * keys * 4 * unit
        + exact.abs().amax(-1, keepdim=True) * 2.0 ** (1 - numerics.bits)
        + exact.abs() * 8 * unit
    )
    assert bool(((spiking - exact).abs() <= bound).all())


@pytest.mark.parametrize("keys", [1, 2, 17, 300])
@pytest.mark.parametrize("which", EXTRAS)
@pytest.mark.parametrize("numerics", CONFIGS, ids=lambda c: f"{c.bits} bits")
def test_the_weights_meet_the_bound_of_softmax(numerics: Numerics, which: str, keys: int) -> None:
    query, key, _, arguments = case(which, keys)
    p, scores = reference(query, key, **arguments)
    delta = moved(weight_error(numerics, scores, arguments["mask"], arguments["softcap"]), query, key, numerics)
    unit = 2.0**-numerics.working_bits
    top, scores_a_row, p = p.amax(-1, keepdim=True), p.shape[-1], p[..., :keys]
    bound = p * (2 * delta / (1 - delta) + (scores_a_row + 8) * 2 * unit) + top * (
        8 * unit + 2.0 ** (1 - numerics.bits)
    )
    spiking = attention_weights(query, key, numerics=numerics, **arguments)
    assert spiking.dtype == torch.float64
    assert bool(((spiking - p).abs() <= bound).all())
    if arguments["mask"] is not None:
        assert not spiking.masked_select(arguments["mask"] == -inf).any()


@pytest.mark.parametrize("head_dim", [1, 2, 3, 64, 128, 256])
@both
def test_every_head_dim(head_dim: int, numerics: Numerics) -> None:
    query, key, value, arguments = case("bias softcap sinks", 5, head_dim)
    p = reference(query, key, **arguments)[0][..., :-1]
    result = attention(query, key, value.clamp(-4, 4), numerics=numerics, **arguments)
    exact = p @ value.clamp(-4, 4).repeat_interleave(2, 1)
    assert (result - exact).abs().max() < (1e-2 if numerics == Numerics() else 0.5)


@both
@pytest.mark.parametrize(
    "row",
    [
        [3.4e38, 0.0, -3.4e38],
        [2e38, 1.0, 1.9e38],
        [1e30, 1e30, 0.0],
        [1e-45, -1e-40, 0.0],
        [-9999.0, -9990.0, -9995.0],
        [-inf, 5.0, 65504.0],
        [0.0, nan, 0.0],
        [0.0, inf, 0.0],
        [inf, -inf, nan],
        [-inf, -3.4e38, -1e30],
    ],
    ids=str,
)
def test_a_bias_at_the_extremes(row: list[float], numerics: Numerics) -> None:
    query, key, value = random(1, 2, 2, 4), random(1, 1, 3, 4), random(1, 1, 3, 4)
    bias = torch.tensor([row, [0.5, -1.0, 2.0]])
    result, weights = (
        attention(query, key, value, bias, numerics=numerics),
        attention_weights(query, key, bias, numerics=numerics),
    )
    exact = reference(query.double(), key.double(), bias.double().masked_fill(bias <= -1e4, -inf), None, None)[0]
    tolerance = 2e-3 if numerics == Numerics() else 0.05
    assert torch.allclose(weights.double(), exact, rtol=0, atol=tolerance, equal_nan=True)
    assert torch.allclose(result.double(), exact @ value.double(), rtol=0, atol=3 * tolerance, equal_nan=True)
    assert torch.isfinite(result[:, :, 1]).all(), "the healthy row beside it is unharmed"


def test_saturated_biases_and_sinks_are_counted() -> None:
    query, key, value = random(1, 2, 2, 4), random(1, 2, 3, 4), random(1, 2, 3, 4)
    attention(query, key, value, torch.tensor([3e38, 0.0, -3e38]))
    assert saturations() == {"attention: bias or sink beyond its dtype": 1}
    result = attention(query, key, value, sinks=torch.tensor([3e38, -3e38]))
    assert saturations() == {"attention: bias or sink beyond its dtype": 3}
    assert not result[:, 0].any()
    assert torch.equal(result[:, 1], attention(query, key, value)[:, 1])


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("sunk", [False, True])
def test_a_row_that_is_wholly_hidden_gives_zero(dtype: torch.dtype, sunk: bool, numerics: Numerics) -> None:
    query, key, value = random(1, 2, 3, 4), random(1, 2, 3, 4), random(1, 2, 3, 4) * 1e30
    value[0, 0, 1] = 3e38
    sinks = torch.tensor([2.0, -7.0]) if sunk else None
    for low in (-inf, torch.finfo(dtype).min, -1e4):
        bias = torch.zeros(3, 3, dtype=dtype)
        bias[1] = low
        for mask in (bias, bias[1]):
            result = attention(query, key, value, mask, sinks=sinks, numerics=numerics)
            hidden = result if mask.dim() == 1 else result[:, :, 1]
            assert not hidden.any()
            assert not hidden.signbit().any()
            assert not attention_weights(query, key, mask, sinks=sinks, numerics=numerics)[:, :, 1].any()


@both
@pytest.mark.parametrize("bad", [nan, inf])
def test_a_sink_that_is_not_finite_takes_its_head_alone(bad: float, numerics: Numerics) -> None:
    query, key, value = random(1, 2, 3, 4), random(1, 1, 3, 4), random(1, 1, 3, 4)
    for mask in (None, torch.zeros(3, 3, dtype=torch.bool)):
        result = attention(query, key, value, mask, sinks=torch.tensor([bad, 0.5]), numerics=numerics)
        assert result[:, 0].isnan().all()
        assert torch.equal(
            result[:, 1], attention(query, key, value, mask, sinks=torch.zeros(2) + 0.5, numerics=numerics)[:, 1]
        )
        weights = attention_weights(query, key, mask, sinks=torch.tensor([bad, 0.5]), numerics=numerics)
        assert weights[:, 0].isnan().all()
        assert torch.isfinite(weights[:, 1]).all()


@both
def test_one_key_and_no_keys(numerics: Numerics) -> None:
    query, value = random(2, 4, 3, 8), random(2, 2, 1, 8).clamp(-1, 1)
    for arguments in ({}, {"mask": torch.full((2, 1, 3, 1), 7.5)}, {"softcap": 2.0}):
        result = attention(query, random(2, 2, 1, 8), value, numerics=numerics, **arguments)
        assert (result - value.repeat_interleave(2, 1)).abs().max() < 2.0 ** (1 - numerics.bits)
    empty = torch.zeros(2, 2, 0, 8)
    for arguments in ({}, {"sinks": torch.zeros(4)}, {"mask": torch.zeros(3, 0)}, {"softcap": 2.0}):
        assert not attention(query, empty, empty, numerics=numerics, **arguments).any()
        assert attention_weights(query, empty, numerics=numerics, **arguments).shape == (2, 4, 3, 0)
    none = torch.zeros(0, 4, 3, 8)
    assert attention_weights(none, none, sinks=torch.zeros(4), numerics=numerics).shape == (0, 4, 3, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"mask": torch.zeros(3, 3)}, "broadcast"),
        ({"mask": torch.zeros(1, 1, 1, 2, 2)}, "broadcast"),
        ({"mask": torch.zeros(2, 2, dtype=torch.int64)}, "bool"),
        ({"mask": torch.zeros(2, 2, dtype=torch.complex64)}, "bool"),
        ({"mask": [[0.0, 0.0]]}, "list"),
        ({"softcap": 0.0}, "softcap"),
        ({"softcap": -50.0}, "softcap"),
        ({"softcap": nan}, "softcap"),
        ({"softcap": inf}, "softcap"),
        ({"softcap": True}, "softcap"),
        ({"softcap": "50"}, "softcap"),
        ({"softcap": torch.tensor(50.0)}, "softcap"),
        ({"sinks": torch.zeros(3)}, "sinks"),
        ({"sinks": torch.zeros(2, 1)}, "sinks"),
        ({"sinks": torch.zeros(())}, "sinks"),
        ({"sinks": torch.zeros(2, dtype=torch.int64)}, "sinks"),
        ({"sinks": [0.0, 0.0]}, "sinks"),
    ],
    ids=lambda x: "" if isinstance(x, str) else next(iter(x)),
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    x = torch.zeros(1, 2, 2, 4)
    for run in (lambda: attention(x, x, x, **arguments), lambda: attention_weights(x, x, **arguments)):
        with pytest.raises(SpikeplugError, match=words) as caught:
            run()
        assert "\n" not in str(caught.value)
