"""Lava's fixed-point models of Loihi: https://github.com/lava-nc/lava."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.dense.process import Dense
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer as Source
from lava.proc.lif.process import LIF

from spikeplug.hardware.emulators.layer import integer_layer, signed_bytes
from spikeplug.hardware.rasters import Integers

#: Currents arrive at a neuron as 16-bit integers and are then shifted by 6 places, as a bias is by its exponent.
_WEIGHT_BITS, _BIAS_BITS, _PLACES = 9, 12, 6
#: The decay of a synaptic current that leaves nothing of it: 4095, and the 1 that Loihi adds.
_FORGET = 4095


def run(graph: Any, raster: Integers) -> npt.NDArray[Any]:
    """Return the spikes of the output (1, batch, neurons), of all steps together.

    The elements of the batch are copies of the network, side by side.
    """
    layer = integer_layer(graph, raster, _WEIGHT_BITS, _BIAS_BITS)
    steps, batch, channels = layer.spikes.shape
    neurons = LIF(
        shape=(batch * layer.neurons,),
        du=_FORGET,
        dv=0,
        vth=np.tile(layer.threshold, batch).astype(np.int32),
        bias_mant=layer.bias.ravel().astype(np.int32),
        bias_exp=_PLACES,
    )
    if channels:
        # A spike is in the synapse for a step, and one more passes before the sink has it. A source would start again.
        steps += 2
        silence = np.zeros((2, batch * channels), np.int64)
        spikes = np.concatenate((layer.spikes.reshape(-1, batch * channels), silence))
        source = Source(data=spikes.T.astype(np.int32))
        # Mixed signs would lose the lowest bit of a weight, so each sign has synapses of its own; and each byte.
        for sign, exponent, part in signed_bytes(layer.weight):
            copies = np.kron(np.eye(batch, dtype=np.int32), sign * part.astype(np.int32))
            synapses = Dense(weights=copies, weight_exp=exponent)
            source.s_out.connect(synapses.s_in)
            synapses.a_out.connect(neurons.a_in)
    sink = Sink(shape=(batch * layer.neurons,), buffer=steps)
    neurons.s_out.connect(sink.a_in)
    neurons.run(condition=RunSteps(num_steps=steps), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
    found = sink.data.get()
    neurons.stop()
    fired: npt.NDArray[Any] = found.sum(-1).reshape(1, batch, layer.neurons)
    return fired
