"""Spike codes are lossless; real encoding is within half an LSB, on every magnitude and dtype."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikeplug import coding
from spikeplug.errors import SpikeplugError
from spikeplug.saturation import saturations


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_count_code_is_lossless(steps: int, levels: int, data: st.DataObject) -> None:
    values = torch.tensor(data.draw(st.lists(st.integers(0, steps * levels), min_size=1, max_size=5)))
    spikes = coding.count_code(values, steps, levels)
    assert spikes.shape == (steps, len(values))
    assert int(spikes.min()) >= 0
    assert int(spikes.max()) <= levels
    assert torch.equal(coding.count_decode(spikes), values)


@pytest.mark.parametrize("steps", [1, 8, 12])
def test_phase_code_is_lossless_for_every_value(steps: int) -> None:
    values = torch.arange(1 << steps)
    spikes = coding.phase_code(values, steps)
    assert spikes.shape == (steps, 1 << steps)
    assert set(spikes.unique().tolist()) <= {0, 1}
    assert torch.equal(coding.phase_decode(spikes), values)
    narrow = [step.clone() for step in coding.phases(values, steps, torch.int32)]
    assert all(step.dtype == torch.int32 for step in narrow)
    assert torch.equal(torch.stack(narrow), spikes)


def test_population_code_is_lossless_and_ordered() -> None:
    values = torch.arange(17)
    spikes = coding.population_code(values, 16)
    assert torch.equal(coding.population_decode(spikes), values)
    assert bool((spikes.diff(dim=0) <= 0).all()), "neuron i fires only if neuron i - 1 does"


@pytest.mark.parametrize(
    "call",
    [
        lambda: coding.count_code(torch.tensor([1]), 0, 4),
        lambda: coding.count_code(torch.tensor([1]), 4, -1),
        lambda: coding.count_code(torch.tensor([17]), 4, 4),
        lambda: coding.count_code(torch.tensor([0.5]), 4, 4),
        lambda: coding.phase_code(torch.tensor([8]), 3),
        lambda: coding.phase_code(torch.tensor([-1]), 3),
        lambda: coding.phase_code(torch.tensor([1]), 0),
        lambda: coding.population_code(torch.tensor([1]), 0),
        lambda: coding.population_code(torch.tensor([5]), 4),
    ],
)
def test_what_a_code_cannot_carry_is_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SpikeplugError):
        call()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_power_of_two_is_exact(dtype: torch.dtype) -> None:
    last = 127 if dtype == torch.float32 else 1023
    exponents = torch.arange(-last + 1, last + 1, dtype=torch.int32)
    powers = coding.power_of_two(exponents, dtype).tolist()
    assert powers == [math.ldexp(1.0, int(e)) for e in exponents]


@pytest.mark.parametrize("bits", [3, 16, 22, 24])
@pytest.mark.parametrize("magnitude", [1e-37, 1e-20, 1e-3, 1.0, 777.0, 1e30, 3.4e38])
def test_encoding_is_within_half_a_step(bits: int, magnitude: float) -> None:
    torch.manual_seed(bits)
    x = (torch.rand(50, 33, dtype=torch.float64) * 2 - 1).to(torch.float32) * magnitude
    x[0], x[1, 0], x[2] = 0.0, -magnitude, magnitude
    mantissa, exponent, nonfinite = coding.encode(x, bits)
    assert nonfinite is None
    assert mantissa.dtype == exponent.dtype == torch.int32
    assert int(mantissa.abs().max()) <= 1 << (bits - 1)
    error = (mantissa.double() * torch.exp2(exponent.double()) - x.double()).abs()
    assert bool((error <= 0.5 * torch.exp2(exponent.double())).all())
    assert torch.equal(
        coding.decode(mantissa, exponent, torch.float64), mantissa.double() * torch.exp2(exponent.double())
    )
    used = mantissa.abs().amax(-1)[mantissa.any(-1)]
    if magnitude * 2.0 ** (127 - bits) > 1:
        assert int(used.min()) >= 1 << (bits - 2), "the largest element fills the width"


def test_denormals_code_as_zero_and_never_as_nan() -> None:
    x = torch.tensor([[1e-45, -1e-42, 0.0], [1e-40, 1.1e-38, 1e-45]])
    mantissa, exponent, _ = coding.encode(x, 16)
    assert bool((coding.decode(mantissa, exponent, torch.float32) - x).abs().max() <= 2.0**-127)


def test_not_finite_elements_have_no_code_and_are_counted() -> None:
    x = torch.tensor([[math.inf, 1.0, -2.0], [math.nan, -math.inf, 0.5], [1.0, 2.0, 3.0]])
    mantissa, exponent, nonfinite = coding.encode(x, 16)
    assert nonfinite is not None
    assert torch.equal(nonfinite, ~torch.isfinite(x))
    assert torch.equal(coding.decode(mantissa, exponent, torch.float32), x.nan_to_num(0.0, 0.0, 0.0))
    assert saturations() == {"input: not finite": 3}


def test_floor_extends_the_vector() -> None:
    x = torch.tensor([[1e-6, 0.0]])
    _, exponent, _ = coding.encode(x, 16, floor=1.0)
    assert exponent.item() == 1 - 15


@pytest.mark.parametrize("bad", [torch.tensor([1]), torch.tensor([True]), [1.0], torch.tensor([1j])])
def test_as_real_refuses_what_is_no_real_tensor(bad: object) -> None:
    with pytest.raises(SpikeplugError, match="silu"):
        coding.as_real(bad, "silu")  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_widened(dtype: torch.dtype) -> None:
    assert coding.as_real(torch.ones(1, dtype=dtype), "silu").dtype == torch.float32


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
    code = coding.encode_for_product(x, bits)
    most, limit = (1 << (bits - 1)) - 1, 1 << (2 * bits - 1)
    wide, step = x.double(), torch.exp2(code.exponent.double())
    assert int(code.mantissa.abs().max()) <= most
    assert bool((code.mantissa.long().square().sum(-1) < limit).all())
    assert int((code.mantissa.double() @ code.mantissa.double().mT).abs().max()) < limit
    assert bool(((wide - code.mantissa * step).abs() <= step / 2).all())
    # Half the step would not do, unless it is the smallest there is.
    finer = (wide * 2 / step).round()
    beyond = (finer.abs().amax(-1) > most) | (finer.square().sum(-1) >= limit)
    first = coding.encode(x, bits).exponent[:, 0]
    assert bool((beyond | (code.exponent[:, 0] == first)).all())
    assert bool((code.exponent[:, 0] >= first).all())


@pytest.mark.parametrize("bits", [2, 8, 16])
def test_twos_complement_is_off_by_less_than_a_step_and_only_at_the_very_top(bits: int) -> None:
    x = 1 - torch.arange(1, 1 << 10) / (1 << 24)
    x = torch.stack([x, -x, x * 0.7]).T.reshape(-1, 1)
    plain, cut = coding.encode(x, bits), coding.encode(x, bits, twos_complement=True)
    most = (1 << (bits - 1)) - 1
    assert torch.equal(plain.exponent, cut.exponent)
    assert torch.equal(cut.mantissa, plain.mantissa.clamp(-most, most))
    assert int(plain.mantissa.max()) == most + 1
    error = (x.double() - cut.mantissa * torch.exp2(cut.exponent.double())).abs()
    assert bool((error < x.abs() * 2.0 ** (1 - bits)).all())
