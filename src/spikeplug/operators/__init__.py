"""Define the spiking operators: encode, compose primitives, decode. `RECORDS` holds everything known of each."""

from collections.abc import Mapping

from spikeplug.operators.attention import attention, attention_weights
from spikeplug.operators.curves import hardswish, mish, relu_squared, softplus, tanh
from spikeplug.operators.elements import divide, exp, log, reciprocal, rsqrt, sqrt, square
from spikeplug.operators.gates import gelu, sigmoid, silu
from spikeplug.operators.linear import add, gif, linear, matmul, multiply, neuron, quantise, rotary, sum
from spikeplug.operators.norms import layer_norm, rms_norm, vector_norm
from spikeplug.operators.record import Operator
from spikeplug.operators.softmax import log_softmax, softmax
from spikeplug.operators.waves import cos, sin

__all__ = ["LINEAR", "RECORDS", "Operator"]

_FILES = (
    *(softmax, log_softmax, attention, attention_weights),
    *(silu, gelu, sigmoid, tanh, softplus, mish, relu_squared, hardswish),
    *(rms_norm, layer_norm, vector_norm),
    *(cos, sin, exp, log, sqrt, rsqrt, square, reciprocal, divide),
)
#: Every operator by name. Functions, modules, redirection, audit, measurements and docs derive from it.
RECORDS: Mapping[str, Operator] = {file.RECORD.name: file.RECORD for file in _FILES}

#: The linear operators by name, which whole spiking models run; recipes of other pipelines run `neuron` and `gif`.
LINEAR: Mapping[str, Operator] = {
    file.RECORD.name: file.RECORD for file in (linear, matmul, add, multiply, sum, quantise, rotary, neuron, gif)
}
