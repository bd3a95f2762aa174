"""Attention on the GPU = attention closed, bit for bit, from query, key and value to output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gpu_kernel_cases import CONFIGS, DEVICE, DTYPES, assert_equal, dtypes, operators, seeded
from torch import Tensor

from spikeplug import Numerics, SpikeplugError, functional
from spikeplug.codes import encode, encode_for_product
from spikeplug.kernels.gpu import attention as host
from spikeplug.kernels.gpu import attention_codes
from spikeplug.presets import PRESETS

attention = functional.attention
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")


def inputs(
    batch: int, heads: int, key_heads: int, rows: int, keys: int, channels: int, value_channels: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores up to a few octaves; scales of keys and values that span many, one channel far larger than others."""
    query, key = seeded(batch, heads, rows, channels, seed=2), seeded(batch, key_heads, keys, channels, seed=3)
    key = key * torch.exp(2 * seeded(batch, key_heads, keys, 1, seed=4))
    key[..., channels // 2] *= 30
    value = seeded(batch, key_heads, keys, value_channels) * torch.exp(2 * seeded(batch, key_heads, keys, 1, seed=1))
    return tuple(x.to(DEVICE, dtype) for x in (query, key, value))  # type: ignore[return-value]


def check(qkv: tuple[Tensor, ...], mask: Tensor | None = None, *, taken: bool = True, **how: Any) -> None:
    assert_equal(lambda: attention(*qkv, mask, **how), lambda: operators.attention(*qkv, mask, **how), taken=taken)


def causal(rows: int, keys: int) -> Tensor:
    return torch.ones(rows, keys, dtype=torch.bool, device=DEVICE).tril(keys - rows)


@pytest.mark.parametrize("numerics", CONFIGS, ids=str)
def test_configs(numerics: Numerics) -> None:
    for dtype in dtypes(numerics):
        check(inputs(1, 2, 1, 9, 70, 16, 24, dtype), causal(9, 70), numerics=numerics)


@pytest.mark.parametrize("bits", [8, 9, 12, 15, 16, 17, 20])
def test_widths_of_queries_and_keys(bits: int) -> None:
    for dtype in DTYPES:
        check(inputs(1, 4, 2, 3, 70, 40, 16, dtype), causal(3, 70), numerics=Numerics(query_key_bits=bits))


@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1, 1, 1, 1, 1),
        (2, 3, 3, 5, 67, 80, 20),
        (1, 8, 1, 1, 200, 64, 128),
        (1, 1, 1, 33, 40, 256, 256),
        (1, 4, 2, 3, 65, 33, 17),
        (1, 1, 1, 2, 5, 129, 255),
    ],
)
def test_shapes(shape: tuple[int, ...]) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        check(inputs(*shape, dtype))  # type: ignore[arg-type]


def test_dtypes_are_widened_first() -> None:
    """What holds the same numbers gives the same output, rounded; query, key and value may differ in dtype."""
    query, key, value = (x.half().bfloat16() for x in inputs(1, 2, 1, 5, 70, 16, 16, torch.bfloat16))
    wide = attention(query.float(), key.float(), value.float())
    assert torch.equal(attention(query, key, value), wide.bfloat16())
    assert torch.equal(attention(query.half(), key.half(), value.half()), wide.half())
    check((query, key.float(), value.half()))
    check((query.float(), key, value))


def test_masks() -> None:
    """Of any rank and broadcast, with rows that see nothing, heads that differ, padding; and none."""
    qkv = inputs(2, 2, 1, 5, 70, 16, 16, torch.bfloat16)
    scattered = (torch.rand(2, 2, 5, 70, generator=torch.Generator().manual_seed(0)) < 0.05).to(DEVICE)
    scattered[0, 1, 3] = False
    scattered[1, :, 4] = False
    scattered[0, 0, 2] = False
    scattered[0, 0, 2, 69] = True
    for mask in (scattered, scattered[:, :1], scattered[0], scattered[0, 0], scattered[..., :1, :], scattered[..., :1]):
        check(qkv, mask)
    check(qkv, causal(5, 70))
    check(qkv, torch.zeros(5, 70, dtype=torch.bool, device=DEVICE))


def test_strides() -> None:
    query, key, value = inputs(1, 4, 2, 6, 20, 16, 16, torch.float16)
    apart = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (query, key, value)]
    check((apart[0], apart[1], apart[2].mT.contiguous().mT))
    check((query[..., ::2], key[..., ::2], value[:, :, :, 3:]), causal(6, 20).mT.contiguous().mT)


def test_every_bit_of_a_score_counts() -> None:
    """Scores about 2^11 octaves, whose last float32 bit is worth eight integers, and all near a row's largest."""
    query, key = 1 + seeded(1, 4, 9, 40) / 30, 1 + seeded(1, 2, 70, 40, seed=1) / 200
    qkv = tuple(x.to(DEVICE) for x in (query, key, seeded(1, 2, 70, 16, seed=2)))
    for bits in (16, 20):
        for scaling in (35.1, -30.7):
            numerics = Numerics(bits=20, working_bits=24, fraction_bits=16, query_key_bits=bits)
            check(qkv, scaling=scaling, numerics=numerics)


def vectors(count: int, channels: int) -> Tensor:
    """Vectors (count, channels) at the ends of what codes and scales can be, again and again."""
    below = torch.tensor(1.0).nextafter(torch.tensor(0.0))  # rounds up to the next power of two: the largest code
    signs = seeded(channels).sign()
    kinds = [
        below.expand(channels),
        -below.expand(channels),
        below * signs,
        torch.linspace(-1, 1, channels) * below,
        # Codes around multiples of 2^8 and around the largest, where bytes change.
        (32767 - torch.arange(channels).float()) / 32768,
        (torch.arange(channels) * 128.0 - 16384) / 32768 * signs,
        seeded(channels, seed=5),
        seeded(channels, seed=6) * 2.0**40,
        seeded(channels, seed=7) * 2.0**-40,
        torch.zeros(channels),
        seeded(channels, seed=8) * 2.0**-126,
        seeded(channels, seed=9) * 1e-42,
        torch.nn.functional.one_hot(torch.tensor(channels // 2), channels) * 300.0 + signs,
        torch.full((channels,), 3e38) * signs,
        torch.full((channels,), 2.0**-15),
    ]
    return torch.stack(kinds)[torch.arange(count) % len(kinds)]


def norms(count: int, channels: int) -> Tensor:
    """Vectors (count, channels) whose norm decides the scale, at and beside where it does, again and again."""
    shortest = torch.tensor((2 / channels) ** 0.5)  # of a constant vector: with it the squares sum to the limit
    spikes = torch.eye(channels)
    largest = torch.finfo(torch.float32).max
    kinds = [
        torch.ones(channels),
        shortest.expand(channels),
        shortest.nextafter(torch.tensor(0.0)).expand(channels),
        -shortest.nextafter(torch.tensor(0.0)).expand(channels),  # less the offset, its square leaves int32
        shortest.nextafter(torch.tensor(2.0)).expand(channels),
        torch.full((channels,), 1.5),
        seeded(channels, seed=5),
        seeded(channels, seed=6),
        seeded(channels, seed=7).sign() * (1 - seeded(channels, seed=8).abs() / 100),
        spikes[0] * (1 - 2**-24),  # rounds up to a code of 2^(bits - 1)
        spikes[channels // 2] * -(2 - 2**-23),
        spikes[-1] * (1 - 2**-12) + spikes[0] * 2**-10,
        (spikes[0] + spikes[-1]) * (1 - 2**-20),
        torch.full((channels,), largest),
        spikes[0] * -largest,
        spikes[-1] * 3e38 + torch.full((channels,), 2e-44),
        seeded(channels, seed=9).clamp(-1, 1) * 3e38,
        torch.full((channels,), 2.0**-126),
        torch.full((channels,), 2.0**-149),
        torch.full((channels,), 2.0**-119),
        seeded(channels, seed=10) * 2.0**-116,
    ]
    return torch.stack(kinds)[torch.arange(count) % len(kinds)]


@pytest.mark.parametrize("bits", range(8, 21))
def test_codes(bits: int) -> None:
    """Of keys and of values: the bytes together, exponents and sums; with as many doublings of the scale as can be."""
    doubled = set()
    for channels in (1, 2, 8, 31, 32, 64, 127, 128, 256):
        x = torch.cat([vectors(15, channels), norms(21, channels)]).to(DEVICE)
        scaled = encode(x, bits, twos_complement=True)
        for values, expected in ((True, scaled), (False, encode_for_product(x, bits))):
            if values:
                (bytes_, exponents, sums), broken = attention_codes.encode_values(x[None, None], bits)
                assert not broken.any()
            else:
                bytes_, exponents, sums = attention_codes.encode_keys(x[None, None], bits)
            parts = bytes_[:, 0].mT if values else bytes_[:, 0]
            code = sum(part.int() << 8 * place for place, part in enumerate(parts))
            code = code + attention_codes.offset(attention_codes.limbs(bits))
            assert torch.equal(code[: len(x), :channels], expected.mantissa)
            assert not code[len(x) :].any()
            assert not code[:, channels:].any()
            assert torch.equal(exponents[0, : len(x), None], expected.exponent)
            assert torch.equal(sums[0, : len(x)], expected.mantissa.sum(-1, dtype=torch.int32))
        doubled |= set((expected.exponent - scaled.exponent).flatten().tolist())
    assert doubled == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("channels", [1, 64, 128, 256])
def test_norms_that_decide_the_scale(channels: int) -> None:
    """Dot products up to either end of what they can be, of vectors that are each other's, or their opposite."""
    x, value = norms(21, channels), seeded(42, 16)
    qkv = tuple(x.to(DEVICE)[None, None] for x in (x, torch.cat([x, -x]), value))
    for bits in (8, 15, 16, 17, 20):
        check(qkv, numerics=Numerics(query_key_bits=bits))
    for scaling in (1e-3, 1e-70):
        check(qkv, scaling=scaling)
    # What rows see decides nothing about the others: a query and a key on their own.
    for place in range(6, 9):
        check((qkv[0][:, :, place, None], qkv[1][:, :, place, None], qkv[2][:, :, place, None]))


@pytest.mark.parametrize("channels", [16, 128, 256])
def test_vectors_of_every_kind(channels: int) -> None:
    """With scalings that leave scores in range, at its ends and beyond, in both directions."""
    query, key, value = vectors(15, channels), vectors(70, channels), seeded(70, 16)
    qkv = tuple(x.to(DEVICE)[None, None] for x in (query, key, value))
    for bits in (16, 20):
        check(qkv, numerics=Numerics(query_key_bits=bits))
    if channels == 16:
        for scaling in (0.0, -0.3, 1e-12, 1e-38, 1e-76, 1e-300, 5e-324, 2.0**60, 1e30):
            check(qkv, scaling=scaling)
        for dtype in (torch.bfloat16, torch.float16):
            check(tuple(x.to(dtype) for x in (qkv[0].clamp(-6e4, 6e4), qkv[1].clamp(-6e4, 6e4), qkv[2])))


def test_scores_below_every_fixed_point() -> None:
    """A row whose scores are all far below 0 is not one that sees nothing, until they are -inf."""
    query, key = torch.ones(1, 1, 3, 16), -torch.ones(1, 1, 40, 16) - seeded(1, 1, 40, 1).abs()
    query, key, value = query.to(DEVICE), key.to(DEVICE), seeded(1, 1, 40, 16).to(DEVICE)
    for scaling in (1e3, 1e5, 1e36, 1e37, 1e38):
        check((query, key, value), scaling=scaling)


def test_rare_rows_and_the_ledger() -> None:
    query, key, value = inputs(2, 2, 1, 9, 40, 16, 16, torch.float32)
    query[0, 1, 2, 0] = torch.nan
    query[1, 0, 5, 0] = -torch.inf
    key[1, 0, 3, 1] = torch.inf
    key[1, 0, 7, 2] = torch.nan
    query[0, 0, 4] = 2e4
    check((query, key, value))
    check((query, key, value), scaling=0.0)
    check((query, key, value), causal(9, 40))
    hides = torch.ones(9, 40, dtype=torch.bool, device=DEVICE)
    hides[:, 3] = hides[:, 7] = hides[5] = False
    check((query, key, value), hides)


@pytest.mark.parametrize(
    ("numerics", "dtype"),
    [
        (Numerics(), torch.float32),
        (Numerics(), torch.bfloat16),
        (Numerics(bits=17, query_key_bits=17), torch.float32),
        (CONFIGS[1], torch.float16),
        (CONFIGS[4], torch.float32),
    ],
    ids=str,
)
def test_rare_rows_of_every_kind(numerics: Numerics, dtype: torch.dtype) -> None:
    """Beside each other: too large by a little and by far, both ways; all -inf; NaN; with values of every kind."""
    query, key, value = inputs(2, 4, 2, 7, 40, 16, 16, torch.float32)
    query[0, :, 0], query[0, :, 1], query[0, :, 2] = query[0, :, 0] * 1e4, query[0, :, 1] * 1e12, -query[0, :, 2] * 1e30
    query[0, 1, 3, 0], query[0, 2, 4], key[0, 1, :, 1] = torch.inf, 1e18, key[0, 1, :, 1].abs()
    query[0, 3, 5, 1] = -torch.inf  # every score is -inf
    query[1, 0, 6, 2] = torch.nan
    key[1, 1, 9, 2] = torch.inf
    value[1, 0, 3, 1], value[1, 0, 4, 1] = torch.inf, -torch.inf
    value[1, 0, 5, 2], value[1, 0, 6, 3] = torch.inf, torch.nan
    value[1, 1] *= 2.0 ** torch.arange(-60, 60, 3, device=DEVICE)[:, None]
    limit = torch.finfo(dtype).max
    qkv = tuple(torch.where(x.isfinite(), x.clamp(-limit, limit), x).to(dtype) for x in (query, key, value))
    scattered = (torch.rand(2, 4, 7, 40, generator=torch.Generator().manual_seed(0)) < 0.3).to(DEVICE)
    for mask in (None, scattered):
        check(qkv, mask, numerics=numerics)


def test_keys_that_no_row_sees_change_nothing() -> None:
    query, key, value = inputs(1, 2, 1, 5, 70, 16, 16, torch.bfloat16)
    hides = torch.ones(5, 70, dtype=torch.bool, device=DEVICE)
    hides[:, 10:14] = False
    whole = attention(query, key, value, hides)
    key[0, 0, 10:14] = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e38]).to(key)[:, None]
    check((query, key, value), hides)
    assert torch.equal(attention(query, key, value, hides), whole)


def test_values_of_every_kind() -> None:
    """Zeros, denormals, scales far apart, codes that round up to a power of two, infinities and NaN."""
    query, key, value = inputs(1, 2, 1, 5, 70, 16, 16, torch.float32)
    value[0, 0, :20] = 0
    value[0, 0, 21] *= 1e-38
    value[0, 0, 22] *= 1e-44
    value[0, 0, 23] *= 1e30
    value[0, 0, 24] = 1 - 2**-24
    value[0, 0, 25] = -1 + 2**-24
    value[0, 0, 26] = torch.linspace(0.99, 1.0, 16)
    for numerics in (Numerics(), Numerics(bits=15), Numerics(bits=17)):
        check((query, key, value), numerics=numerics)
    for dtype in (torch.bfloat16, torch.float16):
        check((query.to(dtype), key.to(dtype), value.to(dtype).clamp(-6e4, 6e4)))
    check((query, key, torch.zeros_like(value)))
    value[0, 0, 30, 1], value[0, 0, 31, 1], value[0, 0, 40, 2] = torch.inf, -torch.inf, torch.nan
    check((query, key, value), causal(5, 70))


def test_no_result_depends_on_the_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither on the batch: a row alone is the row among others."""
    qkv = inputs(2, 2, 1, 9, 100, 16, 16, torch.bfloat16)
    mask = causal(9, 100)
    whole = attention(*qkv, mask)
    # The interpreter takes any key block; 64 is what values are filled up to.
    for rows, keys in ((16, 64), (16, 32), (64, 64)):
        monkeypatch.setattr(host, "choose_blocks", lambda *_, b=(rows, keys): host.Blocks(*b, 4))
        assert torch.equal(attention(*qkv, mask), whole)
    part = attention(*(x[1:] for x in qkv), mask)
    assert torch.equal(part, whole[1:])
    row = attention(qkv[0][:, :, 4:5], *qkv[1:], mask[4:5])
    assert torch.equal(row, whole[:, :, 4:5])


def test_what_the_kernel_does_not_take_is_the_closed_forms() -> None:
    qkv = inputs(1, 2, 1, 5, 9, 8, 8, torch.float32)
    bias = seeded(5, 9).to(DEVICE)
    cases: list[tuple[Tensor | None, dict[str, Any]]] = [
        (bias, {}),
        (None, {"softcap": 20.0}),
        (None, {"sinks": seeded(2).to(DEVICE)}),
        (None, {"numerics": Numerics(divide_last=False)}),
        (None, {"numerics": Numerics(query_key_bits=None)}),
        (None, {"numerics": PRESETS["narrow"].numerics}),
        (None, {"numerics": PRESETS["paper"].numerics}),
    ]
    for mask, how in cases:
        check(qkv, mask, taken=False, **how)
    wide = inputs(1, 1, 1, 2, 3, 300, 8, torch.float32)
    check(wide, taken=False)
    wrong: list[Callable[[], Tensor]] = [
        lambda: attention(qkv[0], qkv[1], qkv[2][..., :-1, :]),
        lambda: attention(*qkv, torch.ones(3, 3, dtype=torch.bool, device=DEVICE)),
        lambda: attention(qkv[0].int(), *qkv[1:]),
    ]
    for call in wrong:
        with pytest.raises(SpikeplugError):
            call()


def test_counts_of_visible_keys() -> None:
    g = torch.Generator().manual_seed(9)
    query, key, value = (torch.randn(1, heads, 33, 16, generator=g).to(DEVICE) for heads in (4, 2, 2))
    counts = torch.arange(1, 34, device=DEVICE).view(33, 1)
    mask = torch.ones(33, 33, dtype=torch.bool, device=DEVICE).tril()
    assert torch.equal(attention(query, key, value, counts), attention(query, key, value, mask))
