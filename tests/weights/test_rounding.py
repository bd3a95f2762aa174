"""Test rounding: codes and thresholds hold what they promise on any weights, and GPTQ lowers the error of outputs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spikeplug.errors import SpikeplugError
from spikeplug.weights import Hessian, Rounded, gptq, rounded, rounding, threshold_of
from spikeplug.weights.rounding import MOST_FACTOR, NIBBLE


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def calibrated(width: int, tokens: int = 200) -> tuple[Hessian, Tensor]:
    """Return a Hessian of correlated inputs, and the inputs."""
    x = random(tokens, width) @ (random(width, width, seed=1) + 2 * torch.eye(width, dtype=torch.float64))
    hessian = Hessian(width)
    hessian.add(x)
    return hessian, x


def error_of(result: Rounded, weight: Tensor, x: Tensor) -> float:
    return float((x @ (result.real(torch.float64) - weight).T).square().mean())


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([1, 7, 63, 127]),
    st.booleans(),
    st.integers(-30, 30),
)
def test_codes_are_nearest_and_products_exact(seed: int, levels: int, clip: bool, exponent: int) -> None:
    weight = random(3, 32, seed=seed) * 2.0**exponent
    result = rounded(weight, levels, clip=clip)
    mantissa, threshold = result.mantissa.double(), result.threshold.double()
    assert result.mantissa.dtype == torch.int8
    assert result.threshold.dtype == torch.float32
    assert int(mantissa.abs().max()) <= levels
    # Thresholds are below 2^16 in units that they share, so float32 holds the products exactly.
    unit = 2.0 ** (int(torch.frexp(weight.abs().max() / levels).exponent) - 16)
    assert torch.equal(threshold / unit, (threshold / unit).round())
    assert torch.equal(result.real(torch.float32).double(), result.real(torch.float64))
    if not clip:
        spread = threshold[:, None]
        error = (result.real(torch.float64) - weight).abs()
        # The largest threshold may be cut to 2^16 - 1 units: its largest weight lies that far beyond the last level.
        assert bool((error <= spread * (0.5 + levels * 2.0**-15)).all())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.sampled_from([1, 4, 32]), st.integers(-30, 30))
def test_groups_are_no_worse_than_factors_that_clip_nothing(seed: int, width: int, group: int, exponent: int) -> None:
    """These are among those that the search tries. What they clip is what the largest threshold is cut by."""
    weight = random(3, width, seed=seed) * 2.0**exponent
    result = rounded(weight, group=group)
    pieces = torch.nn.functional.pad(weight, (0, -width % group)).unflatten(1, (-1, group))
    signed = torch.maximum(pieces.amax(-1) / NIBBLE[1], pieces.amin(-1) / NIBBLE[0]).clamp_min(0)
    other = torch.maximum(pieces.amax(-1) / -NIBBLE[0], pieces.amin(-1) / -NIBBLE[1]).clamp_min(0)
    reach = torch.minimum(signed, other)
    threshold = threshold_of(reach.amax(-1) / MOST_FACTOR, weight.abs().max() / NIBBLE[1] / MOST_FACTOR)
    step = (reach / threshold[:, None]).ceil().clamp(1, MOST_FACTOR) * threshold[:, None]
    bound = (step.square() / 4).sum(-1) * group * (1 + 2.0**-10)
    error = (result.real(torch.float64) - weight).square().sum(-1)
    assert bool((error <= bound).all())
    assert torch.equal(result.real(torch.float32).double(), result.real(torch.float64))


def test_a_group_is_no_worse_off_for_a_large_weight_in_another() -> None:
    weight = random(4, 64, seed=5)
    large = weight.clone()
    large[:, 40] = 20.0
    alone, together = (rounded(each, group=32).real(torch.float64)[:, :32] for each in (weight, large))
    rows = rounded(large, 7).real(torch.float64)[:, :32]
    errors = [float((each - weight[:, :32]).square().sum()) for each in (alone, together, rows)]
    assert errors[1] < 4 * errors[0]
    assert errors[2] > 10 * errors[1]


@settings(max_examples=50, deadline=None)
@given(st.floats(2.0**-99, 2.0**99))
def test_thresholds_are_within_a_unit(value: float) -> None:
    found = float(threshold_of(torch.tensor(value, dtype=torch.float64)))
    assert abs(found - value) <= value * 2.0**-15


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize(("levels", "group"), [(7, None), (127, None), (127, 32), (127, 48)])
def test_gptq_lowers_the_error_of_the_outputs(levels: int, act_order: bool, group: int | None, clip: bool) -> None:
    weight = random(24, 160, seed=3)
    hessian, x = calibrated(160, 400)
    first = gptq(weight, hessian, levels, group=group, act_order=act_order, clip=clip)
    again = gptq(weight, hessian, levels, group=group, act_order=act_order, clip=clip)
    assert torch.equal(first.mantissa, again.mantissa)
    assert torch.equal(first.threshold, again.threshold)
    assert int(first.mantissa.abs().max()) <= (levels if group is None else -NIBBLE[0] * MOST_FACTOR)
    assert error_of(first, weight, x) < 0.7 * error_of(rounded(weight, levels, group=group), weight, x)


def test_white_inputs_round_to_nearest() -> None:
    weight, hessian = random(5, 16), Hessian(16)
    hessian.add(torch.eye(16))
    assert torch.equal(gptq(weight, hessian).mantissa, rounded(weight).mantissa)


def test_a_clip_lowers_the_squared_error() -> None:
    weight = random(6, 64)
    weight[:, 0] = 30.0
    plain, clipped = rounded(weight, 7), rounded(weight, 7, clip=True)
    square = [float((each.real(torch.float64) - weight).square().sum()) for each in (plain, clipped)]
    assert square[1] <= square[0]


def test_dead_rows_and_channels_are_named() -> None:
    weight = random(4, 8)
    weight[2] = 0
    hessian = Hessian(8)
    x = random(50, 8)
    x[:, [1, 5]] = 0
    hessian.add(x)
    result = gptq(weight, hessian)
    assert result.dead_rows == rounded(weight).dead_rows == (2,)
    assert result.dead_channels == (1, 5)
    assert torch.equal(result.mantissa[2], torch.zeros(8, dtype=torch.int8))
    assert torch.equal(result.mantissa[:, [1, 5]], rounded(weight).mantissa[:, [1, 5]])
    assert torch.equal(result.threshold, rounded(weight).threshold)
    assert bool(result.real().isfinite().all())


def test_the_weight_is_not_touched() -> None:
    weight = random(4, 8)
    before = weight.clone()
    gptq(weight, calibrated(8)[0])
    rounded(weight, clip=True)
    assert torch.equal(weight, before)


@pytest.mark.parametrize("group", [None, 4])
@pytest.mark.parametrize("scale", [0.0, 1e-300, 1e-44, 1e30])
def test_extreme_weights_stay_finite(scale: float, group: int | None) -> None:
    result = rounded(random(3, 8) * scale, group=group)
    assert bool(result.real().isfinite().all())
    assert float(result.threshold.min()) > 0


def test_bad_input() -> None:
    weight = random(4, 8)
    weight[1, 2] = float("nan")
    for function in (lambda: rounded(weight, name="up"), lambda: gptq(weight, calibrated(8)[0], name="up")):
        with pytest.raises(SpikeplugError, match="up holds NaN or infinity"):
            function()
    for levels in (0, 128):
        with pytest.raises(SpikeplugError, match="must be 1 to 127"):
            rounded(random(4, 8), levels)
    with pytest.raises(SpikeplugError, match="group is 0; give the number of inputs"):
        rounded(random(4, 8), group=0)
    with pytest.raises(SpikeplugError, match="no floating matrix"):
        rounded(torch.ones(4, dtype=torch.float32))
    with pytest.raises(SpikeplugError, match="never reached"):
        gptq(random(4, 8), Hessian(8))
    with pytest.raises(SpikeplugError, match="its Hessian has 9"):
        gptq(random(4, 8), calibrated(9)[0])


def test_rows_are_rounded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are rounded as if they were alone, but for the power of two that their thresholds share."""
    weight, (hessian, _) = random(23, 16), calibrated(16)
    weight[[4, 22]] = 0
    whole, nearest = gptq(weight, hessian), rounded(weight)
    monkeypatch.setattr(rounding, "ROWS", 5)
    for found, expected in ((gptq(weight, hessian), whole), (rounded(weight), nearest)):
        assert found.mantissa.shape == (23, 16)
        assert found.dead_rows == expected.dead_rows == (4, 22)
        torch.testing.assert_close(found.threshold, expected.threshold, rtol=1e-4, atol=1e-4)
    parts = [rounded(part) for part in weight.split(5)]
    assert torch.equal(rounded(weight).mantissa, torch.cat([part.mantissa for part in parts]))
    weight[22, 0] = torch.nan
    with pytest.raises(SpikeplugError, match="layer 3 holds NaN or infinity"):
        gptq(weight, hessian, name="layer 3")
