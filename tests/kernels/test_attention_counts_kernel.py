"""A mask of counts in attention's kernel: the bits of the bool mask it means, and no memory for one."""

from __future__ import annotations

import pytest
import torch
from kernels.cases import by_kernel, closed_form, same_bits
from operators.attention.test_attention_counts import COUNTS, KEYS, inputs

from spikeplug import functional
from spikeplug.kernels.cpu.attention import staircase
from spikeplug.operators.attention.call import visible_keys


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_the_bool_mask_they_stand_for(name: str) -> None:
    counts, mask = COUNTS[name], visible_keys(COUNTS[name], KEYS)
    for dtype in (torch.float32, torch.bfloat16):
        given = inputs(dtype=dtype)
        expected = closed_form("attention", (*given, mask, None, None, None))
        assert torch.equal(functional.attention(*given, mask), expected)
        assert torch.equal(functional.attention(*given, counts), expected)


@pytest.mark.parametrize("name", ["causal", "causal after a cache", "falling"])
def test_the_kernel_takes_counts(name: str) -> None:
    given = (*inputs(), COUNTS[name], None, None, None)
    assert same_bits(by_kernel("attention", given), closed_form("attention", given))


def test_a_long_causal_prefill_needs_no_memory_for_its_mask() -> None:
    """Each row's bytes begin in one string of them."""
    found = staircase(torch.arange(1, 1001).view(1, 1, 1000, 1), 1000, 1000)
    assert found is not None
    assert found[0].untyped_storage().nbytes() == 1999
    assert found[1:] == (0, 0, -1)
