"""Contract: every kernel gives the bits of its operator's closed form, and counts the same saturations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kernels.cases import CONFIGS, SHAPES, attentions, reals, vectors
from torch import Tensor

from spikeplug import kernels
from spikeplug.library import OPERATORS
from spikeplug.numerics import Numerics
from spikeplug.saturation import reset_saturations, saturations

NAMES = sorted(kernels.loaded("cpu"))
VECTORS = [name for name in NAMES if name != "attention"]


def both(name: str, given: tuple[Any, ...], numerics: Numerics) -> tuple[Tensor, Tensor]:
    """What the kernel and the closed form give; their ledgers are compared."""
    kernel = kernels.find(name, given, numerics)
    assert kernel is not None
    reset_saturations()
    ours = kernel(*given, numerics=numerics)
    counted = saturations()
    reset_saturations()
    closed = OPERATORS[name].spiking(*given, numerics=numerics)
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


@pytest.mark.parametrize("numerics", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("name", VECTORS)
def test_vectors(name: str, numerics: Numerics) -> None:
    for shape in SHAPES:
        for kind, x in reals(*shape).items():
            for given in vectors(name, x):
                ours, closed = both(name, given, numerics)
                assert same_bits(ours, closed), (shape, kind)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", VECTORS)
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    for given in vectors(name, torch.randn(9, 65, generator=torch.Generator().manual_seed(0)).to(dtype)):
        ours, closed = both(name, given, Numerics())
        assert ours.dtype == dtype
        assert same_bits(ours, closed)


@pytest.mark.parametrize("name", VECTORS)
def test_every_float32_exponent(name: str) -> None:
    """All 65,536 upper halves of a float32, one a vector of its own and all in one vector, shuffled."""
    bits = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32) << 16
    x = bits.view(torch.float32)
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(1))]
    for shape in ((-1, 1), (-1, 64), (1, -1)):
        for given in vectors(name, x.view(shape))[:1]:
            ours, closed = both(name, given, Numerics())
            assert same_bits(ours, closed), shape


@pytest.mark.parametrize("name", VECTORS)
def test_strides_offsets_and_long_rows(name: str) -> None:
    g = torch.Generator().manual_seed(2)
    wide = torch.randn(40, 90, generator=g)
    storage = torch.randn(3 + 8 * 33, generator=g)
    views = (wide[::2, 1::3], wide.t(), wide[:1].expand(5, 90), storage[3:].view(8, 33), wide[0], wide[:, :1])
    for x in (*views, torch.randn(2, 100_001, generator=g)):
        for given in vectors(name, x)[:1]:
            ours, closed = both(name, given, Numerics())
            assert same_bits(ours, closed), (x.shape, x.stride())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_dtype_does_not_matter(dtype: torch.dtype) -> None:
    cases = {"attention": attentions((1, 4, 2, 9, 31, 16, 16))["causal"], "softmax": (torch.randn(9, 33), -1)}
    expected = {name: OPERATORS[name].spiking(*given, numerics=Numerics()) for name, given in cases.items()}
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        for name, given in cases.items():
            assert same_bits(kernels.loaded("cpu")[name](*given, numerics=Numerics()), expected[name])
    finally:
        torch.set_default_dtype(before)


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
            results.append(kernel(*given, numerics=Numerics()))
            parts = [kernel(part, *given[1:], numerics=Numerics()) for part in x.split(7)]
            results.append(torch.cat(parts))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)
