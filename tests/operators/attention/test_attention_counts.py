"""A mask of counts says how many keys, from the first on, a row may attend to: the bits of the bool mask it means."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from spikeplug import SpikeplugError, functional
from spikeplug.neurons import Events
from spikeplug.operators import RECORDS
from spikeplug.operators.attention.call import visible_keys

KEYS = 37
CAUSAL = torch.arange(1, 10).view(9, 1)
COUNTS = {
    "causal": CAUSAL,
    "causal after a cache": CAUSAL + KEYS - 9,
    "beyond the keys": CAUSAL + KEYS - 3,
    "one for all rows": torch.tensor([[5]]),
    "of each batch": torch.tensor([3, 20]).view(2, 1, 1, 1),
    "causal, of each batch": torch.stack([CAUSAL, CAUSAL + 7])[:, None],
    "of each head": torch.arange(4).view(1, 4, 1, 1) * 9,
    "falling": CAUSAL.flip(0) * 3,
    "none, and less than none": torch.tensor([0, -4, 1, 2, 3, 4, 5, 6, 7]).view(9, 1),
}


def inputs(queries: int = 9, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(5)
    shapes = ((2, 4, queries, 16), (2, 2, KEYS, 16), (2, 2, KEYS, 24))
    query, key, value = (torch.randn(shape, generator=g).to(dtype) for shape in shapes)
    return query, key, value


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_the_bool_mask_they_stand_for(name: str) -> None:
    counts = COUNTS[name]
    mask = visible_keys(counts, KEYS)
    assert torch.equal(mask, torch.arange(KEYS).expand(*counts.shape[:-1], KEYS) < counts)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        given = inputs(dtype=dtype)
        assert torch.equal(functional.attention(*given, counts), functional.attention(*given, mask))
    query, key, value = inputs()
    weights = functional.attention_weights(query, key, mask)
    assert torch.equal(functional.attention_weights(query, key, counts), weights)
    how: dict[str, Any] = {"sinks": torch.randn(4), "softcap": 3.0}
    assert torch.equal(
        functional.attention(query, key, value, counts, **how), functional.attention(query, key, value, mask, **how)
    )


def test_counts_in_simulation_and_in_gradients() -> None:
    query, key, value = (x[:1, :, :5].clone() for x in inputs())
    counts = torch.arange(1, 6).view(5, 1)
    mask = visible_keys(counts, 5)
    assert torch.equal(
        functional.attention(query, key, value, counts, events=Events()), functional.attention(query, key, value, mask)
    )
    gradients = []
    for each in (counts, mask):
        x = query.clone().requires_grad_()
        functional.attention(x, key, value, each).sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)
    assert torch.equal(
        RECORDS["attention"].exact(query, key, value, counts, None, None, None),
        RECORDS["attention"].exact(query, key, value, mask, None, None, None),
    )


@pytest.mark.parametrize(
    "mask",
    [torch.ones(9, KEYS, dtype=torch.int64), torch.ones(9, 1, dtype=torch.int32), torch.tensor(3)],
    ids=["of all columns", "int32", "a number"],
)
def test_other_integers_are_refused(mask: Tensor) -> None:
    with pytest.raises(SpikeplugError, match="how many keys each row may attend to"):
        functional.attention(*inputs(), mask)


@pytest.mark.parametrize("place", [1, 2], ids=["keys", "values"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_only_a_mask_may_be_of_integers_or_bools(place: int, dtype: torch.dtype) -> None:
    given = list(inputs())
    given[place] = given[place].to(dtype)
    with pytest.raises(SpikeplugError, match=f"attention takes a floating-point tensor, not {dtype}"):
        functional.attention(*given, CAUSAL)


def test_counts_of_other_rows_are_refused() -> None:
    with pytest.raises(SpikeplugError, match="does not broadcast"):
        functional.attention(*inputs(), CAUSAL[:4])
