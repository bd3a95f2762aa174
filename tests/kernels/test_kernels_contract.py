"""Contract: every kernel gives the bits of its operator's closed form, and counts the same saturations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kernels.cases import ATTENTION_SIZES, CONFIGS, SHAPES, attentions, reals, vectors
from torch import Tensor

from spikeplug import kernels
from spikeplug.config import SpikeConfig
from spikeplug.library import OPERATORS
from spikeplug.saturation import reset_saturations, saturations

NAMES = sorted(kernels.loaded("cpu"))
VECTORS = [name for name in NAMES if name != "attention"]


def both(name: str, given: tuple[Any, ...], config: SpikeConfig) -> tuple[Tensor, Tensor]:
    """What the kernel and the closed form give; their ledgers are compared."""
    kernel = kernels.find(name, given, config)
    assert kernel is not None
    reset_saturations()
    ours = kernel(*given, config=config)
    counted = saturations()
    reset_saturations()
    closed = OPERATORS[name].spiking(*given, config=config)
    if ours is not None:
        assert counted == saturations(), name
    return closed if ours is None else ours, closed


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal shape, dtype and bits, whichever NaN it is."""
    if a.shape != b.shape or a.dtype != b.dtype or not torch.equal(a.isnan(), b.isnan()):
        return False
    bits = torch.int32 if a.element_size() == 4 else torch.int16
    return torch.equal(*(x.masked_fill(x.isnan(), 0.0).contiguous().view(bits) for x in (a, b)))


def test_the_registry_names_operators() -> None:
    assert set(NAMES) <= OPERATORS.keys()
    assert {"softmax", "attention", "silu", "gelu", "sigmoid", "rms_norm", "layer_norm", "cos", "sin"} == set(NAMES)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("name", VECTORS)
def test_vectors(name: str, config: SpikeConfig) -> None:
    for shape in SHAPES:
        for kind, x in reals(*shape).items():
            for given in vectors(name, x):
                ours, closed = both(name, given, config)
                assert same_bits(ours, closed), (shape, kind)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("size", ATTENTION_SIZES)
def test_attention(size: tuple[int, ...], config: SpikeConfig) -> None:
    for kind, given in attentions(size).items():
        ours, closed = both("attention", given, config)
        assert same_bits(ours, closed), kind


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", VECTORS)
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    for given in vectors(name, torch.randn(9, 65, generator=torch.Generator().manual_seed(0)).to(dtype)):
        ours, closed = both(name, given, SpikeConfig())
        assert ours.dtype == dtype
        assert same_bits(ours, closed)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_attention_in_half_precision(dtype: torch.dtype) -> None:
    for kind, given in attentions((1, 4, 2, 9, 30, 16, 16), dtype).items():
        ours, closed = both("attention", given, SpikeConfig())
        assert ours.dtype == dtype
        assert same_bits(ours, closed), kind


@pytest.mark.parametrize("name", VECTORS)
def test_every_float32_exponent(name: str) -> None:
    """All 65,536 upper halves of a float32, one a vector of its own and all in one vector, shuffled."""
    bits = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32) << 16
    x = bits.view(torch.float32)
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(1))]
    for shape in ((-1, 1), (-1, 64), (1, -1)):
        for given in vectors(name, x.view(shape))[:1]:
            ours, closed = both(name, given, SpikeConfig())
            assert same_bits(ours, closed), shape


@pytest.mark.parametrize("name", VECTORS)
def test_strides_offsets_and_long_rows(name: str) -> None:
    g = torch.Generator().manual_seed(2)
    wide = torch.randn(40, 90, generator=g)
    storage = torch.randn(3 + 8 * 33, generator=g)
    views = (wide[::2, 1::3], wide.t(), wide[:1].expand(5, 90), storage[3:].view(8, 33), wide[0], wide[:, :1])
    for x in (*views, torch.randn(2, 100_001, generator=g)):
        for given in vectors(name, x)[:1]:
            ours, closed = both(name, given, SpikeConfig())
            assert same_bits(ours, closed), (x.shape, x.stride())


def test_attention_of_strided_heads() -> None:
    """(B, T, H, D) transposed, as models have it, and keys that end before their storage does, as caches do."""
    g = torch.Generator().manual_seed(3)
    query = torch.randn(2, 11, 6, 16, generator=g).transpose(1, 2)
    key, value = (torch.randn(2, 40, 2, 16, generator=g).transpose(1, 2)[:, :, :23] for _ in range(2))
    mask = torch.ones(11, 40, dtype=torch.bool).tril(12)[:, :23]
    ours, closed = both("attention", (query, key, value, mask, None, None, None), SpikeConfig())
    assert same_bits(ours, closed)


def test_a_padded_batch() -> None:
    """(B, 1, 1, K): one mask for all rows of a sentence."""
    query, key, value, *_ = attentions((3, 4, 2, 9, 31, 16, 16))["plain"]
    mask = torch.arange(31)[None, None, None] < torch.tensor([31, 20, 1])[:, None, None, None]
    for given in (mask, torch.where(mask, 0.0, torch.finfo(torch.float32).min)):
        ours, closed = both("attention", (query, key, value, given, None, None, None), SpikeConfig())
        assert same_bits(ours, closed)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_dtype_does_not_matter(dtype: torch.dtype) -> None:
    cases = {"attention": attentions((1, 4, 2, 9, 31, 16, 16))["causal"], "softmax": (torch.randn(9, 33), -1)}
    expected = {name: OPERATORS[name].spiking(*given, config=SpikeConfig()) for name, given in cases.items()}
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        for name, given in cases.items():
            assert same_bits(kernels.loaded("cpu")[name](*given, config=SpikeConfig()), expected[name])
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("channels", [16, 24, 96, 128, 256])
def test_head_dimensions_and_several_tiles(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spikeplug.operators.tiles._TILE", 1 << 12)
    given = attentions((1, 4, 2, 150, 150, channels, channels))["causal"]
    ours, closed = both("attention", given, SpikeConfig())
    assert same_bits(ours, closed)


def test_more_keys_than_doubles_hold_are_left_to_the_closed_form() -> None:
    config = SpikeConfig(bits=20, working_bits=24)  # 44 bits a product leave 2^10 keys
    given = attentions((1, 1, 1, 1, 1025, 4, 4))["plain"]
    kernel = kernels.find("attention", given, config)
    assert kernel is not None
    assert kernel(*given, config=config) is None
    assert same_bits(*both("attention", attentions((1, 1, 1, 1, 1024, 4, 4))["plain"], config))


@pytest.mark.parametrize("name", VECTORS)
def test_thread_count_and_batch_split_do_not_matter(name: str) -> None:
    x = torch.randn(600, 130, generator=torch.Generator().manual_seed(4)) * 4
    given = vectors(name, x)[0]
    kernel = kernels.loaded("cpu")[name]
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(kernel(*given, config=SpikeConfig()))
            parts = [kernel(part, *given[1:], config=SpikeConfig()) for part in x.split(7)]
            results.append(torch.cat(parts))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)
