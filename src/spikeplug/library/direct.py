"""Whether a call may go straight to its kernel: a torch op called from Python takes longer than the work of one token.

Only where no one between the caller and the op would notice: no gradient, compiler, trace, mode, transform, profiler or
tensor subclass. Some of these torch tells by private names alone; tests/library/test_direct.py asks for each.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, overrides
from torch.autograd import forward_ad

from spikeplug.kernels.registry import DEVICES, PLAIN


def _is_watched() -> bool:
    """A dispatch mode, transform, profiler, trace, dual level, or a function mode that does not let operators pass."""
    modes = overrides._get_current_function_mode_stack()
    return (
        torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._autograd._profiler_enabled()
        or torch._C._get_tracing_state() is not None
        or forward_ad._current_level >= 0
        or not all(getattr(mode, "lets_operators_pass", False) for mode in modes)
    )


def may_go_direct(arguments: tuple[Any, ...]) -> bool:
    """Whether a kernel called with these arguments does all that the torch op would do."""
    if torch.compiler.is_compiling() or _is_watched():
        return False
    with torch._C.DisableTorchFunction():  # or every look at an attribute is a call of each mode
        graded = torch.is_grad_enabled()
        return all(
            type(x) in PLAIN and x.device.type in DEVICES and not (graded and x.requires_grad)
            for x in arguments
            if isinstance(x, Tensor)
        )
