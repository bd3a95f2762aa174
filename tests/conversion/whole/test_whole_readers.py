"""Weights that code other than a layer's own reads: these layers are found, and stay float."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from spikeplug.conversion import audit, convert, revert
from spikeplug.conversion.whole.readers import read_otherwise


class Reading(nn.Module):
    """A module that reads the weight of one of its layers, and asks another one for facts."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.asked, self.unused = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.asked(x.to(self.asked.weight.dtype)) * self.asked.weight.shape[0]
        return F.silu(F.linear(x, self.read.weight.abs()))


def test_readers_are_found() -> None:
    model, x = Reading(), torch.ones(2, 4)
    assert read_otherwise(model, ["read", "asked", "unused"], {"x": x}) == {"read"}


def test_tied_layers_are_found_together() -> None:
    model = Reading()
    model.unused.weight = model.read.weight
    assert read_otherwise(model, ["read", "asked", "unused"], {"x": torch.ones(2, 4)}) == {"read", "unused"}


def test_the_product_with_a_float_weight_is_of_codes() -> None:
    model, x = Reading(), torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = model(x)
        report = convert(model, recipe="whole", calibration={"x": x}, strict=True)
        assert model.read.weight.dtype == torch.float32
        with audit(model, linear=True) as found:
            spiking = model(x)
        assert not found.entries
        assert (spiking - exact).abs().max() < 0.1 * exact.abs().max()
        assert any("read" in note for note in report.notes)
        revert(model)
        assert torch.equal(model(x), exact)


def test_torchs_attention_reads_its_output_layer() -> None:
    """Calibrated or not."""
    model, x = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(), torch.randn(2, 3, 8)
    with torch.no_grad():
        exact = model(x)
        for calibration in (False, {"src": x}):
            convert(model, recipe="whole", calibration=calibration)
            assert model.self_attn.out_proj.weight.dtype == torch.float32
            assert (model(x) - exact).norm() < 0.1 * exact.norm()
            revert(model)
        assert torch.equal(model(x), exact)
