"""Replace every nonlinearity of a Transformer by spiking operators: populations of integer threshold neurons.

  import spikeplug
  report = spikeplug.convert(model)      # any torch module, in place, no training
  spikeplug.revert(model)                # bit-identical to before

Names are imported on first use, so `import spikeplug` and `spikeplug --help` do not load torch.
Once spikeplug is imported, transformers' own `from_pretrained` converts again what was saved converted.
"""

from __future__ import annotations

import sys
from importlib import import_module

# No other import: the command line starts here, and an interrupt before its own first line shows a traceback.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from typing import Any

    import spikeplug.functional as functional
    import spikeplug.nn as nn
    from spikeplug.conversion import SpikingConfig, audit, convert, explain, revert, simulate
    from spikeplug.errors import SpikeplugError
    from spikeplug.neurons import Events
    from spikeplug.numerics import NUMERICS_VERSION, Numerics
    from spikeplug.presets import PRESETS
    from spikeplug.realisation import Realisation
    from spikeplug.saturation import reset_saturations, saturations

__version__ = "0.1.0"

__all__ = [
    "NUMERICS_VERSION",
    "PRESETS",
    "Events",
    "Numerics",
    "Realisation",
    "SpikeplugError",
    "SpikingConfig",
    "audit",
    "convert",
    "explain",
    "functional",
    "nn",
    "reset_saturations",
    "revert",
    "saturations",
    "simulate",
]

_HOME = {
    "NUMERICS_VERSION": "numerics",
    "Events": "neurons",
    "Numerics": "numerics",
    "PRESETS": "presets",
    "Realisation": "realisation",
    "SpikeplugError": "errors",
    "SpikingConfig": "conversion",
    "audit": "conversion",
    "convert": "conversion",
    "explain": "conversion",
    "reset_saturations": "saturation",
    "revert": "conversion",
    "saturations": "saturation",
    "simulate": "conversion",
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


class _TransformersLoader:
    """Register the conversion with transformers, right after transformers has imported what loads models."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != _LOADS_MODELS:
            return None
        sys.meta_path.remove(self)
        from importlib.util import find_spec

        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                execute(module)
                import_module("spikeplug.conversion")

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


_LOADS_MODELS = "transformers.modeling_utils"
if _LOADS_MODELS in sys.modules:
    import_module("spikeplug.conversion")
else:
    sys.meta_path.insert(0, _TransformersLoader())
