"""NIRTorch, the executor of graphs: https://github.com/neuromorphs/NIRTorch.

Its nodes are given here, by the equations of NIR with one Euler step per time step.
"""

from __future__ import annotations

from typing import Any

import nir
import nirtorch
import numpy.typing as npt
import torch
from torch import Tensor, nn

from spikeplug.hardware.emulators.modules import stepped
from spikeplug.hardware.rasters import Integers


class _Integrator(nn.Module):
    """v' = r·I, or with a leak τ·v' = v_leak - v + r·I; gives v."""

    def __init__(self, node: Any) -> None:
        super().__init__()
        self.r = torch.from_numpy(node.r)
        self.tau = torch.from_numpy(node.tau) if isinstance(node, nir.LI) else None

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        v = torch.zeros_like(x) if state is None else state
        v = v + self.r * x if self.tau is None else v + (self.r * x - v) / self.tau
        return v, v


class _IntegrateAndFire(_Integrator):
    """v' = r·I; a spike where v > θ, which resets v."""

    def __init__(self, node: Any) -> None:
        super().__init__(node)
        self.threshold, self.reset = torch.from_numpy(node.v_threshold), torch.from_numpy(node.v_reset)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        v, _ = super().forward(x, state)
        spikes = (v > self.threshold).float()
        return spikes, torch.where(spikes > 0, self.reset, v)


class _Threshold(nn.Module):
    """A spike where the input > θ."""

    def __init__(self, node: Any) -> None:
        super().__init__()
        self.threshold = torch.from_numpy(node.threshold)

    def forward(self, x: Tensor) -> Tensor:
        return (x > self.threshold).float()


def _affine(node: Any) -> nn.Linear:
    # The default of nirtorch 2.6 leaves the bias as torch drew it.
    module = nn.Linear(node.weight.shape[1], node.weight.shape[0])
    module.weight.data, module.bias.data = torch.from_numpy(node.weight), torch.from_numpy(node.bias)
    return module


def run(graph: Any, raster: Integers) -> npt.NDArray[Any]:
    """Return the spikes or membranes of the output (steps, batch, neurons)."""
    nodes = {
        nir.I: _Integrator,
        nir.LI: _Integrator,
        nir.IF: _IntegrateAndFire,
        nir.Threshold: _Threshold,
        nir.Affine: _affine,
    }
    return stepped(nirtorch.nir_to_torch(graph, nodes), raster)
