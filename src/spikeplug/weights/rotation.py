"""Rotate vectors by orthogonal matrices of Hadamard type, and weights so that what they compute stays the same."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spikeplug.hadamard import apply_hadamard


@dataclass(frozen=True)
class Rotation:
    """The orthogonal matrix R = H · diag(s) / sqrt(size), in blocks of `size` channels.

    size  order of the Hadamard matrix H
    seed  of the random signs s, the same for all blocks; None: no signs
    rows  channels of each block in what is written; None: consecutive blocks
    """

    size: int
    seed: int | None = None
    rows: tuple[tuple[int, ...], ...] | None = None

    def apply(self, x: Tensor) -> Tensor:
        """Return R applied to each consecutive block of x's last dimension, in x's dtype.

        x  (..., k·size), floating
        """
        blocks = x.reshape(*x.shape[:-1], -1, self.size)
        if self.seed is not None:
            blocks = blocks * signs(self.size, self.seed).to(device=x.device, dtype=x.dtype)
        return apply_hadamard(blocks, self.size).reshape(x.shape)

    def of_reader(self, weight: Tensor) -> Tensor:
        """Return W Rᵀ, which reads rotated inputs and gives what W gave for the others. weight: (out, in)."""
        return self.apply(weight)

    def of_writer(self, weight: Tensor) -> Tensor:
        """Return R W, which gives rotated outputs; of a vector: R b. weight: (out, in), or (out,)."""
        columns = weight.movedim(0, -1)
        if self.rows is None:
            return self.apply(columns).movedim(-1, 0)
        rows = torch.tensor(self.rows, device=weight.device).flatten()
        turned = columns.clone()
        turned[..., rows] = self.apply(columns[..., rows])
        return turned.movedim(-1, 0)


def signs(size: int, seed: int) -> Tensor:
    """Return `size` random signs, int8, the same for the same seed on every machine."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(0, 2, (size,), generator=generator) * 2 - 1).to(torch.int8)


def rotate_online(x: Tensor, block: int) -> Tensor:
    """Return what a runtime does before a layer that was prepared for it: H/sqrt(block) on each block of channels.

    x      (..., k·block), floating; its dtype is kept
    block  order of a Hadamard matrix; of a power of four, 1/sqrt(block) is a shift. Of others it is a factor that
           thresholds can take over, because the code of a vector does not depend on its scale.
    """
    return Rotation(block).apply(x)
