"""Packing is lossless for whatever rounding makes, takes the bytes that it says, and refuses other integers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spikeplug.errors import SpikeplugError
from spikeplug.weights import Hessian, gptq, rounded
from spikeplug.weights.packing import pack, packed_width, unpack
from spikeplug.weights.rounding import MOST_FACTOR, NIBBLE

NUMBERS = torch.arange(NIBBLE[0], NIBBLE[1] + 1)
FACTORS = torch.tensor([factor for factor in range(-MOST_FACTOR, MOST_FACTOR + 1) if factor])


def products(rows: int, columns: int, group: int, seed: int) -> Tensor:
    """Return numbers of 4 bits times a factor per group, int8."""
    generator = torch.Generator().manual_seed(seed)
    number = NUMBERS[torch.randint(16, (rows, columns), generator=generator)]
    factor = FACTORS[torch.randint(16, (rows, -(-columns // group)), generator=generator)]
    return (number * factor.repeat_interleave(group, 1)[:, :columns]).to(torch.int8)


def test_every_number_times_every_factor_is_packed_and_unpacked() -> None:
    """A row per factor and per pair of numbers: both halves of a byte hold all that they can."""
    pairs = torch.cartesian_prod(NUMBERS, NUMBERS)
    mantissa = torch.cat([pairs * factor for factor in FACTORS]).to(torch.int8)
    assert torch.equal(unpack(pack(mantissa, 2), 2, 2), mantissa)


def test_every_byte_stands_for_numbers_and_factors() -> None:
    numbers, factors = torch.cartesian_prod(torch.arange(256), torch.arange(256)).to(torch.uint8).split(1, 1)
    found = unpack(torch.cat([numbers, numbers, factors], 1), 4, 2)
    assert found.dtype == torch.int8
    assert int(found.abs().max()) == -NIBBLE[0] * MOST_FACTOR
    assert torch.equal(unpack(pack(found, 2), 4, 2), found)  # it may be packed otherwise, but stands for the same


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 4), st.integers(0, 70), st.integers(1, 40), st.integers(0, 10**6))
def test_packing_is_lossless(rows: int, columns: int, group: int, seed: int) -> None:
    mantissa = products(rows, columns, group, seed)
    packed = pack(mantissa, group)
    assert (packed.dtype, packed.shape) == (torch.uint8, (rows, packed_width(columns, group)))
    assert torch.equal(unpack(packed, columns, group), mantissa)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 70), st.sampled_from([1, 3, 16, 32]), st.integers(-30, 30))
def test_whatever_is_rounded_in_groups_is_packed(seed: int, columns: int, group: int, exponent: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(4, columns, generator=generator, dtype=torch.float64) * 2.0**exponent
    weight[:, seed % columns] *= 100
    weight[seed % 4] = 0
    hessian = Hessian(columns)
    hessian.add(torch.randn(20, columns, generator=generator))
    for found in (rounded(weight, group=group), gptq(weight, hessian, group=group)):
        assert torch.equal(unpack(pack(found.mantissa, group), columns, group), found.mantissa)


def test_a_packed_weight_takes_half_a_byte_and_its_share_of_the_factors() -> None:
    assert 8 * packed_width(4096, 32) / 4096 == 4.125
    assert packed_width(33, 32) == 17 + 1
    assert packed_width(3, 1) == 2 + 2


@pytest.mark.parametrize("row", [[127, 1], [65, 0], [9, 1], [11, 22], [-64, 63], [9 * 7, 0]])
def test_other_integers_are_refused(row: list[int]) -> None:
    with pytest.raises(SpikeplugError, match="up is no longer made of int4 groups, so it cannot be packed"):
        pack(torch.tensor([[0, 0], row], dtype=torch.int8), 2, "up")
