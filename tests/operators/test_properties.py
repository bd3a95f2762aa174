"""What holds for every operator but attention: the answer depends on no block, batch or layout, and bad input is one
sentence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from operators.inputs import PAPER, ROWS, both
from torch import Tensor

from spikeplug.errors import SpikeplugError
from spikeplug.library import OPERATORS
from spikeplug.numerics import Numerics
from spikeplug.operators import RECORDS

RECORDED = [name for name, record in RECORDS.items() if record.family != "attention"]
each = pytest.mark.parametrize("name", RECORDED)


def given(name: str, x: Tensor) -> tuple[object, ...]:
    """Return the operator's arguments with x as the first; what it is divided by is 1 + x²."""
    record = RECORDS[name]
    return (x, x.square() + 1)[: len(record.inputs)] + record.settings


def call(name: str, numerics: Numerics) -> Callable[[Tensor], Tensor]:
    """Return the operator as a function of x."""
    return lambda x: OPERATORS[name](*given(name, x), numerics=numerics)


def numbers(name: str, *shape: int) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))) * 3
    return x.abs() + 0.1 if RECORDS[name].inputs[0] == "positive" else x


@both
@each
@pytest.mark.parametrize(
    "shape",
    [(), (1,), (0,), (5,), (1, 1), (0, 4), (4, 0), (2, 0, 3), (123, 5), (2, 3, 4, 7), (5, 123), (1, 577)],
    ids=str,
)
def test_shape_and_dtype(name: str, shape: tuple[int, ...], numerics: Numerics) -> None:
    x, run = numbers(name, *shape), call(name, numerics)
    if shape == () and name in ("rms_norm", "layer_norm"):
        with pytest.raises(SpikeplugError, match="dimension"):
            run(x)
        return
    for dtype in (torch.float32, torch.float64):
        y = run(x.to(dtype))
        assert y.shape == RECORDS[name].exact(*given(name, x)).shape
        assert y.dtype == dtype


@both
@each
def test_rows_are_computed_by_themselves(name: str, numerics: Numerics) -> None:
    x, run = numbers(name, 14, 20), call(name, numerics)
    whole = run(x)
    assert torch.equal(torch.stack([run(row) for row in x]), whole)
    assert torch.equal(run(x.view(2, 7, 20)).flatten(0, 1), whole)
    if RECORDS[name].elementwise:
        assert torch.equal(run(x.flatten()).view(14, 20), whole)


@both
@each
def test_blocks_do_not_matter(name: str, numerics: Numerics, monkeypatch: pytest.MonkeyPatch) -> None:
    x, run = numbers(name, 37, 11), call(name, numerics)
    whole = run(x)
    for block in (1, 12, 50, 100):
        monkeypatch.setattr("spikeplug.operators.rows.BLOCK", block)
        assert torch.equal(run(x), whole)


@both
@each
def test_layout_does_not_matter(name: str, numerics: Numerics) -> None:
    x, run = numbers(name, 14, 20), call(name, numerics)
    whole = run(x)
    assert torch.equal(run(torch.empty(28, 60)[::2, ::3].copy_(x)), whole)
    assert torch.equal(run(x.t().contiguous().t()), whole)
    expanded = x[:1].expand(14, 20)
    assert torch.equal(run(expanded), run(expanded.clone()))


@both
@each
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_their_float32_results_rounded(name: str, dtype: torch.dtype, numerics: Numerics) -> None:
    x, record = numbers(name, 9, 33).to(dtype), RECORDS[name]
    inputs = (x, x.abs() + 1)[: len(record.inputs)]
    narrow = OPERATORS[name](*inputs, *record.settings, numerics=numerics)
    assert narrow.dtype == dtype
    assert torch.equal(
        narrow, OPERATORS[name](*(part.float() for part in inputs), *record.settings, numerics=numerics).to(dtype)
    )


@both
@each
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_never_nan_where_the_exact_operator_is_not(name: str, row: list[float], numerics: Numerics) -> None:
    x = torch.tensor([row, [0.5, -1.0, 2.0]])
    # float64: torch's float32 erf GELU is NaN at +inf.
    exact, spiking = RECORDS[name].exact(*given(name, x.double())), call(name, numerics)(x)
    assert not bool((spiking.isnan() & ~exact.isnan()).any())
    assert torch.equal(spiking[1].isfinite(), exact[1].isfinite()), "the healthy row beside it is unharmed"


@pytest.mark.parametrize(
    "bad", [torch.tensor([1, 2]), torch.tensor([True]), [1.0, 2.0], None, torch.tensor([1j]), 1.0], ids=str
)
@each
def test_what_is_no_real_tensor(name: str, bad: object) -> None:
    record = RECORDS[name]
    others = (torch.ones(2),) * (len(record.inputs) - 1)
    with pytest.raises(SpikeplugError, match=f"{name} takes a") as caught:
        OPERATORS[name](bad, *others, *record.settings)
    assert "\n" not in str(caught.value)


@each
def test_numerics_that_are_none(name: str) -> None:
    for bad, words in (("nothing-here", "unknown preset 'nothing-here'"), (3, "numerics is a int"), ({}, "is a dict")):
        with pytest.raises(SpikeplugError, match=words) as caught:
            call(name, bad)(torch.ones(2))  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)


@each
def test_a_permuted_vector_gives_a_permuted_result(name: str) -> None:
    x, order = numbers(name, 6, 50), torch.randperm(50, generator=torch.Generator().manual_seed(0))
    for numerics in (Numerics(), dataclasses.replace(PAPER, norm="root")):  # a tree of merges sums in its own order
        whole, permuted = call(name, numerics)(x), call(name, numerics)(x[:, order])
        assert torch.equal(permuted, whole if name == "vector_norm" else whole[:, order])


@both
@each
def test_autocast_changes_nothing(name: str, numerics: Numerics) -> None:
    x, run = numbers(name, 4, 12), call(name, numerics)
    plain = run(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(run(x), plain)
