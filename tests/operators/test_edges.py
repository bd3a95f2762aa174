"""Inputs at the edge of a number format: within half a code step of the largest float, and numerics of few bits."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import suppress

import pytest
import torch
from torch import Tensor

from spikeplug import codes, functional
from spikeplug.codes.vectors import BEYOND_RANGE
from spikeplug.errors import SpikeplugError
from spikeplug.evidence.distributions import gaussian
from spikeplug.evidence.subjects import Subject
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.operators import RECORDS, Operator
from spikeplug.saturation import counting

NARROW = Numerics(bits=8, input_bits=7, query_key_bits=None)
#: The largest code of 7 bits below 2^128, and below 2^1024.
LARGEST = {torch.float32: 127 * 2.0**121, torch.bfloat16: 127 * 2.0**121, torch.float64: 127 * 2.0**1017}
each_dtype = pytest.mark.parametrize("dtype", LARGEST, ids=str)


def edge(dtype: torch.dtype) -> Tensor:
    """Return vectors with numbers that lie nearer to 2^128 (2^1024) than to the largest code, of both signs."""
    most = torch.finfo(dtype).max
    return torch.tensor([[most, 1.0, -most, most / 2], [-most, most, 2.0, most]], dtype=dtype)


@pytest.mark.parametrize("bits", range(5, 21))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_largest_code_is_the_largest_finite_one(bits: int, dtype: torch.dtype) -> None:
    top = 2.0 ** (127 if dtype == torch.float32 else 1023)
    most = torch.finfo(dtype).max
    step = top * 2.0 ** (1 - bits)
    largest = top + (top - step)
    x = torch.tensor([[most, -most, largest, largest - step, step, 0.0, math.inf, -math.inf, math.nan]], dtype=dtype)
    expected = [largest, -largest, largest, largest - step, step, 0.0, math.inf, -math.inf, math.nan]
    with counting() as counts:
        received = codes.as_received(x, bits)
    assert torch.equal(
        received.nan_to_num(1.0, 2.0, 3.0), torch.tensor([expected], dtype=dtype).nan_to_num(1.0, 2.0, 3.0)
    )
    assert counts == {BEYOND_RANGE: 2}
    # Below, a carry to the next power of two stays.
    assert codes.as_received(x.new_tensor([[most / 2]]), bits).item() == top


def test_an_element_of_a_last_block_that_is_not_full_counts_once() -> None:
    most = torch.finfo(torch.float32).max
    numerics = Numerics(bits=8, input_bits=8, query_key_bits=None, scale_block=4)
    with counting() as counts:
        codes.as_input(torch.tensor([[0.0, 0.0, 0.0, most, 1.0, most]]), numerics)
    assert counts == {BEYOND_RANGE: 2}


@each_dtype
def test_operators_of_the_largest_numbers(dtype: torch.dtype) -> None:
    """The result is that of the largest code, exactly: 0, NaN and -14.56 it was."""
    x = edge(dtype)
    largest = LARGEST[dtype]
    as_code = torch.where(x.double().abs() > largest, x.double().sign() * largest, x.double())
    for name in ("sqrt", "rsqrt", "log", "reciprocal", "silu", "gelu", "mish", "softplus", "tanh", "sigmoid"):
        function = getattr(functional, name)
        given, code = (x.abs(), as_code.abs()) if name in ("sqrt", "rsqrt", "log") else (x, as_code)
        with counting() as counts:
            result = function(given, numerics=NARROW)
        assert counts[BEYOND_RANGE] > 0
        assert "input: not finite" not in counts
        assert torch.equal(
            result, function(code.to(dtype) if dtype != torch.bfloat16 else code.float(), numerics=NARROW).to(dtype)
        ), name
        assert torch.equal(result, function(given, numerics=NARROW, events=Events()))
        assert result.isfinite().all()
    assert torch.equal(functional.divide(x, x, numerics=NARROW), torch.ones_like(x))
    assert torch.equal(functional.square(x[0, :1], numerics=NARROW), x.new_tensor([math.inf]))


@pytest.mark.parametrize(("function", "expected"), [("sqrt", 1.8374686e19), ("log", 88.7189), ("rsqrt", 5.4422e-20)])
def test_figures_in_the_preset_narrow(function: str, expected: float) -> None:
    result = getattr(functional, function)(torch.tensor([3.4e38]), numerics="narrow")
    assert result.item() == pytest.approx(expected, rel=2**-8)


@each_dtype
def test_norms_of_the_largest_numbers(dtype: torch.dtype) -> None:
    x = edge(dtype)
    scaled = x * 2.0**-20  # the same codes, but for the saturation
    for function in (functional.rms_norm, functional.layer_norm):
        result = function(x, numerics=NARROW)
        assert result.isfinite().all()
        assert bool(((result - function(scaled, numerics=NARROW)).abs() <= 2.0**-5).all())


@each_dtype
def test_values_of_attention(dtype: torch.dtype) -> None:
    value = edge(dtype)[None, None]
    query = torch.zeros(1, 1, 1, 4, dtype=dtype)
    with counting() as counts:
        result = functional.attention(query, torch.zeros_like(value), value[:, :, :1].expand_as(value), numerics=NARROW)
    assert result.isfinite().all()
    assert counts == {BEYOND_RANGE: 4}
    assert bool((result.double() / value[0, 0, 0].double() - 1).abs()[..., [0, 2, 3]].max() < 2.0**-6)


CHOICES: dict[str, list[object]] = {
    "bits": [2, 3, 5, 8, 16, 20],
    "input_bits": [None, None, 5, 8, 16],
    "working_bits": [3, 4, 7, 10, 16, 22, 24],
    "scale_block": [None, None, 1, 4],
    "fraction_bits": [4, 6, 12, 16],
    "query_key_bits": [None, 8, 20],
    "divide_last": [True, False],
    "shift_scaling": [True, True, False],
    "exponential": ["shift", "piecewise"],
    "segments": [1, 2, 4, 16, 64, 256],
    "half_range": [0.5, 5.0, 16.0],
    "softmax_half_range": [0.5, 10.0, 16.0],
    "norm": ["root", "cordic"],
    "iterations": [1, 2, 8, 24],
}


def valid_numerics(count: int) -> Iterator[Numerics]:
    """Yield numerics of every width, few bits above all, that are in the domain."""
    generator = random.Random(1)
    while count:
        with suppress(SpikeplugError):
            yield Numerics(**{name: generator.choice(values) for name, values in CHOICES.items()})  # type: ignore[arg-type]
            count -= 1


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_a_bound_is_never_negative_and_never_nan(record: Operator) -> None:
    for seed, numerics in enumerate(valid_numerics(200)):
        bound = record.bound(*Subject(record).inputs(gaussian(seed), 3, 9), numerics=numerics)
        assert bool((bound >= 0).all()), numerics
