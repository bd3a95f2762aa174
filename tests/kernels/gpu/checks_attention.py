"""Attention on the GPU = attention closed, bit for bit, given the same scores.

The scores are float products, whose last bit is the matrix unit's. So queries and keys here are small integers times
powers of two, and the scaling is such that octaves are a power of two times the product: then every partial sum is
exact, on any unit, and so are the scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from gpu_kernel_cases import CONFIGS, DEVICE, assert_equal, dtypes, seeded
from torch import Tensor

from spikeplug import SpikeConfig, SpikeplugError, operators
from spikeplug.kernels.gpu import FUNCTIONS
from spikeplug.kernels.gpu import attention as host

attention = FUNCTIONS["attention"]
SCALING = 2.0**-3 / math.log2(math.e)
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")


def inputs(
    batch: int, heads: int, key_heads: int, rows: int, keys: int, channels: int, value_channels: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Query and key of exact products; values whose scales span many octaves."""
    generator = torch.Generator().manual_seed(rows * keys + channels)
    query = torch.randint(-8, 9, (batch, heads, rows, channels), generator=generator)
    key = torch.randint(-8, 9, (batch, key_heads, keys, channels), generator=generator) / 4
    value = seeded(batch, key_heads, keys, value_channels) * torch.exp(2 * seeded(batch, key_heads, keys, 1, seed=1))
    return tuple(x.to(DEVICE, dtype) for x in (query, key, value))  # type: ignore[return-value]


def check(qkv: tuple[Tensor, ...], mask: Tensor | None = None, **how: Any) -> None:
    how = {"scaling": SCALING, **how}
    assert_equal(lambda: attention(*qkv, mask, **how), lambda: operators.attention(*qkv, mask, **how))


def causal(rows: int, keys: int) -> Tensor:
    return torch.ones(rows, keys, dtype=torch.bool, device=DEVICE).tril(keys - rows)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_configs(config: SpikeConfig) -> None:
    for dtype in dtypes(config):
        check(inputs(1, 2, 1, 9, 70, 16, 24, dtype), causal(9, 70), config=config)


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1, 1, 1, 1, 1), (2, 3, 3, 5, 67, 80, 20), (1, 8, 1, 1, 200, 64, 128), (1, 1, 1, 33, 40, 256, 256)],
)
def test_shapes(shape: tuple[int, ...]) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        check(inputs(*shape, dtype))  # type: ignore[arg-type]


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


def test_rare_rows_and_the_ledger() -> None:
    query, key, value = inputs(2, 2, 1, 9, 40, 16, 16, torch.float32)
    query[0, 1, 2, 0] = torch.nan
    key[1, 0, 3, 1] = torch.inf
    query[0, 0, 4] = 2e4
    check((query, key, value))
    check((query, key, value), causal(9, 40))
    hides = torch.ones(9, 40, dtype=torch.bool, device=DEVICE)
    hides[:, 3] = False
    check((query, key, value), hides)


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
    for config in (SpikeConfig(), SpikeConfig(bits=15), SpikeConfig(bits=17)):
        check((query, key, value), config=config)
    for dtype in (torch.bfloat16, torch.float16):
        check((query.to(dtype), key.to(dtype), value.to(dtype).clamp(-6e4, 6e4)))
    check((query, key, torch.zeros_like(value)))
    value[0, 0, 30, 1], value[0, 0, 31, 1], value[0, 0, 40, 2] = torch.inf, -torch.inf, torch.nan
    check((query, key, value), causal(5, 70))


def test_no_result_depends_on_the_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither on the batch: a row alone is the row among others."""
    qkv = inputs(2, 2, 1, 9, 100, 16, 16, torch.bfloat16)
    mask = causal(9, 100)
    whole = attention(*qkv, mask, scaling=SCALING)
    # The interpreter takes any key block; 64 is what values are filled up to.
    for rows, keys in ((16, 64), (16, 32), (64, 64)):
        monkeypatch.setattr(host, "choose_blocks", lambda *_, b=(rows, keys): host.Blocks(*b, 4, 2))
        assert torch.equal(attention(*qkv, mask, scaling=SCALING), whole)
    part = attention(*(x[1:] for x in qkv), mask, scaling=SCALING)
    assert torch.equal(part, whole[1:])
    row = attention(qkv[0][:, :, 4:5], *qkv[1:], mask[4:5], scaling=SCALING)
    assert torch.equal(row, whole[:, :, 4:5])


def test_what_the_kernel_does_not_take_is_the_closed_forms() -> None:
    qkv = inputs(1, 2, 1, 5, 9, 8, 8, torch.float32)
    bias = seeded(5, 9).to(DEVICE)
    cases: list[tuple[Tensor | None, dict[str, Any]]] = [
        (bias, {}),
        (None, {"softcap": 20.0}),
        (None, {"sinks": seeded(2).to(DEVICE)}),
        (None, {"config": SpikeConfig(divide_last=False)}),
        (None, {"config": SpikeConfig.narrow()}),
        (None, {"config": SpikeConfig.paper()}),
    ]
    for mask, how in cases:
        check(qkv, mask, **how)
    wide = inputs(1, 1, 1, 2, 3, 300, 8, torch.float32)
    check(wide)
    wrong: list[Callable[[], Tensor]] = [
        lambda: attention(qkv[0], qkv[1], qkv[2][..., :-1, :]),
        lambda: attention(*qkv, torch.ones(3, 3, dtype=torch.bool, device=DEVICE)),
        lambda: attention(qkv[0].int(), *qkv[1:]),
    ]
    for call in wrong:
        with pytest.raises(SpikeplugError):
            call()
