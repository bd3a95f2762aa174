"""The floating-point units that are counted beside circuits do what their table says; simulated in Icarus."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import icarus
import pytest
import torch
from torch import Tensor

from spikeplug.hardware.verilog import Module, Vector

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import floats

pytestmark = pytest.mark.skipif(
    shutil.which("iverilog") is None, reason="Icarus is missing: `apt-get install --no-install-recommends iverilog`"
)


def simulated(module: str, text: str, words: dict[str, Tensor], width: int, cycles: int, folder: Path) -> Tensor:
    inputs = {name: Vector(f"in_{name}", 1, width, False) for name in words}
    unit = Module(module, text, inputs, {"y": Vector("out_y", 1, width, False)}, cycles)
    found, edges = icarus.simulate(unit, {name: x.unsqueeze(-1) for name, x in words.items()}, folder)
    assert edges == {cycles}
    return found["y"].squeeze(-1)


@pytest.mark.parametrize(("dtype", "exponent", "fraction"), [(torch.float16, 5, 10), (torch.float32, 8, 23)])
def test_quotients_are_rounded_as_in_torch(dtype: torch.dtype, exponent: int, fraction: int, tmp_path: Path) -> None:
    """Normal operands whose quotient is normal or infinite. float64 rounds to float16 and float32 as if once."""
    width, generator = 1 + exponent + fraction, torch.Generator().manual_seed(0)
    carrier = torch.int16 if width == 16 else torch.int32
    a, b = (torch.randint(0, 1 << width, (4000,), generator=generator) for _ in range(2))
    x, y = (word.to(carrier).view(dtype) for word in (a, b))
    quotient = (x.double() / y.double()).to(dtype)
    tiny = torch.finfo(dtype).tiny
    kept = x.isfinite() & y.isfinite() & (x.abs() >= tiny) & (y.abs() >= tiny) & (quotient.abs() > tiny)
    assert kept.sum() > 2000
    text = floats.divider(exponent, fraction)
    found = simulated("float_divide", text, {"a": a[kept], "b": b[kept]}, width, fraction + 3, tmp_path)
    assert torch.equal(found, quotient[kept].view(carrier).long() & (1 << width) - 1)


def test_the_exponential_of_every_float16(tmp_path: Path) -> None:
    """Less than one ULP from exp where that is normal; else 0, or infinity from 65,520."""
    words = torch.arange(1 << 16)
    x = words.to(torch.int16).view(torch.float16)
    words, x = words[x.isfinite()], x[x.isfinite()]
    found = simulated("float_exp", floats.exponential(), {"x": words}, 16, 0, tmp_path)
    got, exact = found.to(torch.int16).view(torch.float16).double(), x.double().exp()
    normal = (exact >= 2.0**-14) & (exact < 65504)
    ulp = torch.exp2(exact[normal].log2().floor() - 10)
    assert ((got[normal] - exact[normal]).abs() < ulp).all()
    assert (got[exact >= 65520] == torch.inf).all()
    assert (got[exact < 0.99 * 2.0**-14] == 0).all()
