"""snnTorch: https://github.com/jeshraghian/snntorch."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import numpy.typing as npt
import snntorch
from snntorch.import_nir import import_from_nir

from spikeplug.errors import SpikeplugError
from spikeplug.hardware.emulators import node
from spikeplug.hardware.emulators.modules import stepped
from spikeplug.hardware.rasters import Integers


def run(graph: Any, raster: Integers) -> npt.NDArray[Any]:
    """Return the spikes of the output (steps, batch, neurons)."""
    if np.unique(node(graph, ["IF"]).v_threshold).size > 1:
        raise SpikeplugError("snntorch cannot run it: its populations have one threshold for all neurons.")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        module = import_from_nir(graph)
    for part in module.modules():
        if isinstance(part, snntorch.Leaky):
            part.beta.fill_(1.0)  # it reads an IF as a leak of 0.9
    return stepped(module, raster)
