"""NengoLoihi's emulator of Loihi 1: https://github.com/nengo/nengo-loihi.

Its blocks are made in integers here; its own builder scales floats, and rounds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from nengo_loihi.block import Axon, LoihiBlock, Synapse
from nengo_loihi.builder import Model
from nengo_loihi.builder.validate import validate_model
from nengo_loihi.emulator import EmulatorInterface
from nengo_loihi.inputs import SpikeInput
from nengo_loihi.probe import LoihiProbe

from spikeplug.hardware.emulators.layer import Layer, integer_layer, signed_bytes
from spikeplug.hardware.rasters import Integers

#: A weight arrives shifted by as many places, and its own exponent has at most 7 of them.
_PLACES, _WEIGHT_BITS, _BIAS_BITS = 6, 15, 12
_STATE = 1 << 23
_FORGET = 4095


def run(graph: Any, raster: Integers) -> npt.NDArray[Any]:
    """Return the spikes of the output (1, batch, neurons), of all steps together.

    The elements of the batch are copies of the network, each on a core of its own.
    """
    layer = integer_layer(graph, raster, _WEIGHT_BITS, _BIAS_BITS)
    steps, batch, channels = layer.spikes.shape
    model, probes = Model(), []
    for element in range(batch):
        block = _block(layer, layer.bias[element])
        spikes = SpikeInput(channels)
        for step in range(steps):
            sending = np.nonzero(layer.spikes[step, element])[0]
            if sending.size:
                spikes.add_spikes(step + 1, sending, permanent=True)
        for synapse in block.synapses:
            axon = Axon(synapse.n_axons)
            axon.target = synapse
            spikes.add_axon(axon)
        probes.append(LoihiProbe(target=block, key="spiked"))
        model.add_block(block)
        model.add_input(spikes)
        model.add_probe(probes[-1])
    validate_model(model)
    with EmulatorInterface(model, seed=0) as emulator:
        emulator.run_steps(steps + 1 if channels else steps)  # a spike takes a step to arrive
        found = [emulator.collect_probe_output(probe).sum(0) for probe in probes]
    return np.stack(found)[None]


def _block(layer: Layer, bias: Integers) -> Any:
    """Return a core with the neurons of a layer, and synapses for each sign and byte of the weights."""
    block = LoihiBlock(layer.neurons)
    neurons = block.compartment
    neurons.dtype = np.int32
    neurons.scale_u = neurons.scale_v = False
    neurons.vmin, neurons.vmax = 1 - _STATE, _STATE - 1
    neurons.decay_u = np.full(layer.neurons, _FORGET, np.int32)
    neurons.decay_v = np.zeros(layer.neurons, np.int32)
    neurons.bias = (bias << _PLACES).astype(np.int32)
    neurons.vth = (layer.threshold << _PLACES).astype(np.int32)
    targets = np.arange(layer.neurons, dtype=np.int32)[None]
    for sign, exponent, part in signed_bytes(layer.weight):
        synapse = Synapse(part.shape[1])
        weights = [(sign * row << _PLACES + exponent).astype(np.int32)[None] for row in part.T]
        synapse._set_weights_indices(weights, [targets] * part.shape[1], weight_dtype=np.int32)
        block.add_synapse(synapse)
    return block
