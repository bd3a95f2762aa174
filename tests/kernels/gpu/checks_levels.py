"""Encoders on the GPU = encoders closed, as numbers and as bytes; rotations; attention that is given the bytes."""

from __future__ import annotations

import pytest
import torch
from gpu_kernel_cases import DEVICE, DTYPES, assert_equal, rows, seeded
from torch import Tensor

from spikeplug.hadamard import factors_of, hadamard
from spikeplug.kernels import closed_forms
from spikeplug.kernels.gpu import rotation
from spikeplug.library import OPERATORS

quantise, attention = OPERATORS["quantise"], OPERATORS["attention"]
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
#: With one, two and no Paley factors; above 128 in several products.
ORDERS = (2, 8, 12, 20, 28, 48, 64, 128, 144, 256, 576, 1536, 2048)


def check(*arguments: object, taken: bool = True) -> None:
    def closed() -> Tensor:
        with closed_forms():
            return quantise(*arguments)

    assert_equal(lambda: quantise(*arguments), closed, taken=taken)


@pytest.mark.parametrize("levels", [1, 2, 7, 16, 127, 128, 256, 500, 1 << 15])
def test_rows_of_every_kind(levels: int) -> None:
    for dtype in DTYPES:
        x = rows(dtype)
        for block in (0, 1, 16, 32, 128) if levels <= 500 else (0,):
            check(x, levels, block)
        if levels <= 127:
            check(x, levels, 0, 0, True)


@pytest.mark.parametrize("order", ORDERS)
def test_rotations(order: int) -> None:
    """Also of the largest numbers there are, with the signs of a row of the matrix: sums are as large as they get."""
    groups = -(-8 // order)
    extremes = (2 - 2.0**-23) * hadamard(order)[[0, order // 2, order - 1]].float().repeat(1, groups)
    x = torch.cat([rows(torch.float32, groups * order).cpu(), extremes, -extremes]).to(DEVICE)
    check(x, 127, 0, order, True)
    for part in (x, x.repeat(1, 3)[-9:].bfloat16()):
        check(part, 256, 32, order)


@pytest.mark.parametrize("order", [order for order in range(2, 600) if factors_of(order)])
def test_matrices_multiply_out_to_the_hadamard_matrix(order: int) -> None:
    product = torch.ones(1, 1)
    for matrix in rotation.matrices(order, torch.device("cpu")):
        product = torch.kron(product, matrix)
    assert torch.equal(product, hadamard(order).double())


def test_levels_at_and_beside_halves() -> None:
    """Magnitudes whose quotient by the step is a level and a half, to the last bit, either way."""
    for levels in (3, 127, 256, 1000):
        halves = (torch.arange(levels) + 0.5) / levels
        steps = torch.tensor([-1, 0, 1])[:, None, None]
        x = (halves.view(torch.int32) + steps).view(torch.float32) * torch.tensor([[1.0], [-1.5], [1.7]])
        check(torch.cat([x, torch.ones(3, 3, 1) * torch.tensor([[1.0], [1.5], [1.7]])], -1).to(DEVICE), levels)


def test_shapes_and_strides() -> None:
    x = seeded(6, 5, 128).to(DEVICE)
    for part in (x[:, :, ::2], x.transpose(0, 1), x[:1].expand(4, 5, 128), x[0, 0], x[..., :1]):
        check(part, 127, 0, 0, True)
        check(part, 127, 32)
    check(x.double(), taken=False)
    check(x[:0], taken=False)


def test_attention_takes_keys_and_values_in_bytes() -> None:
    query, key, value = (seeded(2, heads, 9, 16, seed=heads).to(DEVICE) for heads in (4, 2, 2))
    value[0, 1, 3, 2] = torch.nan
    mask = torch.ones(9, 9, dtype=torch.bool, device=DEVICE).tril()
    key, value = quantise(key, 127, 0, 0, True), quantise(value, 127, 0, 0, True)
    for given in (query, query.bfloat16()):
        arguments = (given, key, value, mask, None, None, None)

        def closed(arguments: tuple[object, ...] = arguments) -> Tensor:
            with closed_forms():
                return attention(*arguments)

        assert_equal(lambda arguments=arguments: attention(*arguments), closed)
