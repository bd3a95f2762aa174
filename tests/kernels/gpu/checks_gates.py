"""sigmoid, SiLU and the GELUs on the GPU = the same closed."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from gpu_kernel_cases import BLOCKS, CONFIGS, DEVICE, DTYPES, FEW, SHAPES, assert_equal, dtypes, operators, rows, seeded

from spikeplug import Numerics, SpikeplugError, functional
from spikeplug.kernels.gpu import launch
from spikeplug.library import OPERATORS
from spikeplug.presets import PRESETS

GATES = {
    "silu": (functional.silu, operators.silu),
    "sigmoid": (functional.sigmoid, operators.sigmoid),
    **{
        f"gelu {how}": (partial(functional.gelu, approximate=how), partial(operators.gelu, approximate=how))
        for how in ("none", "tanh", "quick")
    },
}
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
#: All run one kernel: with a curve and without.
KINDS = ("silu", "gelu none")


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("numerics", CONFIGS, ids=str)
def test_rows_of_every_kind(name: str, numerics: Numerics) -> None:
    kernel, closed = GATES[name]
    for dtype in dtypes(numerics):
        x = rows(dtype, 64)
        assert_equal(lambda x=x: kernel(x, numerics=numerics), lambda x=x: closed(x, numerics=numerics))


@pytest.mark.parametrize("name", KINDS)
def test_shapes(name: str) -> None:
    kernel, closed = GATES[name]
    for shape in (*SHAPES, ()):
        x = (seeded(*shape) * 3).to(DEVICE)
        assert_equal(lambda x=x: kernel(x), lambda x=x: closed(x), taken=x.dim() > 0 and x.numel() > 0)
    x = seeded(20, 9).to(DEVICE).T
    assert_equal(lambda: kernel(x), lambda: closed(x))


@pytest.mark.parametrize("name", KINDS)
def test_no_result_depends_on_the_block(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, closed = GATES[name]
    x = rows(torch.bfloat16, 150)[FEW]
    for largest, step, shared in BLOCKS:
        monkeypatch.setattr(launch, "LARGEST", largest)
        monkeypatch.setattr(launch, "STEP", step)
        monkeypatch.setattr(launch, "SHARED", shared)
        assert_equal(lambda: kernel(x), lambda: closed(x))


@pytest.mark.parametrize("name", GATES)
def test_what_the_kernel_does_not_take_is_the_closed_forms(name: str) -> None:
    kernel, closed = GATES[name]
    x = seeded(4, 9).to(DEVICE)
    for numerics in (PRESETS["paper"].numerics, PRESETS["narrow"].numerics):
        assert_equal(
            lambda numerics=numerics: kernel(x, numerics=numerics),
            lambda numerics=numerics: closed(x, numerics=numerics),
            taken=False,
        )
    with pytest.raises(SpikeplugError):
        kernel(x.int())


@pytest.mark.parametrize("name", ["silu", "gelu", "sigmoid"])
def test_times_another_tensor(name: str) -> None:
    """A gated unit's other branch: fused where it has x's shape, broadcast beside the kernel where not."""
    how = ("none",) if name == "gelu" else ()
    closed = getattr(operators, name)
    for dtype in DTYPES:
        x = rows(dtype, 64)
        up = seeded(*x.shape, seed=3).to(DEVICE)
        for weight in (up.to(dtype), up.half(), up[:1], up[:, :1], up.expand(2, *up.shape)):
            assert_equal(
                lambda x=x, w=weight: OPERATORS[name](x, *how, weight=w), lambda x=x, w=weight: closed(x, *how) * w
            )
