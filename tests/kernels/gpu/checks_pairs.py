"""Sums and products on the GPU = the same closed."""

from __future__ import annotations

import math

import pytest
import torch
from gpu_kernel_cases import DEVICE, DTYPES, assert_equal, rows, seeded
from kernels.cases import BROADCAST, reals
from torch import Tensor

from spikeplug import Numerics, kernels
from spikeplug.kernels import Call, closed_forms
from spikeplug.kernels.gpu import pairs
from spikeplug.library import OPERATORS

add, multiply = OPERATORS["add"], OPERATORS["multiply"]
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
NUMERICS = (Numerics(), Numerics(bits=2, working_bits=3), Numerics(bits=20, working_bits=24))


def check(a: Tensor, b: Tensor, numerics: Numerics | None = None, *, taken: bool = True) -> None:
    for operator in (add, multiply):

        def run(operator: object = operator) -> Tensor:
            return operator(a, b, numerics=numerics)  # type: ignore[no-any-return, operator]

        def closed(operator: object = operator) -> Tensor:
            with closed_forms():
                return run(operator)

        assert_equal(run, closed, taken=taken)


@pytest.mark.parametrize("numerics", NUMERICS, ids=lambda numerics: f"{numerics.bits} bits")
def test_numbers_of_every_kind_with_each_other(numerics: Numerics) -> None:
    """Among them: powers of two and neighbours, halves, denormal numbers, infinities and NaN, both zeros."""
    kinds = torch.stack(list(reals(3, 41).values())).to(DEVICE)
    check(kinds, kinds[:, None].flip(0), numerics)
    huge = kinds * 2.0**96
    check(huge, kinds.flip(0), numerics)


@pytest.mark.parametrize("apart", [*range(-60, 61, 6), 23, 24, 25, 47, 48, 49])
def test_operands_octaves_apart(apart: int) -> None:
    """What is cut off of the smaller operand, and halves of the last bit."""
    a = seeded(3, 99).to(DEVICE)
    for b in (a.roll(1, -1), a.round(), torch.ones_like(a), -a):
        check(a, b * 2.0**apart)
        check(a.round() + 0.5, b * 2.0**apart)


def test_denormal_numbers_and_zeros() -> None:
    x = torch.arange(-20, 20, device=DEVICE) * 2.0**-149
    every = torch.cat([x, x * 2.0**16, x * 2.0**30, -x * 0])
    check(every, every[:, None])


def test_numbers_from_two_to_the_96_on_have_no_code() -> None:
    limit = torch.tensor(2.0**96)
    x = torch.stack([limit, limit.nextafter(limit * 0), -limit, limit * 3, limit * 0 + 1.1, limit * torch.inf])
    x = torch.cat([x, x[:1] * torch.nan]).to(DEVICE)
    check(x, x[:, None])


def test_every_nan_is_one_in_any_dtype() -> None:
    """Rounding must not carry a NaN whose bits are all ones, as the hardware makes them, beyond the NaNs."""
    odd = torch.tensor([0x7FFFFFFF, -1, 0x7F800001], dtype=torch.int32).view(torch.float32).to(DEVICE)
    for x in odd:
        for dtype in DTYPES:
            check(seeded(5).to(DEVICE, dtype), x)


@pytest.mark.parametrize(("a_shape", "b_shape"), BROADCAST, ids=str)
def test_shapes_and_dtypes(a_shape: tuple[int, ...], b_shape: tuple[int, ...]) -> None:
    a, b = seeded(*a_shape).to(DEVICE), seeded(*b_shape, seed=1).to(DEVICE)
    for first in DTYPES:
        check(a.to(first), b.to(first))
    check(a.bfloat16(), b)
    check(a, b.half())
    check(a.half(), b.bfloat16())


def test_strides() -> None:
    a, b = rows(torch.float32), rows(torch.float32).flip(0)
    for x, y in ((a[:, ::2], b[:, ::2]), (a.T, b.T), (a.T, a.T.contiguous()), (a[:1].expand(24, 96), b), (a[3], a[4])):
        check(x, y)


def test_axes() -> None:
    assert pairs.axes((2, 3, 5), (15, 5, 1), (15, 5, 1)) == [(30, 1, 1)]
    assert pairs.axes((2, 3, 5), (15, 5, 1), (0, 0, 1)) == [(6, 5, 0), (5, 1, 1)]
    assert pairs.axes((2, 1, 5), (5, 7, 1), (1, 9, 2)) == [(2, 5, 1), (5, 1, 2)]
    assert pairs.axes((1, 1), (3, 3), (3, 3)) == [(1, 0, 0)]
    shape = (2, 3, 4, 5)
    x, y = torch.arange(120).view(shape), torch.arange(24).view(4, 3, 2).permute(2, 1, 0)[..., None].expand(shape)
    found = pairs.axes(shape, x.stride(), y.stride())
    assert math.prod(size for size, _, _ in found) == 120
    for given, strides in ((x, [first for _, first, _ in found]), (y, [second for _, _, second in found])):
        again = torch.as_strided(given, [size for size, _, _ in found], strides)
        assert torch.equal(again.flatten(), given.flatten())


def test_what_the_kernel_does_not_take_is_explained() -> None:
    a = seeded(3, 4).to(DEVICE)
    for b, reason in (
        (a.double(), "kernels take float32, bfloat16 and float16, not float64"),
        (a > 0, "kernels take two tensors of floats"),
        (a[:, :3], "the shapes do not broadcast"),
    ):
        assert kernels.explain(Call("add", (a, b), Numerics())) == f"closed form: {reason}"
