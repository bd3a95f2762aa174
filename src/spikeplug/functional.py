"""The spiking operators on float tensors: `spikeplug.functional.softmax(x)` in place of `torch.softmax(x, -1)`."""

from spikeplug.operators import attention, rms_norm, silu, softmax

__all__ = ["attention", "rms_norm", "silu", "softmax"]
