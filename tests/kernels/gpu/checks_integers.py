"""The kernels' verbs against Python's integers and the closed forms, on edges and at the ends of their domains."""

from __future__ import annotations

import math

import pytest
import torch
import triton
import triton.language as tl
from adversarial import edges, integers
from gpu_kernel_cases import DEVICE, DTYPES, seeded
from torch import Tensor

from spikeplug.fixedpoint import bit_length as closed_bit_length
from spikeplug.kernels.gpu import integers as verbs
from spikeplug.kernels.gpu import norms

bit_length, corrected, nearest, nearest_small, quotient, quotient_each, reciprocal, root, rounded, widened = (
    verbs.bit_length,
    verbs.corrected,
    verbs.nearest,
    verbs.nearest_small,
    verbs.quotient,
    verbs.quotient_each,
    verbs.reciprocal,
    norms.root,
    verbs.rounded,
    verbs.widened,
)


@triton.jit
def _quotients(a, b, row, each, count, K: tl.constexpr, BLOCK: tl.constexpr):  # noqa: N803
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    numerator = tl.load(a + place, mask=place < count, other=0)
    denominator = tl.load(b + place, mask=place < count, other=1)
    tl.store(row + place, quotient(numerator, denominator, reciprocal(denominator, K), K), mask=place < count)
    tl.store(each + place, quotient_each(numerator, denominator * 2 - 1, K), mask=place < count)


@triton.jit
def _from_neighbours(a, b, estimate, output, count, K: tl.constexpr, BLOCK: tl.constexpr):  # noqa: N803
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    numerator = tl.load(a + place, mask=place < count, other=0)
    denominator = tl.load(b + place, mask=place < count, other=1)
    near = tl.load(estimate + place, mask=place < count, other=0)
    tl.store(output + place, corrected(numerator, denominator, near, K), mask=place < count)


@triton.jit
def _scalars(x, length, roots, count, BLOCK: tl.constexpr):  # noqa: N803
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + place, mask=place < count, other=0)
    tl.store(length + place, bit_length(value), mask=place < count)
    tl.store(roots + place, root(value), mask=place < count)


@triton.jit
def _roundings(x, wide, small, count, BLOCK: tl.constexpr):  # noqa: N803
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + place, mask=place < count, other=0.0)
    tl.store(wide + place, nearest(value), mask=place < count)
    tl.store(small + place, nearest_small(tl.minimum(tl.maximum(value, -4194304.0), 4194304.0)), mask=place < count)


@triton.jit
def _conversions(x, y, z, count, BLOCK: tl.constexpr):  # noqa: N803
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + place, mask=place < count, other=0.0)
    narrow = rounded(value, y.dtype.element_ty)
    tl.store(y + place, narrow, mask=place < count)
    tl.store(z + place, widened(narrow), mask=place < count)


def _launch(kernel: object, first: Tensor, *others: Tensor, **constants: int) -> None:
    grid = (-(-first.numel() // 4096),)
    kernel[grid](first, *others, first.numel(), BLOCK=4096, enable_fp_fusion=False, **constants)  # type: ignore[index]


@pytest.mark.parametrize(("width", "fraction_bits"), [(24, 21), (24, 5), (22, 17), (17, 17), (5, 5), (2, 3)])
def test_quotients_are_floors(width: int, fraction_bits: int) -> None:
    """Where an estimate errs: quotients at, just above and just below integers, at both ends of the denominator."""
    low, count = 1 << (width - 1), 60_000
    b = torch.cat([torch.tensor([low, 2 * low - 1]), low + integers(count, width - 1) % low])[
        torch.arange(count) % 3000
    ]
    b = torch.maximum(b, torch.tensor(low))
    target = integers(count, fraction_bits + 1, seed=1)
    a = (target * b >> fraction_bits) + torch.arange(count) % 3 - 1
    a = torch.cat([a, integers(count, width, seed=2)]).clamp(0, 2 * low - 1)
    b = torch.cat([b, b])
    for part in (a, b):
        part[: len(edges(width))] = torch.tensor(edges(width)).clamp(low if part is b else 0)
    a32, b32 = a.int().to(DEVICE), b.int().to(DEVICE)
    row, each = torch.empty_like(a32), torch.empty_like(a32)
    _launch(_quotients, a32, b32, row, each, K=fraction_bits)
    assert torch.equal(row.cpu().long(), (a << fraction_bits) // b)
    fits = a <= 2 * b - 1  # quotient_each: its denominator, 2b - 1 here, is no smaller than the numerators' bound
    assert torch.equal(each.cpu().long()[fits], ((a << fraction_bits) // (2 * b - 1))[fits])


def test_quotients_are_found_from_a_neighbour() -> None:
    """What division a GPU has does not matter, as long as it is off by one at most."""
    count = 30_000
    a, b = integers(count, 24), (1 << 23) + integers(count, 23, seed=1)
    exact = (a << 21) // b
    estimate = exact + torch.arange(count) % 3 - 1
    output = torch.empty(count, dtype=torch.int32, device=DEVICE)
    _launch(_from_neighbours, *(x.int().to(DEVICE) for x in (a, b, estimate)), output, K=21)
    assert torch.equal(output.cpu().long(), exact)


def test_lengths_and_roots() -> None:
    x = integers(8000, 62)
    squares = integers(4000, 31, seed=3) ** 2
    x = torch.cat([x, squares, (squares - 1).clamp(min=0), squares + 1]).clamp(max=(1 << 62) - 1)
    at = x.to(DEVICE)
    length, roots = torch.empty_like(at, dtype=torch.int32), torch.empty_like(at)
    _launch(_scalars, at, length, roots)
    assert torch.equal(length.long(), closed_bit_length(at))
    assert roots.tolist() == [math.isqrt(value) for value in x.tolist()]


def test_roundings_are_half_to_even() -> None:
    ties = torch.arange(-4000, 4000) + 0.5
    large = torch.tensor([float(value) for value in edges(30)]) * torch.tensor([[1.0], [-1.0], [0.5], [-0.5]])
    x = torch.cat([ties, ties * 2**9, ties.nextafter(torch.tensor(0.0)), large.flatten(), seeded(5000) * 1e4]).to(
        DEVICE
    )
    wide, small = torch.empty_like(x, dtype=torch.int32), torch.empty_like(x, dtype=torch.int32)
    _launch(_roundings, x, wide, small)
    assert torch.equal(wide, x.round().int())
    assert torch.equal(small, x.clamp(-(2**22), 2**22).round().int())


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("dtype", DTYPES)
def test_conversions_are_torchs(dtype: torch.dtype) -> None:
    bits = torch.randint(-(1 << 31), 1 << 31, (40_000,), generator=torch.Generator().manual_seed(0)).int()
    x = torch.cat([bits.view(torch.float32), seeded(20_000), seeded(20_000) * 1e-6])
    x = x[x.isfinite()].to(DEVICE)
    y, z = torch.empty_like(x, dtype=dtype), torch.empty_like(x)
    _launch(_conversions, x, y, z)
    assert torch.equal(y, x.to(dtype))
    assert torch.equal(z, x.to(dtype).float())
