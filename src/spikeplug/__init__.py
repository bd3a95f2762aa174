"""Replace every nonlinearity of a Transformer by spiking operators: populations of integer threshold neurons.

  import spikeplug
  report = spikeplug.convert(model)      # any torch module, in place, no training
  spikeplug.revert(model)                # bit-identical to before

Names are imported on first use, so `import spikeplug` and `spikeplug --help` do not load torch.
Once spikeplug is imported, torch loads exported programs with spiking operators, and transformers' own
`from_pretrained` converts again what was saved converted.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

# No other import: the command line starts here, and an interrupt before its own first line shows a traceback.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from typing import Any

    from spikeplug import bench as bench
    from spikeplug import circuit as circuit
    from spikeplug import cli as cli
    from spikeplug import codes as codes
    from spikeplug import conversion as conversion
    from spikeplug import english as english
    from spikeplug import errors as errors
    from spikeplug import evaluation as evaluation
    from spikeplug import evidence as evidence
    from spikeplug import fixedpoint as fixedpoint
    from spikeplug import functional as functional
    from spikeplug import hadamard as hadamard
    from spikeplug import hardware as hardware
    from spikeplug import harness as harness
    from spikeplug import kernels as kernels
    from spikeplug import library as library
    from spikeplug import measurement as measurement
    from spikeplug import neurons as neurons
    from spikeplug import nn as nn
    from spikeplug import numerics as numerics
    from spikeplug import operators as operators
    from spikeplug import presets as presets
    from spikeplug import primitives as primitives
    from spikeplug import progress as progress
    from spikeplug import realisation as realisation
    from spikeplug import report as report
    from spikeplug import saturation as saturation
    from spikeplug import weights as weights
    from spikeplug.conversion import (
        Pipeline,
        SpikingConfig,
        Whole,
        audit,
        convert,
        count,
        explain,
        online,
        recipes,
        revert,
        simulate,
    )
    from spikeplug.errors import SpikeplugError
    from spikeplug.hardware import energy
    from spikeplug.hardware.fit import fit
    from spikeplug.neurons import Events
    from spikeplug.numerics import NUMERICS_VERSION, Numerics
    from spikeplug.operators.recording import circuit_of
    from spikeplug.presets import PRESETS
    from spikeplug.realisation import Realisation
    from spikeplug.saturation import reset_saturations, saturations

__version__ = "0.1.0"

__all__ = [
    "NUMERICS_VERSION",
    "PRESETS",
    "Events",
    "Numerics",
    "Pipeline",
    "Realisation",
    "SpikeplugError",
    "SpikingConfig",
    "Whole",
    "audit",
    "circuit_of",
    "convert",
    "count",
    "energy",
    "explain",
    "fit",
    "functional",
    "nn",
    "online",
    "recipes",
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
    "Pipeline": "conversion",
    "Realisation": "realisation",
    "SpikeplugError": "errors",
    "SpikingConfig": "conversion",
    "Whole": "conversion",
    "audit": "conversion",
    "circuit_of": "operators.recording",
    "convert": "conversion",
    "count": "conversion",
    "energy": "hardware",
    "explain": "conversion",
    "fit": "hardware.fit",
    "online": "conversion",
    "recipes": "conversion",
    "reset_saturations": "saturation",
    "revert": "conversion",
    "saturations": "saturation",
    "simulate": "conversion",
}


_MODULES = frozenset(
    [
        "bench",
        "circuit",
        "cli",
        "codes",
        "conversion",
        "english",
        "errors",
        "evaluation",
        "evidence",
        "fixedpoint",
        "functional",
        "hadamard",
        "hardware",
        "harness",
        "kernels",
        "library",
        "measurement",
        "memory",
        "neurons",
        "nn",
        "numerics",
        "operators",
        "presets",
        "primitives",
        "progress",
        "realisation",
        "report",
        "saturation",
        "weights",
    ]
)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"spikeplug.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'spikeplug' has no attribute {name!r}")
    value = getattr(import_module(f"spikeplug.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES, "__version__"})


class _Registration:
    """Register operators with torch, and the conversion with transformers, right after these have been imported.

    If a module of ours imports them, registration waits until it is complete: it would be imported half.
    """

    def __init__(self) -> None:
        #: What is waited for, and the module whose import registers.
        self._waiting: dict[str, str] = {
            "torch": "spikeplug.library",
            "transformers.modeling_utils": "spikeplug.conversion",
        }
        self._depth = 0

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return the spec that the other finders give, to register after its module has been executed."""
        if name not in self._waiting and not name.startswith("spikeplug."):
            return None
        finders = [finder for finder in sys.meta_path if finder is not self]
        found = (finder.find_spec(name, path, target) for finder in finders if hasattr(finder, "find_spec"))
        spec: Any = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                self._depth += 1
                try:
                    execute(module)
                finally:
                    self._depth -= 1
                self.register()

            spec.loader.exec_module = exec_module
        return spec  # type: ignore[no-any-return]

    def register(self) -> None:
        """Register with what has been imported; stop looking when nothing is left."""
        if self._depth:
            return
        for name, ours in list(self._waiting.items()):
            # What is imported here may come back to this place, and find its own name gone.
            if sys.modules.get(name) is not None and self._waiting.pop(name, ""):
                import_module(ours)
        if not self._waiting and self in sys.meta_path:
            sys.meta_path.remove(self)


# Operators are many short parallel loops. Torch's threads spin while they wait, and take the cores of whoever works: on
# a busy machine that made a run tens of times slower (docs/log.md). It reads this when it is imported.
if "torch" not in sys.modules:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
_registration = _Registration()
sys.meta_path.insert(0, _registration)
_registration.register()
