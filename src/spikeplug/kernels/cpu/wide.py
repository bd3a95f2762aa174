"""Let LLVM use vectors of 512 bits in the loops of kernels, where the processor has them.

LLVM prefers 256 bits on several processors that have 512. Numba has one setting for all code in a process, and that is
the user's. An attribute of a function overrules it for this function.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from numba import config
from numba.core.compiler import Compiler
from numba.core.compiler_machinery import register_pass
from numba.core.lowering import Lower
from numba.core.typed_passes import NativeLowering


def _has_wide_vectors() -> bool:
    """Return whether Numba compiles for vectors of 512 bits with instructions on all integers; else they have 256."""
    features: str | None = config.CPU_FEATURES  # type: ignore[attr-defined]
    if features is not None:
        return "+avx512bw" in features.split(",")
    return bool(llvm.get_host_cpu_features().get("avx512bw"))


WIDE_VECTORS = _has_wide_vectors()
#: LLVM's function attribute, as its language spells it.
ATTRIBUTE = '"prefer-vector-width"="512"'


class _WideLower(Lower):
    """Write a function in LLVM's language, with the attribute."""

    def setup_function(self, fndesc: Any) -> None:
        super().setup_function(fndesc)
        if WIDE_VECTORS:
            # The attributes are a set that is printed as it is. Its own `add` refuses all that llvmlite does not list.
            set.add(self.function.attributes, ATTRIBUTE)


@register_pass(mutates_CFG=True, analysis_only=False)
class _WideLowering(NativeLowering):
    """Replace Numba's pass that writes a function in LLVM's language."""

    _name = "wide_native_lowering"

    @property
    def lowering_class(self) -> type[Lower]:
        return _WideLower


class WideCompiler(Compiler):
    """Compile a function with the attribute. The functions it calls need this compiler, too: each keeps its own."""

    def define_pipelines(self) -> Any:
        pipelines = super().define_pipelines()
        for pipeline in pipelines:
            pipeline.passes = [
                (_WideLowering if step is NativeLowering else step, text) for step, text in pipeline.passes
            ]
            pipeline.finalize()
        return pipelines
