"""Norse: https://github.com/norse/norse."""

from __future__ import annotations

from typing import Any

import norse.torch
import numpy.typing as npt
from norse.torch.functional.reset import reset_subtract

from spikeplug.hardware.emulators.modules import stepped
from spikeplug.hardware.rasters import Integers, described


def run(graph: Any, raster: Integers) -> npt.NDArray[Any]:
    """Return the spikes of the output (steps, batch, neurons)."""
    about = described(graph)
    options = {"reset_method": reset_subtract} if str(about["reset"]) == "subtract" else {}
    return stepped(norse.torch.from_nir(graph, dt=float(about["time_step"]), **options), raster)
