"""Operators on narrow codes: inputs of input_bits bits, and scales shared by blocks of channels."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from spikeplug.codes import as_input, as_received
from spikeplug.functional import attention, cos, layer_norm, rms_norm, silu, softmax
from spikeplug.presets import PRESETS

NARROW = PRESETS["narrow"].numerics


def blockwise(function: Any, x: Tensor, block: int) -> Tensor:
    """function of every block by itself."""
    return torch.cat([function(part) for part in x.split(block, -1)], -1)


@pytest.mark.parametrize("dimension", [1, 31, 32, 33, 64, 100])
def test_blocks_have_scales_of_their_own(dimension: int) -> None:
    x = torch.randn(5, dimension) * torch.logspace(-6, 6, dimension)
    assert torch.equal(as_input(x, NARROW), blockwise(lambda part: as_received(part, 8), x, 32))
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
