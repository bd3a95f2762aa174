"""Vectors in bytes: the numbers that were packed, bit for bit, wherever their rows go."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import spikeplug
from spikeplug import Numerics
from spikeplug.codes import MOST_PACKED, STEP_BYTES, is_packed, levels_of, unpacked
from spikeplug.kernels import closed_forms
from spikeplug.library import OPERATORS


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Return whether two float32 tensors have the same numbers, NaN where the other has NaN."""
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    width=st.integers(1, 70),
    levels=st.integers(1, MOST_PACKED),
    scale=st.integers(-149, 126),
    rotated=st.booleans(),
    spoilt=st.sampled_from([None, float("nan"), float("inf")]),
    seed=st.integers(0, 1 << 30),
)
def test_packed_numbers_are_those_that_were_packed(
    width: int, levels: int, scale: int, rotated: bool, spoilt: float | None, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    width, rotation = (64, 64) if rotated else (width, 0)
    x = torch.randn(3, 2, width, generator=generator) * 2.0**scale
    x[0, 0] = 0
    if spoilt is not None:
        x[1, 1, width // 2] = spoilt
    encode = OPERATORS["quantise"]
    numbers, packed = encode(x, levels, 0, rotation, False), encode(x, levels, 0, rotation, True)
    assert is_packed(packed)
    assert packed.shape == (3, 2, width + STEP_BYTES)
    assert same(unpacked(packed, torch.float32), numbers)
    assert int(levels_of(packed).to(torch.int32).abs().amax()) <= levels
    moved, expected = (torch.cat([x[1:], x[:1]]).transpose(0, 1).repeat(1, 2, 1) for x in (packed, numbers))
    assert same(unpacked(moved, torch.float32), expected)
    with closed_forms():
        assert torch.equal(encode(x, levels, 0, rotation, True), packed)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    channels=st.integers(1, 40),
    width=st.integers(1, 40),
    keys=st.integers(1, 40),
    queries=st.integers(1, 9),
    scale=st.integers(-140, 40),
    seed=st.integers(0, 1 << 30),
)
def test_attention_gives_the_same_bits_on_packed_keys_and_values(
    channels: int, width: int, keys: int, queries: int, scale: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(2, 4, queries, channels, generator=generator)
    key = torch.randn(2, 2, keys, channels, generator=generator) * 2.0**scale
    value = torch.randn(2, 2, keys, width, generator=generator) * 2.0**scale
    encode, attend = OPERATORS["quantise"], OPERATORS["attention"]
    numbers, packed = ([encode(x, 127, 0, 0, inside) for x in (key, value)] for inside in (False, True))
    expected = attend(query, *numbers, None, None, None, None)
    assert same(attend(query, *packed, None, None, None, None), expected)
    moved = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in packed]  # other strides
    assert same(attend(query, *moved, None, None, None, None), expected)
    with closed_forms():
        assert same(attend(query, *packed, None, None, None, None), expected)
    weights = OPERATORS["attention_weights"]
    how = (None, None, None, None)
    assert same(weights(query, packed[0], *how), weights(query, numbers[0], *how))


def test_a_value_without_a_code_is_nan_for_the_rows_that_see_it() -> None:
    value = torch.randn(1, 1, 5, 8)
    value[0, 0, 4, 3] = float("inf")
    packed = OPERATORS["quantise"](value, 127, 0, 0, True)
    visible = torch.ones(5, 5, dtype=torch.bool).tril()
    output = OPERATORS["attention"](value[..., :4, :], packed, packed, visible[1:], None, None, None)
    assert not output[..., :3, :].isnan().any()
    assert output[..., 3, :].isnan().all()


@pytest.mark.parametrize(("levels", "block"), [(128, 0), (127, 4)])
def test_what_bytes_do_not_hold_is_refused(levels: int, block: int) -> None:
    with pytest.raises(spikeplug.SpikeplugError, match="bytes hold up to 127 levels of one step per vector"):
        OPERATORS["quantise"](torch.ones(2, 8), levels, block, 0, True, numerics=Numerics())
