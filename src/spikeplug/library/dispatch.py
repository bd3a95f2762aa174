"""Run an operator: simulate it, or predict its events, if somebody counts them; else run its kernel or closed form.

One file, because every call passes through all of it: a torch op called from Python, or a few more functions, take
longer than the work of one token.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from spikeplug.codes import affine, as_real
from spikeplug.errors import SpikeplugError
from spikeplug.kernels import registry
from spikeplug.kernels.protocol import PLAIN, VALUES, Call
from spikeplug.kernels.registry import DEVICES, device_type
from spikeplug.library import torch_op
from spikeplug.library.layouts import is_plain, on_values
from spikeplug.library.transforms import Differentiable, has_duals
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.presets import as_numerics
from spikeplug.realisation import Realisation
from spikeplug.saturation import not_recorded

_DEFAULT = as_numerics(None)
_LOG = logging.getLogger("spikeplug")


class Counter(Protocol):
    """Define what an object needs to have operators simulated, or their events predicted, and to receive the events.

    realisation: the neurons that are simulated; None: those of the preset with the operator's numerics.
    predicted: whether events are predicted, without time steps.
    """

    realisation: Realisation | None
    predicted: bool

    def wants(self) -> bool:
        """Return whether the operator that is about to run is to be counted."""

    def add(self, operator: str, events: Events) -> None:
        """Add the events of one call of an operator."""


# A context variable: whoever counts sees its own thread (or asyncio task) only; other threads run in closed form.
_counters: ContextVar[tuple[Counter, ...]] = ContextVar("spikeplug_counters", default=())


@contextmanager
def counted_by(counter: Counter) -> Iterator[None]:
    """Count the operators that run in the block, as far as `counter` wants, and give it their events.

    In nested blocks, every counter receives them. Other threads and asyncio tasks are not affected.
    """
    if not counter.predicted:
        _advise_on_threads()
    token = _counters.set((*_counters.get(), counter))
    try:
        yield
    finally:
        _counters.reset(token)


Substitute = Callable[[Call, str], Tensor | None]
# The same for whoever gives results in the operators' place.
_substitute: ContextVar[Substitute | None] = ContextVar("spikeplug_substitute", default=None)


@contextmanager
def substituted_by(substitute: Substitute) -> Iterator[None]:
    """Ask substitute(call, part) before every operator that is called in the block.

    It returns the result, or None to let the operator run. Operators that it calls itself run as usual.
    part  what the result is for, such as "key", where a module calls an operator for several things; empty elsewhere,
          and where a gradient, compiler or dispatch mode takes part

    Other threads and asyncio tasks are not affected.
    """
    token = _substitute.set(substitute)
    try:
        yield
    finally:
        _substitute.reset(token)


def is_substituted() -> bool:
    """Return whether somebody is asked for results in the operators' place, in this thread or task."""
    return _substitute.get() is not None


def active_counters() -> list[Counter]:
    """Return the counters that want the operator that is about to run."""
    return [counter for counter in _counters.get() if counter.wants()]


@dataclass(frozen=True)
class Operator:
    """An operator and the float function it stands for.

    name        of the torch op and of the public function
    arguments   the op's schema, without the numerics: "Tensor x, int dim"
    spiking     (*arguments, numerics=..., events=...) -> Tensor: the closed form, or its simulation
    exact       (*arguments) -> Tensor: gives the output's shape and dtype, and the straight-through gradient
    types       per argument, the types of values that the op takes as they are
    taken       the types of all arguments of calls seen so far, where the op took them as they were
    """

    name: str
    arguments: str
    spiking: Callable[..., Tensor]
    exact: Callable[..., Tensor]
    types: tuple[tuple[type, ...], ...] = field(init=False, repr=False)
    taken: set[tuple[type, ...]] = field(init=False, repr=False, compare=False, default_factory=set)

    def __post_init__(self) -> None:
        object.__setattr__(self, "types", torch_op.exact_types(self.arguments))

    def __call__(
        self,
        *arguments: Any,
        numerics: Numerics | str | None = None,
        events: Events | None = None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        part: str = "",
    ) -> Tensor:
        """Return the decoded result times `weight`, plus `bias`, which broadcast to it.

        part: what the result is for, for `substituted_by`; it changes no result.

        Runs the torch op, or what the op would run where nobody could tell. With `events`, simulates neuron by neuron
        instead, or predicts if they say so, without a gradient. Raises SpikeplugError for arguments that the operator
        refuses.
        """
        if type(numerics) is not Numerics:
            numerics = as_numerics(numerics) if numerics is not None else _DEFAULT
        given, compiling = tuple(map(type, arguments)), torch.compiler.is_compiling()
        if compiling or given not in self.taken:  # which graphs must not depend on
            if not all(kind in types for kind, types in zip(given, self.types, strict=False)):
                arguments = torch_op.as_declared(self.name, self.arguments, arguments)
            elif not compiling:
                self.taken.add(given)
        # Function modes of whoever calls (such as a converted model's own) must not reach into the operator.
        if events is None and not compiling:
            with torch._C.DisableTorchFunction():
                if _is_direct((*arguments, weight, bias)):
                    return self._run(Call(self.name, arguments, numerics, weight, bias), part, together=True)
        if not all(is_plain(x) for x in (*arguments, weight, bias) if isinstance(x, Tensor)):
            return self._on_values(arguments, weight, bias, numerics, events)
        as_real(arguments[0], self.name)
        torch_op.check_devices(self.name, (*arguments, weight, bias))
        if events is not None:
            if not isinstance(events, Events):
                raise SpikeplugError(f"events is a {type(events).__name__}: give an Events(), to count into.")
            if not events.predicted:
                _advise_on_threads()
            return affine(self.spiking(*arguments, numerics=numerics, events=events), weight, bias)
        if not torch.compiler.is_compiling() and has_duals():
            apply: Any = Differentiable.apply
            result: Tensor = apply(self.name, self.exact, numerics.token, *arguments)
        else:
            result = getattr(torch.ops.spikeplug, self.name)(*arguments, numerics.token)
        return affine(result, weight, bias)

    def _on_values(
        self,
        arguments: tuple[Any, ...],
        weight: Tensor | None,
        bias: Tensor | None,
        numerics: Numerics,
        events: Events | None,
    ) -> Tensor:
        """Return the operator's result where arguments are jagged tensors: it runs on the values that they hold."""

        def run(*values: Any) -> Tensor:
            *given, weight, bias = values
            return self(*given, numerics=numerics, events=events, weight=weight, bias=bias)

        names = [argument.split()[-1] for argument in self.arguments.split(", ")]
        return on_values(self.name, names, run, *arguments, weight, bias)

    def kernel(self, *arguments: Any) -> Tensor:
        """Return what the torch op returns. arguments: the op's, which end with the token of the numerics."""
        torch_op.check_devices(self.name, arguments)
        with torch._C.DisableTorchFunction():
            output = self._run(Call(self.name, arguments[:-1], Numerics.from_token(arguments[-1])))
        return torch_op.with_plain_strides(output)

    def register(self) -> None:
        """Define the torch op `torch.ops.spikeplug.<name>` of this operator, with its gradient."""
        torch_op.define(self.name, self.arguments, self.kernel, self.exact)

    def _run(self, call: Call, part: str = "", together: bool = False) -> Tensor:
        """Count the call if a counter wants it, else run its kernel or closed form. The result is a new tensor.

        No function mode must be active.

        together: whether all tensors are known to be plain and to lie on one device.
        """
        x = call.arguments[0]
        if not isinstance(x, Tensor) or not x.dtype.is_floating_point:
            as_real(x, self.name)  # raises
        if (substitute := _substitute.get()) and (instead := _asked(substitute, call, part)) is not None:
            output = instead
        elif _counters.get() and (counters := active_counters()):
            output = self._counted(call, counters)
        else:
            output = registry.run(call, self._closed, together)
        for given in call.arguments:
            if output is given:  # which an op's output may not be
                copied: Tensor = output.clone()
                return copied
        return output

    def _closed(self, call: Call) -> Tensor:
        output = self.spiking(*call.arguments, numerics=call.numerics, events=None)
        return affine(output, call.weight, call.bias)

    def _counted(self, call: Call, counters: list[Counter]) -> Tensor:
        """Run the call in every way that a counter wants, with its realisation; the bits are the same each time."""
        output = None
        for way in dict.fromkeys((counter.realisation, counter.predicted) for counter in counters):
            events = Events(way[0], predicted=way[1])
            if output is None:
                output = self.spiking(*call.arguments, numerics=call.numerics, events=events)
            else:
                with not_recorded():
                    self.spiking(*call.arguments, numerics=call.numerics, events=events)
            for counter in counters:
                if (counter.realisation, counter.predicted) == way:
                    counter.add(self.name, events)
        assert output is not None, "there is a counter"
        return affine(output, call.weight, call.bias)


def _asked(substitute: Substitute, call: Call, part: str) -> Tensor | None:
    """Return what `substitute` gives for the call. Operators that it calls itself run as usual."""
    token = _substitute.set(None)
    try:
        return substitute(call, part)
    finally:
        _substitute.reset(token)


@lru_cache(maxsize=1)
def _advise_on_threads() -> None:
    """Log, once, that waiting threads spin: torch reads GOMP_SPINCOUNT when it is imported, before us in this case."""
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ) and torch.get_num_threads() > 1:
        _LOG.warning(
            "torch was imported before spikeplug: on a machine that does other work too, a simulation may take ten "
            "times as long; import spikeplug first, or set GOMP_SPINCOUNT=10000."
        )


def may_go_direct(arguments: tuple[Any, ...]) -> bool:
    """Return whether an operator may run at once, without its torch op, and nobody could tell the difference.

    False if a gradient, compiler, trace, mode, transform, profiler, tensor subclass or sparse layout takes part, or if
    the tensors lie on several devices.
    Some of these torch tells by private names alone; tests/library/test_direct.py asks for each.
    """
    if torch.compiler.is_compiling():
        return False
    with torch._C.DisableTorchFunction():  # or every look at an attribute is a call of each mode
        return _is_direct(arguments)


def _is_direct(arguments: tuple[Any, ...]) -> bool:
    """Return what `may_go_direct` returns, where nothing is compiled and no function mode is active."""
    if _is_watched():
        return False
    graded, device = torch.is_grad_enabled(), None
    for x in arguments:
        kind = type(x)
        if kind in VALUES:
            continue
        if kind not in PLAIN:
            if isinstance(x, Tensor):
                return False
            continue
        here = "cpu" if x.is_cpu else x.device  # the device itself takes twice as long to read and compare
        if device is None:
            device = here
            if here != "cpu" and device_type(here) not in DEVICES:
                return False
        if here != device or x.layout is not _STRIDED or x.is_nested or (graded and x.requires_grad):
            return False
    return True


def _is_watched() -> bool:
    """Return whether a dispatch mode, transform, profiler, trace, dual level or function mode would see the op.

    Function modes that let operators pass do not count.
    """
    if (
        _dispatch_modes() > 0
        or _transform() is not None
        or _profiles()
        or _trace() is not None
        or forward_ad._current_level >= 0
    ):
        return True
    for place in range(_function_modes()):
        if not getattr(_function_mode_at(place), "lets_operators_pass", False):
            return True
    return False


_STRIDED = torch.strided
_dispatch_modes, _transform = torch._C._len_torch_dispatch_stack, torch._C._functorch.peek_interpreter_stack
_profiles, _trace = torch._C._autograd._profiler_enabled, torch._C._get_tracing_state
_function_modes, _function_mode_at = torch._C._len_torch_function_stack, torch._C._get_function_stack_at
