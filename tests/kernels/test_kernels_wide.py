"""Kernels and what they call ask LLVM for vectors of 512 bits where there are any; a user's own Numba code does not."""

from __future__ import annotations

import pytest

from spikeplug.kernels import enabled

pytestmark = pytest.mark.skipif(not enabled(), reason="kernels are switched off")


def attributes_of(text):
    """Return the attributes of each of this package's functions that is defined in `text`, in LLVM's language."""
    import llvmlite.binding as llvm

    defined = [function for function in llvm.parse_assembly(text).functions if not function.is_declaration]
    return {
        function.name: b" ".join(function.attributes).decode()
        for function in defined
        if "spikeplug" in function.name and not function.name.startswith("cfunc.")
    }


def test_a_kernel_and_what_it_calls_have_the_attribute():
    from numba.core.ccallback import CFunc

    from spikeplug.kernels.cpu import compile as compiling
    from spikeplug.kernels.cpu.norms import norm_kernel
    from spikeplug.kernels.cpu.verbs import OPTIONS
    from spikeplug.kernels.cpu.wide import ATTRIBUTE, WIDE_VECTORS

    if not WIDE_VECTORS:
        pytest.skip("the processor has no vectors of 512 bits")
    code = CFunc(norm_kernel._function, compiling._SIGNATURE, {}, OPTIONS, pipeline_class=compiling._Logged)
    code.compile()
    found = attributes_of(code.inspect_llvm())
    assert len(found) > 1
    assert all(ATTRIBUTE in attributes for attributes in found.values()), found


def test_other_functions_do_not():
    import numba

    from spikeplug.kernels.cpu.wide import ATTRIBUTE

    doubled = numba.njit("float32(float32)")(lambda x: x + x)
    (text,) = doubled.inspect_llvm().values()
    assert "define" in text
    assert ATTRIBUTE not in text
