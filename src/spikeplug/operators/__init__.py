"""Spiking operators: encode, compose primitives, decode."""

from spikeplug.operators.attention import attention
from spikeplug.operators.rms_norm import rms_norm
from spikeplug.operators.silu import silu
from spikeplug.operators.softmax import softmax

__all__ = ["attention", "rms_norm", "silu", "softmax"]
