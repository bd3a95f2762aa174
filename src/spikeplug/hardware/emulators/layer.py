"""One layer of integer neurons, read from a graph: for simulators of chips, whose spikes are 0 or 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from spikeplug.errors import SpikeplugError
from spikeplug.hardware.emulators import node
from spikeplug.hardware.rasters import Integers, described, unary


@dataclass(frozen=True)
class Layer:
    """Hold a layer of neurons that keep their membrane, and fire in the last step alone where v > threshold.

    weight     (neurons, channels)
    threshold  (neurons,)
    spikes     0 or 1, (steps, batch, channels)
    bias       (batch, neurons), of every step
    """

    weight: Integers
    threshold: Integers
    spikes: Integers
    bias: Integers

    @property
    def neurons(self) -> int:
        """Return the number of neurons."""
        return len(self.threshold)


def integer_layer(graph: Any, raster: Integers, weight_bits: int, bias_bits: int) -> Layer:
    """Return the layer of a graph.

    Graded spikes are sent one by one, in as many steps: the neurons keep what they have. A graph of one step leaves no
    time for that; there, what arrives is a bias.
    Errors: SpikeplugError for weights and biases that do not fit, and for a bias in a graph of several steps.
    """
    affine, cell = node(graph, ["Affine"]), node(graph, ["IF"])
    weight, bias = np.rint(affine.weight).astype(np.int64), np.rint(affine.bias).astype(np.int64)
    threshold = np.floor(cell.v_threshold).astype(np.int64)
    steps, batch, channels = raster.shape
    if int(described(graph)["steps"]) == 1:
        bias = raster[0] @ weight[:, :channels].T + bias
        raster, weight = np.zeros((steps, batch, 0), np.int64), weight[:, :0]
    elif bias.any() or raster[-1].max(initial=0) > 1:
        raise SpikeplugError("this simulator runs no graph of several steps with a bias or graded spikes in the last.")
    else:
        raster, bias = unary(raster), np.zeros((batch, len(threshold)), np.int64)
    for what, x, bits in (("weight", weight, weight_bits), ("bias", bias, bias_bits)):
        largest = int(np.abs(x).max(initial=0))
        if largest >> bits:
            raise SpikeplugError(f"a {what} of {largest} does not fit the {bits} bits that this simulator has for it.")
    return Layer(weight, threshold, raster, bias)


def signed_bytes(weight: Integers) -> list[tuple[int, int, Integers]]:
    """Return (sign, exponent, part) with weight = Σ sign · part · 2^exponent, and every part in [0, 2^8)."""
    found = []
    for sign in (1, -1):
        size = np.maximum(sign * weight, 0)
        for exponent in range(0, int(size.max(initial=0)).bit_length(), 8):
            part = size >> exponent & 255
            if part.any():
                found.append((sign, exponent, part))
    return found
