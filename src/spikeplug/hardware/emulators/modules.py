"""Step a torch module that a simulator made of a graph, and collect what it gives."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch

from spikeplug.hardware.rasters import Integers


@torch.no_grad()
def stepped(module: Any, raster: Integers) -> npt.NDArray[Any]:
    """Return the outputs (steps, batch, neurons) of module(input, state) -> output, state."""
    state, outputs = None, []
    for step in torch.from_numpy(raster).float():
        output, state = module(step, state)
        outputs.append(output[0] if isinstance(output, tuple) else output)
    found: npt.NDArray[Any] = torch.stack(outputs).numpy()
    return found
