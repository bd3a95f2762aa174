"""Turn operands into the spikes that an exported graph takes, and its spikes into an integer. Needs numpy alone.

An exported graph says in its metadata how: so a file is enough, in any environment, without the circuit it came from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from spikeplug.errors import SpikeplugError

Integers = npt.NDArray[np.int64]
#: Under this name, the metadata of a graph holds what NIR has no field for.
METADATA = "spikeplug"


def described(graph: Any) -> Mapping[str, Any]:
    """Return what the metadata of an exported graph says. Errors: SpikeplugError for a graph from elsewhere."""
    found = graph.metadata.get(METADATA)
    if found is None:
        raise SpikeplugError("this NIR graph does not say how its operands are sent: give one that spikeplug exported.")
    return dict(found)


def encode(graph: Any, operands: Mapping[str, Integers | Sequence[int]]) -> Integers:
    """Return the spikes (steps, batch, channels) that send the operands, integers (batch,) or (batch, elements).

    Errors: SpikeplugError for operands that are missing, or out of the bounds that the graph states.
    """
    about = described(graph)
    inputs = [about["inputs"][key] for key in sorted(about["inputs"], key=int)]
    wanted = sorted({str(channel["operand"]) for channel in inputs} - {""})
    if sorted(operands) != wanted:
        raise SpikeplugError(f"the graph takes the operands {wanted}, not {sorted(operands)}: give integers for each.")
    columns = {name: _column(name, x) for name, x in operands.items()}
    batch = len(next(iter(columns.values()))) if columns else 1
    if any(len(x) != batch for x in columns.values()):
        raise SpikeplugError("the operands have batches of several sizes: give as many integers of each.")
    steps = int(about["steps"])
    raster = np.zeros((steps, batch, len(inputs)), np.int64)
    for number, channel in enumerate(inputs):
        name = str(channel["operand"])
        place = int(channel["place"])
        if name and columns[name].shape[1] <= place:
            raise SpikeplugError(f"the operand {name!r} has more than {place} elements: give (batch, elements).")
        x = columns[name][:, place] if name else np.ones(batch, np.int64)
        low, high = int(channel["low"]), int(channel["high"])
        if len(x) and (x.min() < low or x.max() > high):
            raise SpikeplugError(f"the operand {name!r} must lie in [{low}, {high}]: shift or saturate it first.")
        for step in range(steps):
            raster[step, :, number] = sent(channel, x, step)
    return raster


def _column(name: str, x: Integers | Sequence[int]) -> Integers:
    given = np.asarray(x)
    if given.dtype.kind not in "iu" or given.ndim == 0:
        raise SpikeplugError(f"the operand {name!r} is no array of integers: give (batch,) or (batch, elements).")
    return given.astype(np.int64).reshape(len(given), int(np.prod(given.shape[1:])))


def sent(channel: Mapping[str, Any], x: Integers, step: int) -> Integers:
    """Return the spikes of one step; the forms are those of `circuit.Train`."""
    form, only = str(channel["form"]), int(channel["only"])
    if only not in (-1, step):
        return np.zeros_like(x)
    if form in ("bits", "magnitude"):
        steps, digits = int(channel["steps"]), int(channel["digits"])
        if step >= steps:
            return np.zeros_like(x)
        digit = np.abs(x) >> (steps - 1 - step) * digits & ((1 << digits) - 1)
        return np.asarray(digit * np.sign(x) if form == "bits" else digit, np.int64)
    if form == "graded":
        return x
    if form == "until":
        return (x > step).astype(np.int64)
    return (x < 0 if form == "negative" else x > 0).astype(np.int64)


def decode(graph: Any, output: npt.NDArray[Any]) -> Integers:
    """Return the integer (batch,) of what the graph's output gives, (steps, batch, neurons)."""
    about = described(graph)
    read = about["readout"]
    if str(read["of"]) == "membrane":
        membrane: Integers = np.rint(output[-1, :, 0]).astype(np.int64)
        return membrane
    spikes = np.rint(output).astype(np.int64) @ np.asarray(read["weights"], np.int64)
    total = np.zeros(spikes.shape[1], np.int64)
    limit = int(read["limit"])
    for step in spikes:
        total = (total << int(read["leak"])) * int(read["keeps"]) + step
        if limit >= 0:
            total = np.minimum(total, limit)
    return total


def unary(raster: Integers) -> Integers:
    """Return the same spikes with at most one per step and channel: a step takes as many as its largest spike.

    A neuron without leak integrates the same. Errors: SpikeplugError for negative spikes, which no axon carries.
    """
    if raster.size and raster.min() < 0:
        raise SpikeplugError("spikes of either sign need two axons, so they are not sent one per step.")
    most = [max(1, int(step.max())) if step.size else 1 for step in raster]
    pieces = [
        np.stack([(step > place).astype(np.int64) for place in range(size)])
        for step, size in zip(raster, most, strict=True)
    ]
    return np.concatenate(pieces)
