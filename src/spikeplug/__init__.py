"""Spiking operators for Transformers: softmax, SiLU and RMSNorm as populations of integer threshold neurons.

    import spikeplug
    report = spikeplug.convert(model)      # a LLaMA-family Hugging Face model, in place, no training
    spikeplug.revert(model)                # bit-identical to before

Names are imported on first use, so that `import spikeplug` and `spikeplug --help` do not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import spikeplug.functional as functional
    import spikeplug.nn as nn
    from spikeplug.config import NUMERICS_VERSION, SpikeConfig, resolve_config
    from spikeplug.conversion import audit, convert, revert
    from spikeplug.errors import SpikeplugError
    from spikeplug.neurons import Events
    from spikeplug.saturation import reset_saturations, saturations

__version__ = "0.1.0"

__all__ = [
    "NUMERICS_VERSION",
    "Events",
    "SpikeConfig",
    "SpikeplugError",
    "audit",
    "convert",
    "functional",
    "nn",
    "reset_saturations",
    "resolve_config",
    "revert",
    "saturations",
]

_HOME = {
    "NUMERICS_VERSION": "config",
    "Events": "neurons",
    "SpikeConfig": "config",
    "SpikeplugError": "errors",
    "audit": "conversion",
    "convert": "conversion",
    "reset_saturations": "saturation",
    "resolve_config": "config",
    "revert": "conversion",
    "saturations": "saturation",
}


def __getattr__(name: str) -> Any:
    if name in ("functional", "nn"):
        return import_module(f"spikeplug.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'spikeplug' has no attribute {name!r}")
    value = getattr(import_module(f"spikeplug.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
