"""SpikingJelly: https://github.com/fangwei123456/spikingjelly."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from spikingjelly.activation_based.nir_exchange.from_nir import import_from_nir

from spikeplug.errors import SpikeplugError
from spikeplug.hardware.emulators import node
from spikeplug.hardware.emulators.modules import stepped
from spikeplug.hardware.rasters import Integers, described


def run(graph: Any, raster: Integers) -> npt.NDArray[Any]:
    """Return the spikes of the output (steps, batch, neurons)."""
    if np.unique(node(graph, ["IF"]).v_threshold).size > 1:
        raise SpikeplugError("spikingjelly cannot run it: its populations have one threshold for all neurons.")
    return stepped(import_from_nir(graph, dt=float(described(graph)["time_step"])), raster)
