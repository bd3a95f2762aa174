"""NaN, infinities, huge and denormal values, empty dims, masked rows, wrong dims and dtypes: each has the documented
result or one sentence."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.operators import attention, rms_norm, silu, softmax
from spikeplug.presets import PRESETS
from spikeplug.saturation import saturations

nan, inf = math.nan, math.inf
CONFIGS = [Numerics(), PRESETS["paper"].numerics]
both = pytest.mark.parametrize("numerics", CONFIGS, ids=["default", "paper"])
ROWS = [
    [nan, 1.0, 2.0],
    [inf, 1.0, 2.0],
    [-inf, 1.0, 2.0],
    [inf, -inf, 0.0],
    [inf, inf, inf],
    [-inf, -inf, -inf],
    [nan, inf, -inf],
    [0.0, 0.0, 0.0],
    [-0.0, 0.0, -0.0],
    [1e30, -1e30, 1.0],
    [3.4e38, 3.4e38, -3.4e38],
    [-1e30, -1.1e30, -3.4e38],
    [-3.4028235e38] * 3,
    [1e-45, 1e-40, -1e-45],
    [1e-30, 2e-30, 0.0],
    [1e30, 1e-30, 1e-45],
]
rows = pytest.mark.parametrize("row", ROWS, ids=str)


@both
@rows
def test_never_nan_where_the_exact_operator_is_not(row: list[float], numerics: Numerics) -> None:
    x = torch.tensor([row, [0.5, -1.0, 2.0]])
    for spiking, exact in (
        (softmax(x, numerics=numerics), x.softmax(-1)),
        (silu(x, numerics), F.silu(x)),
        (rms_norm(x, None, 1e-5, numerics=numerics), F.rms_norm(x, (3,), None, 1e-5)),
    ):
        assert not bool((spiking.isnan() & ~exact.isnan()).any())
        assert torch.isfinite(spiking[1]).all(), "the healthy row beside it is unharmed"


@rows
def test_default_results_at_the_extremes(row: list[float]) -> None:
    """What torch answers, the default answers too, apart from rows torch makes NaN out of nothing but -inf."""
    x = torch.tensor([row])
    if all(value == -inf for value in row):
        assert softmax(x).tolist() == [[0.0] * 3]
    else:
        assert torch.allclose(softmax(x), x.softmax(-1), atol=1e-4, rtol=1e-3, equal_nan=True)
    exact = F.silu(x)
    exact[torch.isfinite(exact) & (exact.abs() < 2e-38)] = 0.0
    scale = x[torch.isfinite(x)].abs().amax() if torch.isfinite(x).any() else torch.tensor(0.0)
    assert torch.allclose(silu(x), exact, atol=float(scale) * 2e-5 + 1e-38, rtol=1e-3, equal_nan=True)
    if torch.isfinite(x.square().sum()) or not torch.isfinite(x).all():
        expected = F.rms_norm(x, (3,), None, 1e-5)
        assert torch.allclose(rms_norm(x, None, 1e-5), expected, atol=1e-4, rtol=1e-3, equal_nan=True)


def test_rms_norm_of_values_whose_square_overflows_is_right_where_torch_is_not() -> None:
    x = torch.tensor([[3e30, -4e30]])
    assert F.rms_norm(x, (2,), None, 1e-5).tolist() == [[0.0, -0.0]]
    assert torch.allclose(rms_norm(x, None, 1e-5), torch.tensor([[0.6, -0.8]]) * 2**0.5, atol=1e-4)


def test_zero_vectors_give_zero_even_without_eps() -> None:
    zero = torch.zeros(2, 8)
    for numerics in CONFIGS:
        assert not rms_norm(zero, None, 0.0, numerics=numerics).any()
        assert not silu(zero, numerics).any()
    assert softmax(zero).unique().tolist() == [0.125]


def test_saturations_are_counted() -> None:
    softmax(torch.tensor([[nan, 0.0], [inf, 0.0], [-inf, 0.0], [1.0, 0.0]]))
    assert saturations() == {"softmax: row not finite": 2}
    silu(torch.tensor([[7.0, -6.0, 5.0, 2000.0]]), PRESETS["paper"].numerics)
    counts = saturations()
    assert counts["silu: exponent beyond H"] == 3
    assert counts["silu: input beyond 2^10"] == 1
    softmax(torch.tensor([[0.0, -9.0, -11.0, -inf]]), numerics=PRESETS["paper"].numerics)
    assert saturations()["softmax: exponent below -H"] == 1


@both
@pytest.mark.parametrize("shape", [(0,), (0, 4), (4, 0), (2, 0, 3)])
def test_empty_tensors(shape: tuple[int, ...], numerics: Numerics) -> None:
    x = torch.zeros(shape)
    for y in (softmax(x, numerics=numerics), silu(x, numerics), rms_norm(x, None, 1e-5, numerics=numerics)):
        assert y.shape == x.shape


def test_scalars() -> None:
    assert softmax(torch.tensor(3.0)).item() == 1.0
    assert silu(torch.tensor(3.0)).shape == ()
    with pytest.raises(SpikeplugError, match="dimension"):
        rms_norm(torch.tensor(3.0))


@pytest.mark.parametrize("dim", [2, -3, 1.0, None, "x"])
def test_a_dim_that_is_not_there(dim: object) -> None:
    with pytest.raises(SpikeplugError, match="dim"):
        softmax(torch.zeros(2, 2), dim)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [torch.tensor([1, 2]), torch.tensor([True]), [1.0, 2.0], None, torch.tensor([1j])])
def test_what_is_no_real_tensor(bad: object) -> None:
    for operator in (softmax, silu, rms_norm):
        with pytest.raises(SpikeplugError, match="takes a") as caught:
            operator(bad)  # type: ignore[operator]
        assert "\n" not in str(caught.value)


def test_rms_norm_arguments() -> None:
    x = torch.zeros(2, 4)
    for eps in (-1.0, nan, inf, "1e-5"):
        with pytest.raises(SpikeplugError, match="eps"):
            rms_norm(x, None, eps)  # type: ignore[arg-type]
    with pytest.raises(SpikeplugError, match="weight"):
        rms_norm(x, torch.ones(3))


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


def test_a_config_that_is_none() -> None:
    x = torch.zeros(1, 1, 2, 4)
    for call in (
        lambda: softmax(x, numerics="paper"),  # type: ignore[arg-type]
        lambda: silu(x, {}),  # type: ignore[arg-type]
        lambda: rms_norm(x, numerics=3),  # type: ignore[arg-type]
        lambda: attention(x, x, x, numerics="default"),  # type: ignore[arg-type]
        lambda: attention(x, x, x, [[True]]),  # type: ignore[arg-type]
    ):
        with pytest.raises(SpikeplugError):
            call()


@pytest.mark.parametrize("dimension", [8192, 16384, 100_000])
def test_wide_norms(dimension: int) -> None:
    x = torch.randn(2, dimension)
    assert torch.allclose(rms_norm(x), F.rms_norm(x, (dimension,), None, 1e-6), atol=1e-3)
    with pytest.raises(SpikeplugError, match="working_bits <="):
        rms_norm(torch.ones(1, 1 << 16), numerics=Numerics(working_bits=24))


def test_attention_of_nothing() -> None:
    assert attention(torch.zeros(0, 2, 3, 4), torch.zeros(0, 2, 5, 4), torch.zeros(0, 2, 5, 4)).shape == (0, 2, 3, 4)
    assert attention(torch.zeros(1, 2, 0, 4), torch.zeros(1, 2, 5, 4), torch.zeros(1, 2, 5, 4)).shape == (1, 2, 0, 4)
    assert not attention(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 0, 4), torch.zeros(1, 2, 0, 4)).any()
