"""Real encoding is within half an LSB, on every magnitude; codes for a product fit; blocks have scales of their own."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikeplug import codes
from spikeplug.saturation import saturations


@pytest.mark.parametrize("bits", [3, 16, 22, 24])
@pytest.mark.parametrize("magnitude", [1e-37, 1e-20, 1e-3, 1.0, 777.0, 1e30, 3.4e38])
def test_encoding_is_within_half_a_step(bits: int, magnitude: float) -> None:
    torch.manual_seed(bits)
    x = (torch.rand(50, 33, dtype=torch.float64) * 2 - 1).to(torch.float32) * magnitude
    x[0], x[1, 0], x[2] = 0.0, -magnitude, magnitude
    code = codes.encode(x, bits)
    mantissa, exponent = code.mantissa, code.exponent
    assert code.nonfinite is None
    assert (code.bits, code.granularity) == (bits - 1, "vector")
    assert mantissa.dtype == exponent.dtype == torch.int32
    assert int(mantissa.abs().max()) <= 1 << (bits - 1)
    error = (mantissa.double() * torch.exp2(exponent.double()) - x.double()).abs()
    assert bool((error <= 0.5 * torch.exp2(exponent.double())).all())
    assert torch.equal(codes.decode(code, torch.float64), mantissa.double() * torch.exp2(exponent.double()))
    used = mantissa.abs().amax(-1)[mantissa.any(-1)]
    if magnitude * 2.0 ** (127 - bits) > 1:
        assert int(used.min()) >= 1 << (bits - 2), "the largest element fills the width"


def test_denormals_code_as_zero_and_never_as_nan() -> None:
    x = torch.tensor([[1e-45, -1e-42, 0.0], [1e-40, 1.1e-38, 1e-45]])
    assert bool((codes.decode(codes.encode(x, 16), torch.float32) - x).abs().max() <= 2.0**-127)


def test_not_finite_elements_have_no_code_and_are_counted() -> None:
    x = torch.tensor([[math.inf, 1.0, -2.0], [math.nan, -math.inf, 0.5], [1.0, 2.0, 3.0]])
    code = codes.encode(x, 16)
    assert code.nonfinite is not None
    assert torch.equal(code.nonfinite, ~torch.isfinite(x))
    assert torch.equal(codes.decode(code, torch.float32), x.nan_to_num(0.0, 0.0, 0.0))
    assert saturations() == {"input: not finite": 3}


def test_floor_extends_the_vector() -> None:
    x = torch.tensor([[1e-6, 0.0]])
    assert codes.encode(x, 16, floor=1.0).exponent.item() == 1 - 15


@pytest.mark.parametrize("bits", [8, 12, 16, 20])
@pytest.mark.parametrize("channels", [1, 3, 64, 256, 1024])
def test_codes_for_a_product_fit_and_their_step_is_the_smallest_that_does(bits: int, channels: int) -> None:
    generator = torch.Generator().manual_seed(bits + channels)
    x = torch.randn(200, channels, generator=generator)
    x[::3] = 1.0
    x[1::3, 0] *= 500
    x[:8, 0] = 1 - 2.0**-20  # rounds up to a power of two
    x[100:104] *= 2.0**127 / x[100:104].abs().amax()
    x[104:108] *= 2.0**-140
    x[108] = 0
    code = codes.encode_for_product(x, bits)
    most, limit = (1 << (bits - 1)) - 1, 1 << (2 * bits - 1)
    wide, step = x.double(), torch.exp2(code.exponent.double())
    assert int(code.mantissa.abs().max()) <= most
    assert bool((code.mantissa.long().square().sum(-1) < limit).all())
    assert int((code.mantissa.double() @ code.mantissa.double().mT).abs().max()) < limit
    assert bool(((wide - code.mantissa * step).abs() <= step / 2).all())
    # Half the step would not do, unless it is the smallest there is.
    finer = (wide * 2 / step).round()
    beyond = (finer.abs().amax(-1) > most) | (finer.square().sum(-1) >= limit)
    first = codes.encode(x, bits).exponent[:, 0]
    assert bool((beyond | (code.exponent[:, 0] == first)).all())
    assert bool((code.exponent[:, 0] >= first).all())


@pytest.mark.parametrize("bits", [2, 8, 16])
def test_twos_complement_is_off_by_less_than_a_step_and_only_at_the_very_top(bits: int) -> None:
    x = 1 - torch.arange(1, 1 << 10) / (1 << 24)
    x = torch.stack([x, -x, x * 0.7]).T.reshape(-1, 1)
    plain, cut = codes.encode(x, bits), codes.encode(x, bits, twos_complement=True)
    most = (1 << (bits - 1)) - 1
    assert torch.equal(plain.exponent, cut.exponent)
    assert torch.equal(cut.mantissa, plain.mantissa.clamp(-most, most))
    assert int(plain.mantissa.max()) == most + 1
    error = (x.double() - cut.mantissa * torch.exp2(cut.exponent.double())).abs()
    assert bool((error < x.abs() * 2.0 ** (1 - bits)).all())


@given(st.integers(5, 20), st.integers(-60, 60), st.integers(0, 1000))
def test_an_input_is_rounded_to_the_nearest_code(bits: int, exponent: int, seed: int) -> None:
    x = torch.randn(3, 11, generator=torch.Generator().manual_seed(seed)) * 2.0**exponent
    y = codes.as_received(x, bits)
    step = torch.exp2(torch.frexp(x.abs().amax(-1, keepdim=True)).exponent.float() - bits)
    assert bool(((y / step) == (y / step).round()).all())
    assert bool(((y - x).abs() <= step / 2).all())
    assert bool(((y / step).abs() <= 2**bits).all())
    # Encoded again with at least two bits more, nothing is lost.
    code = codes.encode(y, bits + 2)
    assert torch.equal(code.mantissa * torch.exp2(code.exponent.float()), y)


def test_what_has_no_code_passes() -> None:
    x = torch.tensor([[1.0, math.inf, 0.3], [math.nan, -math.inf, -7.1], [0.0, 0.0, 0.0], [1e-45, 0.0, 0.0]])
    y = codes.as_received(x, 8)
    assert torch.equal(y.isnan(), x.isnan())
    assert torch.equal(y.isinf(), x.isinf())
    assert torch.equal(y[0], torch.tensor([1.0, math.inf, 38 / 128]))
    assert torch.equal(y[2:], torch.zeros(2, 3))
    assert codes.as_received(x, None) is x


def test_a_power_of_two_is_coded_exactly() -> None:
    x = torch.tensor([[0.0, 1.0, 2.0, 4.0]])
    assert torch.equal(codes.decode(codes.encode(x, 16), torch.float32), x)


def test_a_last_block_that_is_not_full_has_a_scale_of_its_own() -> None:
    x = torch.randn(3, 10) * torch.logspace(-6, 6, 10)
    code = codes.encode_blocks(x, 12, 4)
    assert (code.granularity, code.exponent.shape) == ("block", x.shape)
    for block in (slice(0, 4), slice(4, 8), slice(8, 10)):
        own = codes.encode(x[:, block], 12)
        assert torch.equal(code.mantissa[:, block], own.mantissa)
        assert torch.equal(code.exponent[:, block], own.exponent.expand(own.mantissa.shape))
    assert codes.encode_blocks(x, 12, None).granularity == codes.encode_blocks(x, 12, 10).granularity == "vector"
    largest = codes.largest_in_blocks(x, 4)
    assert torch.equal(largest[:, 8:], x[:, 8:].abs().amax(-1, keepdim=True).expand(3, 2))
