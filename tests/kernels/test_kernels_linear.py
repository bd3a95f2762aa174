"""Contract of the kernels of linear operators: the bits of the closed form, on any input, layout and thread count."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels.cases import BROADCAST, both, by_kernel, closed_form, same_bits
from torch import Tensor

from spikeplug import kernels
from spikeplug.hadamard import hadamard
from spikeplug.kernels import Call
from spikeplug.kernels.cpu import linear as linear_module
from spikeplug.kernels.cpu import matmul as matmul_module
from spikeplug.kernels.cpu.dots import FEW, TERMS
from spikeplug.kernels.cpu.product import COLUMNS, ROWS
from spikeplug.library import OPERATORS
from spikeplug.numerics import Numerics
from spikeplug.operators.linear.neuron import as_threshold
from spikeplug.presets import PRESETS

LEVELS, BLOCKS, ROTATIONS = (1, 2, 7, 16, 64, 127, 128, 256, 500), (0, 16, 32), (0, 4, 16, 64)
NUMERICS = (
    Numerics(),
    Numerics(bits=2, working_bits=3),
    Numerics(bits=20, working_bits=24),
    PRESETS["narrow"].numerics,
)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def rows_of(count: int, width: int, g: torch.Generator) -> Tensor:
    """Return float32 rows: Gaussian, with an outlier, of zeros, denormal, with NaN or infinities, of all magnitudes."""
    x = torch.randn(count, width, generator=g) * 10.0 ** torch.randint(-30, 30, (count, 1), generator=g)
    kinds = torch.randint(0, 10, (count,), generator=g)
    places = torch.randint(0, width, (count,), generator=g)
    for row, kind in enumerate(kinds.tolist()):
        if kind == 0:
            x[row] = 0
        elif kind in (1, 2, 3):
            x[row, places[row]] *= 1e4
        elif kind == 4:
            x[row] = torch.randn(width, generator=g) * 1e-39
        elif kind == 5:
            x[row, places[row]] = (math.nan, math.inf, -math.inf)[row % 3]
        elif kind == 6:
            x[row] = torch.randint(-3, 4, (width,), generator=g) * 0.5
        elif kind == 7:
            x[row] *= 10.0 ** torch.randint(-9, 1, (width,), generator=g)
    return x


def layer(outputs: int, inputs: int, g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return a weight with -128 in it, thresholds and their unit."""
    weight = torch.randint(-128, 128, (outputs, inputs), generator=g).to(torch.int8)
    weight[torch.rand(outputs, inputs, generator=g) < 0.1] = -128
    threshold = torch.randint(0, 1 << 16, (outputs,), generator=g, dtype=torch.int32)
    return weight, threshold, torch.tensor(-20, dtype=torch.int32)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    rows=st.sampled_from([1, FEW, FEW + 1, 17]),
    inputs=st.sampled_from([1, 5, TERMS - 1, TERMS, TERMS + 1, 64, 100, 192]),
    outputs=st.sampled_from([1, 7, 9, 40]),
    levels=st.sampled_from(LEVELS),
    block=st.sampled_from(BLOCKS),
    rotation=st.sampled_from(ROTATIONS),
    biased=st.booleans(),
    transposed=st.booleans(),
    count=st.sampled_from([1, 2]),
    numerics=st.sampled_from(NUMERICS),
    seed=st.integers(0, 1 << 16),
)
def test_linear(
    rows: int,
    inputs: int,
    outputs: int,
    levels: int,
    block: int,
    rotation: int,
    biased: bool,
    transposed: bool,
    count: int,
    numerics: Numerics,
    seed: int,
) -> None:
    g = torch.Generator().manual_seed(seed)
    weight, threshold, unit = layer(outputs, inputs, g)
    if transposed:
        weight = weight.t().contiguous().t()
    bias = torch.randn(outputs, generator=g) * 10.0 ** int(torch.randint(-9, 9, (), generator=g)) if biased else None
    rotation = rotation if rotation and inputs % rotation == 0 else 0
    with threads(count):
        arguments = (rows_of(rows, inputs, g), weight, threshold, unit, bias, levels, block, rotation)
        ours, closed = both("linear", arguments, numerics)
    assert same_bits(ours, closed)


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize(("levels", "block"), [(127, 0), (1000, 0), (127, 32)])
def test_linear_extremes(rows: int, levels: int, block: int) -> None:
    """Every level is the largest, every weight -128 or 127: no sum of pairs may saturate, and long sums do not wrap."""
    for sign in (1.0, -1.0):
        for weight in (torch.full((9, 2048), -128, dtype=torch.int8), torch.full((9, 2048), 127, dtype=torch.int8)):
            threshold = torch.tensor([0, 1, 2, 3, 255, 32767, 32768, 65534, 65535], dtype=torch.int32)
            x = torch.full((rows, 2048), sign)
            arguments = (x, weight, threshold, torch.tensor(0, dtype=torch.int32), None, levels, block, 0)
            assert same_bits(by_kernel("linear", arguments), closed_form("linear", arguments))


def test_linear_rounds_halves_away_from_zero() -> None:
    """Sums that are an odd number of half steps of the output, from the smallest to the widest products."""
    for bits in (2, 8, 16):
        for top in range(bits, 24):
            half = 1 << (top - bits)
            sums = torch.tensor([1 << top, *(half * (2 * i + 1) for i in range(60)), half - 1, half + 1])
            sums = sums[sums <= 1 << top]
            # One input of one level: a sum is a weight times a threshold, and the step is a power of two or not.
            weight = torch.full((len(sums), 1), -1, dtype=torch.int8)
            threshold = sums.clamp(max=(1 << 16) - 1).to(torch.int32)
            for x in (1.0, -0.7, 3.3):
                arguments = (torch.tensor([[x]]), weight, threshold, torch.tensor(-9, dtype=torch.int32), None, 1, 0, 0)
                numerics = Numerics(bits=bits)
                assert same_bits(by_kernel("linear", arguments, numerics), closed_form("linear", arguments, numerics))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_linear_in_half_precision_and_any_layout(dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(0)
    weight, threshold, unit = layer(24, 64, g)
    wide = torch.randn(6, 5, 128, generator=g)
    views = (wide[:, :, ::2], wide[0, :, :64].to(dtype), wide[:1, :, :64].expand(4, 5, 64), wide[0, 0, :64])
    for x in views:
        for w in (weight, layer(48, 128, g)[0][::2, ::2], layer(24, 80, g)[0][:, 16:]):
            bias = torch.randn(24, generator=g).to(dtype)
            arguments = (x, w, threshold, unit, bias, 127, 0, 16)
            ours, closed = both("linear", arguments)
            assert same_bits(ours, closed)


#: With one, two and no Paley factors, whose elements lie 1 to 128 apart; powers of two around what fits 32 bits.
ORDERS = (2, 8, 12, 20, 24, 28, 36, 44, 48, 64, 96, 128, 144, 256, 576, 1536, 2048)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("groups", [1, 3])
def test_rotations(order: int, groups: int) -> None:
    g = torch.Generator().manual_seed(order)
    width = groups * order
    x = rows_of(24, width, g)
    # Every number is the largest there is, with the signs of a row of the matrix: the sums are as large as they get.
    extremes = (2 - 2.0**-23) * hadamard(order)[[0, order // 2, order - 1]].float().repeat(1, groups)
    x = torch.cat([x, extremes, -extremes, torch.full((1, width), 2 - 2.0**-23)])
    for levels, block in ((127, 0), (7, 32), (1 << 15, 0)):
        arguments: tuple[Any, ...] = (x, levels, block, order)
        assert kernels.explain(Call("quantise", arguments, Numerics())) == "Numba quantise"
        assert same_bits(*both("quantise", arguments))
    for rows, levels in ((len(x), 127), (len(x), 1000), (1, 127)):
        arguments = (x[-rows:], *layer(5, width, g), None, levels, 0, order)
        assert kernels.explain(Call("linear", arguments, Numerics())) == "Numba linear"
        assert same_bits(*both("linear", arguments))


def test_linear_reasons() -> None:
    g = torch.Generator().manual_seed(0)
    weight, threshold, unit = layer(3, 8, g)
    x = torch.randn(2, 8, generator=g)

    def explained(*arguments: Any) -> str:
        return kernels.explain(Call("linear", arguments, Numerics()))

    assert explained(x, weight, threshold, unit) == "Numba linear"
    assert explained(x, weight, threshold, unit, None, 1 << 15).startswith("closed form: levels of 32768")
    assert explained(x, weight, threshold, unit, None, 127, 0, 7).startswith("closed form: rotation=7")
    assert explained(x, weight, threshold, unit, None, 127, 0, 16).endswith("does not divide 8 channels")
    assert explained(x.repeat(1, 1 << 15), weight.repeat(1, 1 << 15), threshold, unit).endswith("do not fit 32 bits")
    assert explained(x, weight.int(), threshold, unit) == (
        "closed form: kernels take int8 weights, int32 thresholds and an int32 unit"
    )
    assert "do not fit the weight" in explained(x[:, :7], weight, threshold, unit)


@pytest.mark.parametrize("rows", [1, 5])
def test_thresholds_and_biases_out_of_their_domain_run_in_closed_form(rows: int) -> None:
    g = torch.Generator().manual_seed(0)
    weight, threshold, unit = layer(3, 8, g)
    x = torch.randn(rows, 8, generator=g)
    for wrong in (torch.tensor([1, -5, 7]), torch.tensor([1 << 16, 1, 1])):
        ours, closed = both("linear", (x, weight, wrong.to(torch.int32), unit))
        assert same_bits(ours, closed)
    ours, closed = both("linear", (x, weight, threshold, unit, torch.tensor([1.0, math.nan, math.inf])))
    assert same_bits(ours, closed)


@pytest.fixture
def without_int8_product(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let torch's int8 product be inexact, as on processors that add pairs of its products in 16 bits."""
    monkeypatch.setattr(linear_module, "has_exact_int8_product", lambda: False)
    linear_module._plan.cache_clear()
    yield
    linear_module._plan.cache_clear()


@pytest.mark.parametrize("outputs", [1, COLUMNS - 1, COLUMNS, 2 * COLUMNS + 3])
@pytest.mark.parametrize("inputs", [1, 2, 31, 100])
@pytest.mark.parametrize("count", [1, 2])
def test_linear_without_an_exact_int8_product(
    without_int8_product: None, outputs: int, inputs: int, count: int
) -> None:
    g = torch.Generator().manual_seed(outputs + inputs)
    for rows, levels, block, transposed in ((3, 127, 0, False), (ROWS, 256, 32, False), (2 * ROWS + 1, 32639, 0, True)):
        weight, threshold, unit = layer(outputs, inputs, g)
        weight = weight.t().contiguous().t() if transposed else weight
        bias = torch.randn(outputs, generator=g) if transposed else None
        arguments = (rows_of(rows, inputs, g), weight, threshold, unit, bias, levels, block, 0)
        with threads(count):
            ours, closed = both("linear", arguments)
        assert same_bits(ours, closed)


def test_linear_extremes_without_an_exact_int8_product(without_int8_product: None) -> None:
    for rows, (levels, block) in ((40, (127, 0)), (1, (1000, 0)), (40, (1000, 0)), (40, (127, 32))):
        test_linear_extremes(rows, levels, block)


@pytest.mark.parametrize(("levels", "block"), [*product(LEVELS, BLOCKS), (4096, 0), (32639, 0)])
def test_levels_near_halves(levels: int, block: int) -> None:
    """Elements that lie within few units of float32 of half a level: any bit that is lost before rounding shows."""
    g = torch.Generator().manual_seed(levels + block)
    x = torch.randn(300, 64, generator=g) * 2.0 ** torch.randint(-12, 1, (300, 64), generator=g)
    x[:, 0] = 4 + torch.rand(300, generator=g)  # the largest stays as it is, and so do the steps of its block
    coded = closed_form("quantise", (x, levels, block, 0))
    step = coded[:, :1].abs() / levels
    near = coded + step * 0.5 * (1 + torch.randint(-4, 5, x.shape, generator=g) * 2.0**-23)
    near = near * torch.where(torch.rand(x.shape, generator=g) < 0.5, -1.0, 1.0)
    near[:, 0] = x[:, 0]
    ours, closed = both("quantise", (near, levels, block, 0))
    assert same_bits(ours, closed)


def test_rows_of_a_linear_layer_are_computed_by_themselves() -> None:
    g = torch.Generator().manual_seed(0)
    x, (weight, threshold, unit) = torch.randn(70, 96, generator=g), layer(200, 96, g)
    for levels, block in ((127, 0), (127, 32)):
        whole = by_kernel("linear", (x, weight, threshold, unit, None, levels, block, 0))
        for cuts in ((0, 1, 3, 70), range(0, 71, 10)):
            parts = [
                by_kernel("linear", (x[a:b], weight, threshold, unit, None, levels, block, 0))
                for a, b in pairwise(cuts)
            ]
            assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("name", ["add", "multiply"])
@pytest.mark.parametrize(("a_shape", "b_shape"), BROADCAST, ids=str)
def test_sums_and_products_broadcast(name: str, a_shape: tuple[int, ...], b_shape: tuple[int, ...]) -> None:
    g = torch.Generator().manual_seed(len(a_shape))
    a, b = (
        torch.randn(shape, generator=g) * 10.0 ** torch.randint(-9, 9, shape, generator=g)
        for shape in (a_shape, b_shape)
    )
    for dtype in (torch.float32, torch.bfloat16):
        for broken in (1.0, math.inf, math.nan):
            x, y = a.to(dtype), b.to(dtype).clone()
            y.view(-1)[:1] *= broken
            ours, closed = both(name, (x, y))
            assert same_bits(ours, closed)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(["add", "multiply"]),
    width=st.integers(1, 70),
    apart=st.integers(-60, 60),
    numerics=st.sampled_from(NUMERICS),
    seed=st.integers(0, 1 << 16),
)
def test_sums_and_products(name: str, width: int, apart: int, numerics: Numerics, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    a, b = rows_of(9, width, g), rows_of(9, width, g)
    b = a.roll(1, -1).nan_to_num(0, 0, 0) * 2.0**apart if seed % 2 else b
    for x, y in ((a, b), (a[:, ::2], b[:, ::2]), (a.t(), b.t()), (a, -a)):
        ours, closed = both(name, (x, y), numerics)
        assert same_bits(ours, closed)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    terms=st.sampled_from([1, 2, 17, 300]),
    apart=st.sampled_from([0, 3, 30, 126]),
    rows=st.sampled_from([(), (2, 1), (4,)]),
    columns=st.sampled_from([(), (3,), (2, 1)]),
    count=st.sampled_from([1, 2]),
    numerics=st.sampled_from(NUMERICS),
    seed=st.integers(0, 1 << 16),
)
def test_matmul(
    terms: int, apart: int, rows: tuple[int, ...], columns: tuple[int, ...], count: int, numerics: Numerics, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    if rows and columns and rows[-1] != 1 and columns[-1] != 1 and rows[-1] != columns[-1]:
        columns = ()
    a, b = torch.randn(*rows, 5, terms, generator=g), torch.randn(*columns, terms, 9, generator=g)
    a, b = (x * 2.0 ** torch.randint(-apart, apart + 1, x.shape, generator=g) for x in (a, b))
    a[..., 0, :] = 0
    a[..., 1, :] *= torch.rand(terms, generator=g) < 0.5
    if terms > 1:
        a[..., 2, 1], b[..., 1, :] = -a[..., 2, 0], b[..., 0, :]
    if seed % 5 == 0:
        a.view(-1)[seed % a.numel()], b.view(-1)[seed % b.numel()] = math.inf, math.nan
    with threads(count):
        for x, y in ((a, b), (a.bfloat16(), b.bfloat16()), (b.mT.contiguous().mT[..., :5].mT, b)):
            ours, closed = both("matmul", (x, y), numerics)
            assert same_bits(ours, closed)


def test_matmul_leaves_few_elements_to_the_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elements whose code the error of a double sum leaves open are summed exactly; where they are many, so are all."""
    exact, left = matmul_module._exact, []

    def counted(a: Tensor, b: Tensor, places: tuple[Tensor, ...], numerics: Numerics) -> Tensor:
        left.append(places[0].numel())
        return exact(a, b, places, numerics)

    monkeypatch.setattr(matmul_module, "_exact", counted)
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 20, 64, generator=g), torch.randn(64, 50, generator=g)
    assert same_bits(by_kernel("matmul", (a, b)), closed_form("matmul", (a, b)))
    assert left == []
    a[1, 3, :2], a[1, 3, 2:] = torch.tensor([1.0, 2.0**-16]), 0  # a half of the last bit
    b[:2, 7] = 1
    assert same_bits(by_kernel("matmul", (a, b)), closed_form("matmul", (a, b)))
    assert left == [1]
    halves = torch.full((8, 2), 1.0)
    halves[:, 1] = 2.0**-16
    assert same_bits(*both("matmul", (halves, torch.ones(2, 8))))
    assert left == [1]


def test_matmul_reasons() -> None:
    a, b = torch.randn(2, 3), torch.randn(3, 4)
    assert kernels.explain(Call("matmul", (a, b), Numerics())) == "Numba matmul"
    assert kernels.explain(Call("matmul", (a, b.bfloat16()), Numerics())).endswith("take two tensors of one dtype")
    assert kernels.explain(Call("matmul", (a, a), Numerics())).endswith("not those of two matrices")


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    width=st.integers(1, 70),
    levels=st.sampled_from(LEVELS),
    block=st.sampled_from((0, 1, 16, 32)),
    seed=st.integers(0, 1 << 16),
)
def test_quantise(width: int, levels: int, block: int, seed: int) -> None:
    x = rows_of(12, width, torch.Generator().manual_seed(seed))
    for part in (x, x.bfloat16(), x[:, ::2]):
        ours, closed = both("quantise", (part, levels, block))
        assert same_bits(ours, closed)


def test_neuron_by_default_and_without_negative_numbers() -> None:
    """The kind may be left out; negative numbers that no population sends are refused as in closed form."""
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    ours, closed = both("neuron", (x, *as_threshold(torch.tensor(0.01), "qcfs 127")))
    assert same_bits(ours, closed)
    threshold = as_threshold(torch.tensor(0.1), "if 8")
    ours, closed = both("neuron", (x.abs(), *threshold, "if 8"))
    assert same_bits(ours, closed)
    with pytest.raises(ValueError, match="no population for negative numbers"):
        OPERATORS["neuron"](x, *threshold, "if 8")


@pytest.mark.parametrize("numerics", NUMERICS[:3], ids=lambda numerics: f"{numerics.bits} bits")
def test_rotary(numerics: Numerics) -> None:
    positions = torch.cat([torch.arange(300.0), 2.0**24 - 1 - torch.arange(30.0)]).view(2, 165)
    frequency = 10000.0 ** -(torch.arange(16) / 16)
    for quarters in (0, 1, 2, 3, -1):
        for given_frequency in (frequency, -frequency, frequency * 1e6, frequency.bfloat16()):
            ours, closed = both("rotary", (positions, given_frequency, quarters), numerics)
            assert same_bits(ours, closed)
    assert kernels.explain(Call("rotary", (positions, frequency, 0), PRESETS["paper"].numerics)).endswith(
        "shift_scaling=False; kernels take True"
    )
    with pytest.raises(ValueError, match="whole positions"):
        OPERATORS["rotary"](positions + 0.5, frequency, 0)
