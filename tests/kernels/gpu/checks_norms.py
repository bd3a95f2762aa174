"""RMSNorm and LayerNorm on the GPU = the same closed, weight and bias included."""

from __future__ import annotations

import pytest
import torch
from gpu_kernel_cases import BLOCKS, CONFIGS, DEVICE, DTYPES, FEW, SHAPES, assert_equal, dtypes, operators, rows, seeded

from spikeplug import Numerics, SpikeplugError, functional
from spikeplug.kernels.gpu import launch
from spikeplug.presets import PRESETS

NORMS = {
    "rms_norm": (functional.rms_norm, operators.rms_norm),
    "layer_norm": (functional.layer_norm, operators.layer_norm),
}
pytestmark = [
    pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning"),
    pytest.mark.parametrize("name", NORMS),
]


@pytest.mark.parametrize("numerics", CONFIGS, ids=str)
def test_rows_of_every_kind(name: str, numerics: Numerics) -> None:
    kernel, closed = NORMS[name]
    for dtype in dtypes(numerics):
        x = rows(dtype, 64)
        for eps in (0.0, 1e-5, 30.0):
            assert_equal(
                lambda x=x, eps=eps: kernel(x, eps=eps, numerics=numerics),
                lambda x=x, eps=eps: closed(x, eps=eps, numerics=numerics),
            )


def test_shapes(name: str) -> None:
    kernel, closed = NORMS[name]
    for shape in SHAPES:
        x = (seeded(*shape) * 3 + 1).to(DEVICE)
        assert_equal(lambda x=x: kernel(x), lambda x=x: closed(x), taken=x.numel() > 0)
    x = seeded(20, 9).to(DEVICE).T
    assert_equal(lambda: kernel(x), lambda: closed(x))


def test_weights_of_every_dtype(name: str) -> None:
    """Two roundings, as torch makes them; no product is fused with the bias's sum."""
    kernel, closed = NORMS[name]
    for dtype in DTYPES:
        x = rows(dtype, 64)
        for weight_dtype, bias_dtype in ((dtype, dtype), (torch.float32, torch.bfloat16), (torch.float16, dtype)):
            weight, bias = seeded(64).to(DEVICE, weight_dtype), (seeded(64, seed=2) / 3).to(DEVICE, bias_dtype)
            affine = {"weight": weight} if name == "rms_norm" else {"weight": weight, "bias": bias}
            assert_equal(lambda x=x, a=affine: kernel(x, **a), lambda x=x, a=affine: closed(x, **a))
    if name == "layer_norm":
        assert_equal(lambda: kernel(x, bias=bias), lambda: closed(x, bias=bias))


def test_no_result_depends_on_the_block(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, closed = NORMS[name]
    x, weight = rows(torch.float32, 150)[FEW], seeded(150).to(DEVICE)
    for largest, step, shared in BLOCKS:
        monkeypatch.setattr(launch, "LARGEST", largest)
        monkeypatch.setattr(launch, "STEP", step)
        monkeypatch.setattr(launch, "SHARED", shared)
        assert_equal(lambda: kernel(x, weight=weight), lambda: closed(x, weight=weight))


def test_what_the_kernel_does_not_take_is_the_closed_forms(name: str) -> None:
    kernel, closed = NORMS[name]
    x = seeded(4, 9).to(DEVICE)
    for numerics in (PRESETS["paper"].numerics, PRESETS["narrow"].numerics):
        assert_equal(
            lambda numerics=numerics: kernel(x, numerics=numerics),
            lambda numerics=numerics: closed(x, numerics=numerics),
            taken=False,
        )
    with pytest.raises(SpikeplugError):
        kernel(x, eps=-1.0)
    # Its squares are summed in parts.
    long, wide = seeded(2, 1 << 14).to(DEVICE), Numerics(working_bits=24)
    assert_equal(lambda: kernel(long, numerics=wide), lambda: closed(long, numerics=wide), taken=False)
