"""The ledger counts the same with kernels as with closed forms, also where a kernel leaves rows to the closed form."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from spikeplug import functional, kernels
from spikeplug.saturation import counting

#: The largest score that stays finite in octaves, and its neighbours in float32 and bfloat16.
LIMIT = torch.finfo(torch.float32).max / math.log2(math.e)
HUGE = [LIMIT, float(torch.tensor(LIMIT).bfloat16()), 2.37e38, 3e38, 1e300, math.inf, math.nan]


def agree(run: Callable[[], Tensor]) -> dict[str, int]:
    """Return the counts, after checking that outputs and counts are those of the closed form."""
    with counting() as counts:
        output = run()
    with kernels.closed_forms(), counting() as expected:
        closed = run()
    assert torch.equal(output.nan_to_num(7.0, 8.0, 9.0), closed.nan_to_num(7.0, 8.0, 9.0))
    assert counts.to_dict() == expected.to_dict()
    return counts.to_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("huge", [*HUGE, *(-x for x in HUGE)])
@pytest.mark.parametrize("left", [False, True], ids=["all rows", "rows left"])
def test_huge_biases_and_sinks(dtype: torch.dtype, huge: float, left: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, heads, 5, 8, generator=generator) for heads in (4, 2, 2))
    number = torch.tensor(huge, dtype=torch.float64).to(dtype)
    bias, sinks = torch.zeros(2, 1, 5, 5, dtype=dtype), torch.zeros(4, dtype=dtype)
    bias[1, 0, 2, 3] = sinks[1] = number
    if left:  # rows that the kernel leaves to the closed form
        value[0, 0, 1, 1], query[0, 1, 2], key[0] = math.nan, 1e30, 1e8
    for mask, sink in ((bias, None), (None, sinks), (bias, sinks)):
        agree(lambda mask=mask, sink=sink: functional.attention(query, key, value, mask, sinks=sink))  # type: ignore[misc]
        agree(lambda mask=mask, sink=sink: functional.attention_weights(query, key, mask, sinks=sink))  # type: ignore[misc]


def test_a_huge_sink_is_counted_once() -> None:
    query = torch.ones(1, 2, 3, 8)
    value = query.clone()
    value[0, 0, 1, 1] = math.nan
    event = "attention: bias or sink beyond its dtype"
    assert agree(lambda: functional.attention(query, query, value, sinks=torch.tensor([3e38, 0.0])))[event] == 1


@pytest.mark.parametrize("name", "softmax log_softmax silu gelu sigmoid tanh rms_norm layer_norm cos sin".split())  # noqa: SIM905
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_rows_that_are_not_finite(name: str, dtype: torch.dtype) -> None:
    x = torch.linspace(-9, 9, 6 * 40).view(6, 40)
    x[0, 3], x[1, 4], x[2, 5], x[3], x[4, 0] = math.nan, math.inf, -math.inf, -math.inf, 3e38
    for given in (x, x[:1], x[4:], x.view(3, 2, 40).transpose(0, 1)):
        agree(lambda given=given: getattr(functional, name)(given.to(dtype)))  # type: ignore[misc]
