"""Operators as Triton kernels for NVIDIA GPUs, each equal to its closed form by torch.equal. See README.md here."""

from __future__ import annotations

from importlib.util import find_spec

from spikeplug.kernels.protocol import Kernel

if find_spec("triton") is None:  # said here, where the registry asks, and not in the middle of a model
    raise ImportError("no module named triton")

from spikeplug.kernels.gpu.attention import Attention
from spikeplug.kernels.gpu.gates import Gated
from spikeplug.kernels.gpu.layer_norm import LayerNorm
from spikeplug.kernels.gpu.linear import Linear
from spikeplug.kernels.gpu.pairs import Pair
from spikeplug.kernels.gpu.quantise import Quantise
from spikeplug.kernels.gpu.rms_norm import RMSNorm
from spikeplug.kernels.gpu.self_test import SelfTested, linear_calls, pair_calls, quantise_calls
from spikeplug.kernels.gpu.softmax import Softmax
from spikeplug.operators.gates.sigmoid import GATE as SIGMOID
from spikeplug.operators.gates.silu import GATE as SILU

KERNELS: dict[str, Kernel] = {
    "softmax": Softmax(),
    "silu": Gated(SILU),
    "sigmoid": Gated(SIGMOID, amplitude=False),
    "gelu": Gated(None),
    "rms_norm": RMSNorm(),
    "layer_norm": LayerNorm(),
    "attention": Attention(),
    "linear": SelfTested("linear", Linear(), linear_calls),
    "add": SelfTested("add", Pair(product=False), pair_calls),
    "multiply": SelfTested("multiply", Pair(product=True), pair_calls),
    "quantise": SelfTested("quantise", Quantise(), quantise_calls),
}
