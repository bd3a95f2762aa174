"""Contract: relays by accumulators equal +, ·, where, |x|, shifts, halving and clamping, on every small input."""

from __future__ import annotations

import pytest
import torch
from adversarial import all_pairs
from primitives.cases import WIDEST, scope, signed

from spikeplug.primitives import relay
from spikeplug.primitives.relay import simulate

ALL = torch.arange(-255, 256)  # 8 bits and a sign
A, B = (x - 63 for x in all_pairs(7))  # every pair of 6 bits and a sign
FIT = (A.abs() < 64) & (B.abs() < 64)
A, B = A[FIT], B[FIT]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_sums_of_all_pairs(dtype: torch.dtype) -> None:
    assert torch.equal(simulate.add(A.to(dtype), B.to(dtype), 6, scope()), (A + B).to(dtype))
    for constant in (-63, -1, 0, 1, 63):
        assert torch.equal(simulate.add(A.to(dtype), constant, 6, scope()), (A + constant).to(dtype))


def test_selections_of_all_pairs() -> None:
    for condition in (A > B, A > 0, torch.ones_like(A, dtype=torch.bool), torch.zeros_like(A, dtype=torch.bool)):
        assert torch.equal(simulate.select(condition, A, B, 6, scope()), torch.where(condition, A, B))
        assert torch.equal(simulate.select(condition, A, -7, 6, scope()), torch.where(condition, A, -7))
        assert torch.equal(simulate.select(condition, 9, B, 6, scope()), torch.where(condition, 9, B))
        assert torch.equal(simulate.select(condition, 9, -7, 6, scope()), torch.where(condition, 9, -7))


def test_signs_of_all_pairs() -> None:
    """Of a magnitude, and of a number that has a sign already, which the other's turns."""
    for magnitude in (A.abs(), A):
        expected = torch.where(B < 0, -magnitude, magnitude)
        assert torch.equal(relay.signed(magnitude, B), expected)
        assert torch.equal(simulate.signed(magnitude, B, 6, scope()), expected)


@pytest.mark.parametrize("factor", [0, 1, -1, 2, 181, -255, (1 << 40) + 1])
def test_constant_factors_of_all_8_bit_inputs(factor: int) -> None:
    for x in (ALL, ALL.to(torch.int32)):
        assert torch.equal(simulate.scale(x, factor, 8, scope()), ALL * factor)


def test_magnitudes_and_halves_of_all_8_bit_inputs() -> None:
    for x in (ALL, ALL.to(torch.int32)):
        assert torch.equal(simulate.magnitude(x, 8, scope()), x.abs())
        halves = torch.tensor([(value + 1) // 2 for value in ALL.tolist()], dtype=x.dtype)
        assert torch.equal(simulate.round_half(x, 8, scope()), halves)


@pytest.mark.parametrize("left", [0, 1, 9])
def test_shifts_of_all_8_bit_inputs_by_all_places(left: int) -> None:
    x, places = torch.arange(256), torch.arange(-20, left + 1)
    x, places = (part.flatten() for part in torch.meshgrid(x, places, indexing="ij"))
    expected = [v << p if p >= 0 else v >> -p for v, p in zip(x.tolist(), places.tolist(), strict=True)]
    for dtype in (torch.int32, torch.int64):
        found = simulate.shift(x.to(dtype), places, 8, left, scope())
        assert torch.equal(found, torch.tensor(expected, dtype=dtype))
        assert torch.equal(relay.shift(x.to(dtype), places), found)


def test_clamps_of_all_8_bit_inputs() -> None:
    for low, high in ((None, 0), (0, None), (-3, 100), (-255, 255), (7, 7), (1, None)):
        for x in (ALL, ALL.to(torch.int32)):
            assert torch.equal(simulate.clamp(x, low, high, 8, scope()), x.clamp(low, high))


def test_the_widest_sums() -> None:
    most = torch.tensor([(1 << WIDEST) - 1, -(1 << WIDEST) + 1])
    assert torch.equal(simulate.add(most, most, WIDEST, scope()), 2 * most)
    x = signed(3000, WIDEST)
    assert torch.equal(simulate.add(x, x.flip(0), WIDEST, scope()), x + x.flip(0))
    # Beside the width at which 32 bits no longer hold the sum.
    for bits in (29, 30, 31):
        y = signed(3000, bits).to(torch.int32) >> 1
        assert torch.equal(simulate.add(y, y.flip(0), bits, scope()), y + y.flip(0))
        assert torch.equal(simulate.add(y.long(), y.flip(0), bits, scope()), y.long() + y.flip(0))
