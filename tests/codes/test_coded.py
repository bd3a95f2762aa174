"""A code carries its format: powers of two are exact, decoding loses nothing, and what is no real tensor is refused."""

from __future__ import annotations

import math

import pytest
import torch

from spikeplug import codes
from spikeplug.codes import Coded
from spikeplug.errors import SpikeplugError


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_power_of_two_is_exact(dtype: torch.dtype) -> None:
    last = 127 if dtype == torch.float32 else 1023
    exponents = torch.arange(-last + 1, last + 1, dtype=torch.int32)
    powers = codes.power_of_two(exponents, dtype).tolist()
    assert powers == [math.ldexp(1.0, int(e)) for e in exponents]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_scale_beyond_the_dtype_is_applied_in_halves(dtype: torch.dtype) -> None:
    """A result within range is not lost to a scale beyond it."""
    last = 127 if dtype == torch.float32 else 1023
    mantissa = torch.tensor([1, -3, 1 << 22])
    for exponent in (-last - 22, -last, 0, last - 22):
        expected = torch.tensor([math.ldexp(m, exponent) for m in mantissa.tolist()], dtype=dtype)
        assert torch.equal(codes.scaled(mantissa, torch.tensor(exponent), dtype), expected)
        assert torch.equal(codes.decode(codes.fixed(mantissa, -exponent, 23), dtype), expected)


def test_a_fixed_step_is_one_exponent_for_all() -> None:
    code = codes.fixed(torch.tensor([[5, -8]]), 3, 4)
    assert (code.exponent.shape, code.bits, code.granularity, code.nonfinite) == ((), 4, "fixed", None)
    assert codes.decode(code, torch.float32).tolist() == [[0.625, -1.0]]


def test_a_part_of_a_code_keeps_its_format() -> None:
    code = Coded(torch.arange(6).view(3, 2), torch.tensor([[1], [2], [3]]), 3, "vector", torch.zeros(3, 2).bool())
    part = code[1:]
    assert torch.equal(part.mantissa, code.mantissa[1:])
    assert part.exponent.tolist() == [[2], [3]]
    assert (part.bits, part.granularity, part.nonfinite) == (3, "vector", None)


def test_decoded_numbers_meet_the_next_layers_synapses() -> None:
    x, weight, bias = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]), torch.tensor(0.5)
    assert codes.affine(x) is x
    assert codes.affine(x, weight, bias).tolist() == [3.5, 8.5]
    assert codes.affine(x, None, bias).tolist() == [1.5, 2.5]


@pytest.mark.parametrize("bad", [torch.tensor([1]), torch.tensor([True]), [1.0], torch.tensor([1j])])
def test_as_real_refuses_what_is_no_real_tensor(bad: object) -> None:
    with pytest.raises(SpikeplugError, match="silu"):
        codes.as_real(bad, "silu")  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_widened(dtype: torch.dtype) -> None:
    assert codes.as_real(torch.ones(1, dtype=dtype), "silu").dtype == torch.float32
