"""Contract: every kernel gives the bits of its operator's closed form, and counts the same saturations."""

from __future__ import annotations

import pytest
import torch
from kernels.cases import CONFIGS, SHAPES, attentions, both, by_kernel, closed_form, reals, same_bits, vectors

from spikeplug import kernels
from spikeplug.library import OPERATORS
from spikeplug.numerics import Numerics

NAMES = sorted(kernels.loaded("cpu"))
VECTORS = [name for name in NAMES if name not in ("attention", "linear", "matmul", "rotary")]


def test_the_registry_names_operators() -> None:
    assert set(NAMES) <= OPERATORS.keys()
    gates, norms, waves = {"silu", "gelu", "sigmoid"}, {"rms_norm", "layer_norm"}, {"cos", "sin"}
    linear = {"linear", "matmul", "add", "multiply", "neuron", "quantise", "rotary"}
    assert {"softmax", "attention"} | linear | gates | norms | waves == set(NAMES)


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
    expected = {name: closed_form(name, given) for name, given in cases.items()}
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        for name, given in cases.items():
            assert same_bits(by_kernel(name, given), expected[name])
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("name", VECTORS)
def test_thread_count_and_batch_split_do_not_matter(name: str) -> None:
    x = torch.randn(600, 130, generator=torch.Generator().manual_seed(4)) * 4
    given = vectors(name, x)[0]
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(by_kernel(name, given))
            parts = [by_kernel(name, (part, *given[1:])) for part in x.split(7)]
            results.append(torch.cat(parts))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)
