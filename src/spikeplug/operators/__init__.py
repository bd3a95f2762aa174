"""Spiking operators: encode, compose primitives, decode."""

from spikeplug.operators.activations import gelu, mish, relu_squared, sigmoid, silu, softplus, tanh
from spikeplug.operators.attention import attention, attention_weights
from spikeplug.operators.layer_norm import layer_norm
from spikeplug.operators.log_softmax import log_softmax
from spikeplug.operators.logarithm import log
from spikeplug.operators.powers import exp, rsqrt, sqrt, square, vector_norm
from spikeplug.operators.quotients import divide, reciprocal
from spikeplug.operators.rms_norm import rms_norm
from spikeplug.operators.rotary import cos, sin
from spikeplug.operators.softmax import softmax

__all__ = [
    "attention",
    "attention_weights",
    "cos",
    "divide",
    "exp",
    "gelu",
    "layer_norm",
    "log",
    "log_softmax",
    "mish",
    "reciprocal",
    "relu_squared",
    "rms_norm",
    "rsqrt",
    "sigmoid",
    "silu",
    "sin",
    "softmax",
    "softplus",
    "sqrt",
    "square",
    "tanh",
    "vector_norm",
]
