"""softmax on the GPU = softmax closed."""

from __future__ import annotations

import pytest
import torch
from gpu_kernel_cases import BLOCKS, CONFIGS, DEVICE, DTYPES, FEW, SHAPES, assert_equal, operators, rows, seeded

from spikeplug import Numerics, SpikeplugError, functional
from spikeplug.kernels.gpu import launch
from spikeplug.presets import PRESETS

softmax = functional.softmax
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("numerics", CONFIGS, ids=str)
def test_rows_of_every_kind(numerics: Numerics, dtype: torch.dtype) -> None:
    x = rows(dtype)
    assert_equal(lambda: softmax(x, numerics=numerics), lambda: operators.softmax(x, numerics=numerics))


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape: tuple[int, ...]) -> None:
    x = (seeded(*shape) * 3).to(DEVICE)
    assert_equal(lambda: softmax(x), lambda: operators.softmax(x), taken=x.numel() > 0)


def test_any_dimension_and_stride() -> None:
    x = seeded(6, 7, 20).to(DEVICE)[:, :, ::2]
    for dim in (-3, 0, 1, 2):
        assert_equal(lambda dim=dim: softmax(x, dim), lambda dim=dim: operators.softmax(x, dim))
    assert_equal(lambda: softmax(x[0, 0, 0], 0), lambda: operators.softmax(x[0, 0, 0], 0), taken=False)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("numerics", [CONFIGS[0], CONFIGS[4]], ids=str)
def test_scores_too_large_for_their_fraction_bits(numerics: Numerics, dtype: torch.dtype) -> None:
    """Rows that give up low bits, by few places and by more than there are; some with NaN and infinities beside."""
    largest = torch.finfo(dtype).max
    powers = 2.0 ** torch.arange(9, 128, 3)
    x = torch.stack([seeded(len(powers), 20, seed=s) * powers[:, None] for s in range(2)]).clamp(-largest, largest)
    x[1] = powers[:, None] - x[1].abs() * 2.0**-20
    x[0, ::3, 2], x[0, 5, 3], x[1, 4, 5] = -torch.inf, torch.nan, torch.inf
    x[0, 6], x[1, 6] = largest, -largest
    x = x.clamp(-torch.inf, torch.inf).to(dtype).to(DEVICE)
    assert_equal(lambda: softmax(x, numerics=numerics), lambda: operators.softmax(x, numerics=numerics))


def test_no_result_depends_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    x = rows(torch.float32, 150)[FEW]
    whole = softmax(x)
    for largest, step, shared in BLOCKS:
        monkeypatch.setattr(launch, "LARGEST", largest)
        monkeypatch.setattr(launch, "STEP", step)
        monkeypatch.setattr(launch, "SHARED", shared)
        assert torch.equal(softmax(x).nan_to_num(-1), whole.nan_to_num(-1))
    assert_equal(lambda: softmax(x), lambda: operators.softmax(x))


def test_what_the_kernel_does_not_take_is_the_closed_forms() -> None:
    x = seeded(4, 9).to(DEVICE)
    for numerics in (PRESETS["paper"].numerics, PRESETS["narrow"].numerics):
        how = {"numerics": numerics}
        assert_equal(lambda how=how: softmax(x, **how), lambda how=how: operators.softmax(x, **how), taken=False)
    assert_equal(lambda: softmax(x.double()), lambda: operators.softmax(x.double()), taken=False)
    with pytest.raises(SpikeplugError):
        softmax(x, 5)
    with pytest.raises(SpikeplugError):
        softmax(x.int())
