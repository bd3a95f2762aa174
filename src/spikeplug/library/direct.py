"""Whether a call may go straight to its kernel: a torch op called from Python takes longer than the work of one token.

Only where no one between the caller and the op would notice: no gradient, compiler, trace, mode, transform, profiler or
tensor subclass. Whatever torch does not tell is taken as watching.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, overrides
from torch.autograd import forward_ad

_PLAIN = frozenset({Tensor, torch.nn.Parameter})
_DEVICES = frozenset({"cpu", "cuda"})


def _unwatched() -> list[Callable[[], bool]]:
    """Questions to torch, each of whose answers must be yes. They are no public interface: none may be missing."""
    functorch, autograd = torch._C._functorch, torch._C._autograd
    return [
        lambda: torch._C._len_torch_dispatch_stack() == 0,
        lambda: functorch.peek_interpreter_stack() is None,
        lambda: not autograd._profiler_enabled(),
        lambda: torch._C._get_tracing_state() is None,
        lambda: forward_ad._current_level < 0,
        lambda: all(
            getattr(mode, "lets_operators_pass", False) for mode in overrides._get_current_function_mode_stack()
        ),
    ]


_QUESTIONS = _unwatched()


def may_go_direct(arguments: tuple[Any, ...]) -> bool:
    """Whether a kernel called with these arguments does all that the torch op would do."""
    if torch.compiler.is_compiling():
        return False
    graded = torch.is_grad_enabled()
    for x in arguments:
        if isinstance(x, Tensor) and (
            type(x) not in _PLAIN or x.device.type not in _DEVICES or (graded and x.requires_grad)
        ):
            return False
    return all(question() for question in _QUESTIONS)
