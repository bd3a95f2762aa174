"""Operators as loops that Numba compiles when first used, for the machine they run on, and keeps on disk."""

from __future__ import annotations

from numba import config

from spikeplug.kernels.protocol import Kernel

if config.DISABLE_JIT:  # type: ignore[attr-defined]
    raise ImportError("NUMBA_DISABLE_JIT is set")

from spikeplug.kernels.cpu.attention import Attention
from spikeplug.kernels.cpu.gates import Gated
from spikeplug.kernels.cpu.linear import Linear
from spikeplug.kernels.cpu.matmul import Matmul
from spikeplug.kernels.cpu.neuron import Neuron
from spikeplug.kernels.cpu.norms import Norm
from spikeplug.kernels.cpu.pairs import Pair
from spikeplug.kernels.cpu.quantise import Quantise
from spikeplug.kernels.cpu.rotary import Rotary
from spikeplug.kernels.cpu.softmax import Softmax
from spikeplug.kernels.cpu.waves import Wave
from spikeplug.operators.gates.sigmoid import GATE as SIGMOID
from spikeplug.operators.gates.silu import GATE as SILU

KERNELS: dict[str, Kernel] = {
    "softmax": Softmax(),
    "silu": Gated(SILU),
    "gelu": Gated(None),
    "sigmoid": Gated(SIGMOID, amplitude=False),
    "rms_norm": Norm(),
    "layer_norm": Norm(),
    "attention": Attention(),
    "cos": Wave(1),
    "sin": Wave(0),
    "linear": Linear(),
    "matmul": Matmul(),
    "add": Pair(product=False),
    "multiply": Pair(product=True),
    "neuron": Neuron(),
    "quantise": Quantise(),
    "rotary": Rotary(),
}
