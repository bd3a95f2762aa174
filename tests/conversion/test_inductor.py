"""Test torch's own compiler once: the code it generates around the operators leaves their bits unchanged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from spikeplug.conversion import convert


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.activation, self.norm = nn.Linear(8, 8), nn.SiLU(), nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.activation(self.linear(x)))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_inductor_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch._inductor.config as settings

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(settings, "cpp_cache_precompile_headers", False)
    torch.manual_seed(0)
    model = Block()
    convert(model)
    x = torch.randn(3, 8)
    with torch.no_grad():
        assert torch.equal(torch.compile(model, fullgraph=True)(x), model(x))
