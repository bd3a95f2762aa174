"""sinabs: https://github.com/synsense/sinabs."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import sinabs.layers
import torch
from sinabs.activation import SingleSpike
from sinabs.nir import from_nir

from spikeplug.hardware.rasters import Integers


@torch.no_grad()
def run(graph: Any, raster: Integers) -> npt.NDArray[Any]:
    """Return the spikes of the output (steps, batch, neurons)."""
    steps, batch, channels = raster.shape
    module = from_nir(graph, batch_size=batch)
    for part in module.modules():
        if isinstance(part, sinabs.layers.IAFSqueeze):
            part.min_v_mem, part.spike_fn = None, SingleSpike
    # Its layers take all steps at once, (batch · steps, channels).
    output = module(torch.from_numpy(raster).float().transpose(0, 1).reshape(batch * steps, channels))
    spikes = output[0] if isinstance(output, tuple) else output
    found: npt.NDArray[Any] = spikes.view(batch, steps, -1).transpose(0, 1).numpy()
    return found
