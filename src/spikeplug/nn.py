"""The spiking operators as modules, one for one with the functions."""

from __future__ import annotations

from torch import Tensor, nn

from spikeplug.config import SpikeConfig, as_config
from spikeplug.errors import SpikeplugError
from spikeplug.operators import rms_norm, silu, softmax


class Softmax(nn.Module):
    """`functional.softmax` along `dim`."""

    def __init__(self, dim: int = -1, config: SpikeConfig | None = None) -> None:
        super().__init__()
        self.dim, self.config = dim, as_config(config)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape and floating dtype; see `functional.softmax`."""
        return softmax(x, self.dim, config=self.config)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, bits={self.config.bits}"


class SiLU(nn.Module):
    """`functional.silu`."""

    def __init__(self, config: SpikeConfig | None = None) -> None:
        super().__init__()
        self.config = as_config(config)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape and floating dtype; see `functional.silu`."""
        return silu(x, self.config)

    def extra_repr(self) -> str:
        return f"bits={self.config.bits}"


class RMSNorm(nn.Module):
    """`functional.rms_norm` over the last dimension. `weight` is used as given, not copied."""

    def __init__(self, weight: nn.Parameter, eps: float = 1e-6, config: SpikeConfig | None = None) -> None:
        super().__init__()
        if not isinstance(weight, nn.Parameter):
            raise SpikeplugError("RMSNorm takes the weight itself, an nn.Parameter of shape (d,), not its size.")
        self.weight, self.eps, self.config = weight, eps, as_config(config)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) with d the weight's size; see `functional.rms_norm`."""
        return rms_norm(x, self.weight, self.eps, config=self.config)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}, bits={self.config.bits}"
