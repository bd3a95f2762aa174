"""Round as SpikingJelly's signed QCFS neurons do; as a command, compare with its class: `python benchmarks/qcfs.py`.

    sum of the spikes of T steps = clamp(round(x / step), -T, T)·step        halves to even

The command runs in an environment of its own, without spikeplug (`make bench-spikingjelly`). Exits with 1 on the first
tensor that the class rounds in another way.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor


def settled(x: Tensor, step: Tensor, steps: int) -> Tensor:
    """Return what the spikes for x add up to after `steps` time steps; step: x's own, one per channel (..., 1, d)."""
    return (x / step).round().clamp(-steps, steps) * step


def agrees(x: Tensor, step: Tensor, steps: int) -> bool:
    """Return whether SpikingJelly's class gives `settled`, in closed form and spike by spike; step (d,)."""
    from spikingjelly.activation_based.ann2snn import SignedQCFSSequenceEncoder

    encoder = SignedQCFSSequenceEncoder(step, steps)
    # Each spike is 0 or ±step: the division is exact, and so is the sum of whole numbers.
    spikes = (encoder.encode(x) / step).sum(0) * step
    wanted = settled(x, step, steps)
    return torch.equal(spikes, wanted) and torch.equal(encoder.reconstruct(x), wanted)


@torch.no_grad()
def main() -> int:
    generator = torch.Generator().manual_seed(0)
    step = torch.rand(64, generator=generator) + 0.01
    random = torch.randn(256, 64, generator=generator)
    halves = (torch.arange(-400, 401)[:, None] / 2) * step  # every boundary of up to 200 levels, and every level
    for steps in (1, 16, 160):
        for name, x in (("random", random * steps * step), ("halves", halves), ("small", random * 1e-3)):
            if not agrees(x, step, steps):
                print(f"NOT EQUAL: {name} numbers, {steps} steps")
                return 1
    print("equal to SpikingJelly's SignedQCFSSequenceEncoder")
    return 0


if __name__ == "__main__":
    sys.exit(main())
