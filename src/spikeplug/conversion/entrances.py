"""Teach torch's other ways into a module of plugs and scopes: shallow copies, recomputation, threads, symbolic
tracing.

Each of them goes past a module's `forward`, or calls a part of it after the scope was left.
What cannot be made right is refused.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch.utils.checkpoint
from torch import fx, nn

from spikeplug.conversion.plug import plug_of
from spikeplug.conversion.redirection import in_scope, only
from spikeplug.errors import SpikeplugError


def _after(owner: Any, name: str, then: Callable[..., None]) -> None:
    """Replace the method `name` of `owner` by one that calls it, then `then(result, *arguments)`.

    owner  a class of torch's, which is changed for the whole process
    """
    original = getattr(owner, name)

    @functools.wraps(original)
    def method(*arguments: Any, **keywords: Any) -> Any:
        result = original(*arguments, **keywords)
        then(result, *arguments)
        return result

    setattr(owner, name, method)


def _rehome(module: nn.Module) -> None:
    """Give a shallow copy of a converted module a plug of its own: it still has the plug that runs the original."""
    plug = plug_of(module)
    if plug is not None and plug.module is not module:
        plug.moved_to(module)


def _refuse_symbolic_trace(root: Any) -> None:
    """Raise SpikeplugError if a module to be traced has a plug: the tracer would read its class's forward instead."""
    if isinstance(root, nn.Module) and any(plug_of(module) is not None for module in root.modules()):
        raise SpikeplugError(
            f"torch.fx would trace {type(root).__name__} without its spiking operators: use torch.export.export, or "
            "revert the model first."
        )


def _keep_scope_of_threads() -> None:
    """Let a new thread, or a call submitted to a thread pool, run under the redirection active where it is started."""
    start: Any = threading.Thread.start
    submit: Any = ThreadPoolExecutor.submit

    @functools.wraps(start)
    def started(thread: threading.Thread) -> None:
        own = thread.run
        run = in_scope(own)
        if run is not own:
            setattr(thread, "run", run)  # noqa: B010
        start(thread)

    @functools.wraps(submit)
    def submitted(pool: ThreadPoolExecutor, function: Any, /, *arguments: Any, **keywords: Any) -> Any:
        bound = in_scope(function)
        if bound is function:
            return submit(pool, function, *arguments, **keywords)
        with only(None):  # a worker that this call starts serves others, too
            return submit(pool, bound, *arguments, **keywords)

    setattr(threading.Thread, "start", started)  # noqa: B010
    setattr(ThreadPoolExecutor, "submit", submitted)  # noqa: B010


def install() -> None:
    """Wrap, for the whole process, the functions of torch and Python that would run a converted module's code exactly.

    These are shallow copies of modules, recomputation by torch.utils.checkpoint, threads, and torch.fx's tracer.
    """
    # copy.copy, and torch's own replicas, share the attributes of the original.
    _after(nn.Module, "__setstate__", lambda result, module, *_: _rehome(module))
    _after(nn.Module, "_replicate_for_data_parallel", lambda replica, *_: _rehome(replica))
    _keep_scope_of_recomputation()
    _keep_scope_of_threads()
    trace = fx.Tracer.trace

    @functools.wraps(trace)
    def checked(tracer: Any, root: Any, *arguments: Any, **keywords: Any) -> Any:
        _refuse_symbolic_trace(root)
        return trace(tracer, root, *arguments, **keywords)

    setattr(fx.Tracer, "trace", checked)  # noqa: B010


def _keep_scope_of_recomputation() -> None:
    """Let torch.utils.checkpoint recompute, in the backward pass, under the redirection active in the forward pass."""
    # What `checkpoint` looks up when it is called, so that it does not matter who imported it before.
    checkpoint: Any = torch.utils.checkpoint
    generator, reentrant = checkpoint._checkpoint_without_reentrant_generator, checkpoint.CheckpointFunction.forward

    @functools.wraps(generator)
    def recomputing(function: Any, *arguments: Any, **keywords: Any) -> Any:
        return generator(in_scope(function), *arguments, **keywords)

    @functools.wraps(reentrant)
    def forward(ctx: Any, function: Any, *arguments: Any) -> Any:
        return reentrant(ctx, in_scope(function), *arguments)

    setattr(checkpoint, "_checkpoint_without_reentrant_generator", recomputing)  # noqa: B010
    setattr(checkpoint.CheckpointFunction, "forward", staticmethod(forward))  # noqa: B010
