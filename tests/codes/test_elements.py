"""Codes of single elements: a power of two each, a fixed step, or a phase; errors within half an LSB."""

from __future__ import annotations

import math

import pytest
import torch

from spikeplug import codes
from spikeplug.numerics import Numerics
from spikeplug.saturation import saturations


def test_every_element_fills_its_own_width() -> None:
    numerics = Numerics()
    x = torch.tensor([[1.0], [-3.0], [1e-45], [3.4e38], [0.0], [-1e-40]])
    code = codes.encode_elements(x, numerics)
    assert (code.bits, code.granularity, code.nonfinite) == (21, "element", None)
    size = code.mantissa.abs()
    assert bool(((size == 0) | ((size >= 1 << 20) & (size <= 1 << 21))).all())
    error = (code.mantissa.double() * torch.exp2(code.exponent.double()) - x.double()).abs()
    assert bool((error <= x.double().abs() * 2.0**-21).all()), "denormal numbers included"


def test_24_bits_hold_every_float32() -> None:
    g = torch.Generator().manual_seed(0)
    bits = torch.randint(-(1 << 31), 1 << 31, (100_000,), generator=g).to(torch.int32)
    ends = torch.tensor([0.0, -0.0, 1.0, 2**-149, -(2**-149), 2**-126, 2**-126 - 2**-149, 2**128 - 2**104])
    x = torch.cat([bits.view(torch.float32), bits[:10_000].bitwise_and((1 << 23) - 1).view(torch.float32), ends])
    x = x[torch.isfinite(x)]
    code = codes.encode_each(x, 24)
    assert torch.equal(torch.ldexp(code.mantissa.double(), code.exponent), x.double())
    assert bool(((code.mantissa.abs() >> 23) == (x != 0)).all())
    doubles = codes.encode_each(torch.tensor([1 - 2.0**-24, 1 - 2.0**-25, 2**-1074], dtype=torch.float64), 24)
    assert doubles.mantissa.tolist() == [(1 << 24) - 1, 1 << 24, 1 << 23], "rounding may carry"


def test_elements_without_a_code_are_counted() -> None:
    code = codes.encode_elements(torch.tensor([[math.nan], [math.inf], [2.0]]), Numerics())
    assert code.nonfinite is not None
    assert code.nonfinite.flatten().tolist() == [True, True, False]
    assert code.mantissa.flatten().tolist() == [0, 0, 1 << 20]
    assert saturations() == {"input: not finite": 2}


def test_a_fixed_step_is_rounded_and_saturates() -> None:
    x = torch.tensor([0.3, -0.3, 1e9, -1e9, math.inf])
    assert codes.encode_fixed(x, 4, -100, 99).tolist() == [5, -5, 99, -100, 99]


@pytest.mark.parametrize("shift_scaling", [True, False])
def test_an_amplitude_states_its_bits(shift_scaling: bool) -> None:
    numerics = Numerics(shift_scaling=shift_scaling, divide_last=False)
    x = torch.tensor([[0.3, -1023.9, 4.0]])
    code = codes.encode_amplitude(x, "test", numerics)
    assert int(code.mantissa.abs().max()) < 1 << code.bits
    assert code.granularity == ("vector" if shift_scaling else "fixed")
    error = (codes.decode(code, torch.float64) - x.double()).abs()
    assert bool((error <= torch.exp2(code.exponent.double()) / 2).all())
    codes.encode_amplitude(torch.tensor([[2000.0, 1.0]]), "test", numerics)
    assert saturations() == ({} if shift_scaling else {"test: input beyond 2^10": 1})


@pytest.mark.parametrize("exponential", ["shift", "piecewise"])
def test_distances_and_exponents_are_in_octaves_or_nats(exponential: str) -> None:
    numerics = Numerics(exponential=exponential, divide_last=False)  # type: ignore[arg-type]
    unit = math.log2(math.e) if exponential == "shift" else 1.0
    assert codes.natural_unit(numerics) == unit
    x = torch.tensor([-1.5, 0.0, 1.5])
    step = 1 << numerics.fraction_bits
    assert codes.encode_exponent(x, 2.0, numerics).tolist() == [round(value * 2 * unit * step) for value in x.tolist()]
    assert codes.encode_distance(x, 2.0, 12, numerics).tolist() == [round(3 * unit * step), 0, round(3 * unit * step)]
    assert codes.encode_exponent(x * 100, 1.0, numerics, 6).tolist() == [-6 * step, 0, 6 * step], "as it is, to a reach"
    assert int(codes.encode_distance(torch.tensor([1e30]), 1.0, 12, numerics)) >> 12 in (31, 1 << 10)


def test_phases_wrap() -> None:
    turns = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0, -0.25, 7.5])
    assert codes.encode_phase(turns * 2 * math.pi, 8).tolist() == [0, 64, 128, 192, 0, 192, 128]
