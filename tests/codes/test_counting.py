"""Spikes are counted as if they were sent, one step after the other."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any

import pytest
import torch
from adversarial import edges, integers
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from spikeplug import codes
from spikeplug.codes.counting import ones, spikes_of, steps_of_any, steps_of_any_count, steps_of_any_in, time_steps

SCHEDULES = ["bits", "signed_digits", "count", "rate"]


def sent(x: Tensor, bits: int, schedule: Any) -> tuple[int, int, int]:
    """Return the steps of a schedule, all spikes, and the steps in which a row sends, summed over the rows."""
    steps = [spikes.abs() for spikes, _ in codes.scheduled(x, bits, schedule)]
    return len(steps), sum(int(s.sum()) for s in steps), sum(int((s.sum(-1) > 0).sum()) for s in steps)


@pytest.mark.parametrize(("bits", "dtype"), [(62, torch.int64), (31, torch.int32)])
def test_the_spikes_of_a_phase_code_are_counted(bits: int, dtype: torch.dtype) -> None:
    values = torch.tensor([*edges(bits), *integers(3000, bits).tolist()], dtype=dtype)
    assert ones(values) == ones(-values) == sum(value.bit_count() for value in values.tolist())
    rows = values[:3000].view(100, 30)
    either = [reduce(or_, row) for row in rows.tolist()]
    assert steps_of_any(rows) == steps_of_any(-rows) == sum(value.bit_count() for value in either)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("bits", [1, 4, 7, 8])
def test_every_level_and_every_pair_of_levels(schedule: Any, bits: int) -> None:
    """Of 4 bits, all pairs; of more, all values beside some."""
    values = torch.arange(1 - (1 << bits), 1 << bits)
    others = values if bits <= 4 else values[:: (1 << bits) // 5]
    for x in (values.unsqueeze(-1), torch.cartesian_prod(values, others)):
        steps, spikes, active = sent(x, bits, schedule)
        assert time_steps(bits, schedule) == steps
        assert (spikes_of(x, schedule), steps_of_any_in(x, bits, schedule)) == (spikes, active)


@given(st.integers(1, 9), st.integers(0, 6), st.data())
def test_counts_of_any_size_over_any_steps(steps: int, few: int, data: st.DataObject) -> None:
    row = st.lists(st.integers(0, 3 * steps) | st.just(0), min_size=few, max_size=few)
    values = torch.tensor(data.draw(st.lists(row, min_size=0, max_size=4)), dtype=torch.int64)
    values = values.view(len(values), few)
    by_step = codes.count_code(values, steps, 3)
    assert steps_of_any_count(values, steps) == int((by_step.sum(-1) > 0).sum())


def test_many_counts_over_many_steps() -> None:
    values = integers(400 * 50, 11).view(400, 50) % 1024
    assert steps_of_any_count(values, 1024) == sent(values, 10, "rate")[2]
