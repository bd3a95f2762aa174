"""softmax on the GPU = softmax closed."""

from __future__ import annotations

import pytest
import torch
from gpu_kernel_cases import BLOCKS, CONFIGS, DEVICE, DTYPES, FEW, SHAPES, assert_equal, rows, seeded

from spikeplug import Numerics, SpikeplugError, operators
from spikeplug.kernels.gpu import KERNELS, launch
from spikeplug.presets import PRESETS

softmax = KERNELS["softmax"]
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("numerics", CONFIGS, ids=str)
def test_rows_of_every_kind(numerics: Numerics, dtype: torch.dtype) -> None:
    x = rows(dtype)
    assert_equal(lambda: softmax(x, numerics=numerics), lambda: operators.softmax(x, numerics=numerics))


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape: tuple[int, ...]) -> None:
    x = (seeded(*shape) * 3).to(DEVICE)
    assert_equal(lambda: softmax(x), lambda: operators.softmax(x))


def test_any_dimension_and_stride() -> None:
    x = seeded(6, 7, 20).to(DEVICE)[:, :, ::2]
    for dim in (-3, 0, 1, 2):
        assert_equal(lambda dim=dim: softmax(x, dim), lambda dim=dim: operators.softmax(x, dim))
    assert_equal(lambda: softmax(x[0, 0, 0], 0), lambda: operators.softmax(x[0, 0, 0], 0))


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
        assert_equal(lambda how=how: softmax(x, **how), lambda how=how: operators.softmax(x, **how))
    assert_equal(lambda: softmax(x.double()), lambda: operators.softmax(x.double()))
    with pytest.raises(SpikeplugError):
        softmax(x, 5)
    with pytest.raises(SpikeplugError):
        softmax(x.int())
