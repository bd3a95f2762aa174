"""Narrow codes: what arrives in input_bits bits, and scales shared by blocks of channels."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from spikeplug.coding import encode, received
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.operators import attention, layer_norm, rms_norm, silu, softmax
from spikeplug.operators.blocks import arriving
from spikeplug.operators.rotary import cos
from spikeplug.presets import PRESETS, read_preset

NARROW = PRESETS["narrow"].numerics


def blockwise(function: Any, x: Tensor, block: int) -> Tensor:
    """function of every block by itself."""
    return torch.cat([function(part) for part in x.split(block, -1)], -1)


@given(st.integers(5, 20), st.integers(-60, 60), st.integers(0, 1000))
def test_what_arrives_is_the_nearest_code(bits: int, exponent: int, seed: int) -> None:
    x = torch.randn(3, 11, generator=torch.Generator().manual_seed(seed)) * 2.0**exponent
    y = received(x, bits)
    step = torch.exp2(torch.frexp(x.abs().amax(-1, keepdim=True)).exponent.float() - bits)
    assert bool(((y / step) == (y / step).round()).all())
    assert bool(((y - x).abs() <= step / 2).all())
    assert bool(((y / step).abs() <= 2**bits).all())
    # Encoded again with at least two bits more, nothing is lost.
    code = encode(y, bits + 2)
    assert torch.equal(code.mantissa * torch.exp2(code.exponent.float()), y)


def test_what_has_no_code_passes() -> None:
    x = torch.tensor([[1.0, math.inf, 0.3], [math.nan, -math.inf, -7.1], [0.0, 0.0, 0.0], [1e-45, 0.0, 0.0]])
    y = received(x, 8)
    assert torch.equal(y.isnan(), x.isnan())
    assert torch.equal(y.isinf(), x.isinf())
    assert torch.equal(y[0], torch.tensor([1.0, math.inf, 38 / 128]))
    assert torch.equal(y[2:], torch.zeros(2, 3))
    assert received(x, None) is x


@pytest.mark.parametrize("dimension", [1, 31, 32, 33, 64, 100])
def test_blocks_have_scales_of_their_own(dimension: int) -> None:
    x = torch.randn(5, dimension) * torch.logspace(-6, 6, dimension)
    assert torch.equal(arriving(x, NARROW), blockwise(lambda part: received(part, 8), x, 32))
    assert torch.equal(silu(x, numerics=NARROW), blockwise(lambda part: silu(part, numerics=NARROW), x, 32))


def norm_of(norm: Any) -> Any:
    """The float function."""
    exact = {rms_norm: torch.nn.functional.rms_norm, layer_norm: torch.nn.functional.layer_norm}[norm]
    return lambda x: exact(x, x.shape[-1:], eps=1e-5)


@pytest.mark.parametrize("norm", [rms_norm, layer_norm])
def test_an_outlier_drowns_its_own_block_only(norm: Any) -> None:
    """The norm is of the whole vector; codes are each block's."""
    torch.manual_seed(0)
    x = torch.randn(8, 96)
    x[:, 3] = 3000.0
    exact = norm_of(norm)(x.double()).float()
    error = (norm(x, numerics=NARROW) - exact).abs() / exact.abs().view(8, 3, 32).amax(-1).repeat_interleave(32, 1)
    whole = (norm(x, numerics=dataclasses.replace(NARROW, scale_block=None)) - exact).abs()
    # Half a step at either end, and half a step of the outlier's P bits.
    assert float(error.max()) < 2.0**-7 + 3000 * 2.0 ** -(NARROW.working_bits - 2)
    # With one scale, the smaller channels are rounded to steps of the outlier's.
    assert float(whole[:, 32:].max()) > 10 * float((norm(x, numerics=NARROW) - exact)[:, 32:].abs().max())


def test_keys_share_one_scale() -> None:
    """A softmax is a row of keys, not of channels: no result depends on where a block of them would begin."""
    x = torch.randn(3, 100) * 5
    assert torch.equal(softmax(x, numerics=NARROW), softmax(x, numerics=dataclasses.replace(NARROW, scale_block=None)))


def test_scores_arrive_in_steps_of_a_sixteenth_octave() -> None:
    octave = math.log(2)
    x = torch.tensor([0.0, -1.0, -1.0 - 0.49 / 16, -15.0, -15.94, -15.99, -40.0]) * octave
    y = softmax(x, numerics=dataclasses.replace(NARROW, bits=20))
    share = y / y[0]
    assert float(share[1]) == pytest.approx(0.5)
    assert float(share[2]) == float(share[1])
    assert float(share[3]) == pytest.approx(2.0**-15, rel=0.05)
    assert float(share[4]) > 0
    assert share[5:].tolist() == [0.0, 0.0]


def test_angles_arrive_as_phases() -> None:
    x = torch.linspace(0, 5000, 4001)
    turn = 2 * math.pi / 256
    assert torch.equal(cos(x, numerics=NARROW), cos((x.double() / turn).round() * turn, numerics=NARROW).float())


def test_attention_does_not_depend_on_later_keys() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, 12, 8) for _ in range(3))
    causal = torch.ones(12, 12, dtype=torch.bool).tril()
    whole = attention(query, key, value, causal, numerics=NARROW)
    for rows in (1, 5, 11):
        part = attention(
            query[:, :, :rows], key[:, :, :rows], value[:, :, :rows], causal[:rows, :rows], numerics=NARROW
        )
        assert torch.allclose(part, whole[:, :, :rows], rtol=0, atol=0)


def test_bad_values() -> None:
    for fields in (
        {"input_bits": 4},
        {"input_bits": 21},
        {"input_bits": True},
        {"query_key_bits": 7},
        {"query_key_bits": 21},
        {"query_key_bits": 16.0},
        {"scale_block": 0},
        {"scale_block": 1.5},
    ):
        with pytest.raises(SpikeplugError, match=next(iter(fields))):
            Numerics(**fields)
    with pytest.raises(SpikeplugError, match="scale_block needs shift_scaling"):
        Numerics(scale_block=32, shift_scaling=False, divide_last=False)


def test_presets_by_name() -> None:
    assert read_preset("narrow") == NARROW
    assert Numerics.from_token(NARROW.token) == NARROW
    for name in PRESETS:
        with pytest.raises(SpikeplugError, match=name):
            read_preset("nothing-here")
