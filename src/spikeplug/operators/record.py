"""Define the record of an operator: everything known of it, in the file that holds its formula."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from spikeplug.codes import Coded
from spikeplug.numerics import Numerics
from spikeplug.operators.operands import Operands
from spikeplug.primitives.arithmetic import Arithmetic

#: vector: one power of two per vector with shift_scaling, else the step 2^-n. element: a power of two per element.
#: octaves, step: the fixed step 2^-n, in octaves (times ln 2 where decoded) or as it is.
Scale = Literal["vector", "element", "octaves", "step"]
#: The inputs that an operator of one number can distinguish: codes of an exponent, a turn, or two octaves; or None.
Grid = Literal["exponent", "turn", "octaves", None]
#: (*inputs, numerics) -> the largest |spiking - exact|, in the shape of the operator's output.
Bound = Callable[..., Tensor]

_SCHEMA = {"Tensor": "Tensor", "Tensor | None": "Tensor?", "int": "int", "bool": "bool", "float": "float"} | {
    "float | None": "float?",
    "str": "str",
}


@dataclass(frozen=True)
class Spelling:
    """Name torch functions that an operator replaces, and how a call of them becomes a call of the operator.

    names  as torch and its documentation spell them, in any of torch's namespaces
    call   (operator, *arguments, **keywords) of the torch function -> its result; NotImplemented leaves the call as it
           was. operator: the operator with its numerics, (*arguments, weight=, bias=) -> Tensor
    """

    names: tuple[str, ...]
    call: Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Operator:
    """Hold everything that the package knows of one operator.

    name         the operator's name: of the torch op, the public function, and in reports and records
    family       operators with the same tests: softmax, attention, gate, curve, norm, element, wave, linear
    formula      what is computed, in one line of text
    spiking      (*arguments, on) -> Tensor, on float tensors: encode, run integers by the verbs of `on`, decode
    integers     (operands, on) -> Coded (or a few): the operator between its encoder and its decoder, on one vector of
                 integers; None: it has no such form
    exact        (*arguments) -> Tensor: the float function; it gives shape, dtype and the straight-through gradient
    inputs       kind of number of each tensor argument (evidence/distributions.py draws it)
    settings     the arguments after the tensors, in tests and measurements
    scale        which output elements share a scale, see `Scale`
    elementwise  the result of an element does not depend on the others of its vector
    grid         which inputs a search for the worst error tries: all codes of an exponent, of a turn, or of two octaves
    bound        (*inputs, numerics) -> the proven bound of |spiking - exact|, in the shape of the output
    largest      numerics -> the largest output of the published form, which has 2^numerics.bits neurons per unit of it
    input_range  numerics -> the inputs beyond which something is lost, in words
    spellings    torch functions that a converted model redirects to it
    modules      full name of a class -> (module) -> the arguments after the tensor
    aten         ATen ops that compute this operator in float, for the audit
    module       name of the class in `spikeplug.nn`; empty: none
    """

    name: str
    family: Literal["softmax", "attention", "gate", "curve", "norm", "element", "wave", "linear"]
    formula: str
    spiking: Callable[..., Tensor]
    integers: Callable[[Operands, Arithmetic], Coded | tuple[Coded, ...]] | None = None
    exact: Callable[..., Tensor]
    inputs: tuple[str, ...]
    settings: tuple[object, ...] = ()
    scale: Scale
    elementwise: bool = False
    grid: Grid = None
    bound: Bound
    largest: Callable[[Numerics], float] = lambda numerics: 1.0
    input_range: Callable[[Numerics], str]
    spellings: tuple[Spelling, ...] = ()
    modules: Mapping[str, Callable[[Any], tuple[Any, ...]]] = field(default_factory=dict)
    aten: tuple[str, ...] = ()
    module: str = ""

    @property
    def schema(self) -> str:
        """Return the torch op's arguments, as torch writes them: "Tensor x, int dim"."""
        parameters = inspect.signature(self.spiking).parameters
        return ", ".join(
            f"{_SCHEMA[parameter.annotation]} {name}" for name, parameter in parameters.items() if name != "on"
        )

    @property
    def defaults(self) -> dict[str, Any]:
        """Return the settings that have a default, by name."""
        parameters = inspect.signature(self.spiking).parameters
        return {
            name: parameter.default
            for name, parameter in parameters.items()
            if name != "on" and parameter.default is not inspect.Parameter.empty
        }


def elementwise(*names: str) -> tuple[Spelling, ...]:
    """Return one `Spelling` that redirects the torch functions `names`, all of one tensor, to an operator.

    It serves calls such as `torch.tanh(x)` and `F.silu(x, inplace=True)`; inplace writes the result into the input.
    A call with anything but a floating-point tensor is left to torch.
    """

    def call(operator: Callable[..., Tensor], input: Any, inplace: bool = False) -> Any:
        if not isinstance(input, Tensor) or not input.is_floating_point():
            return NotImplemented
        result = operator(input)
        return input.copy_(result) if inplace else result

    return (Spelling(names, call),)


def rounded_once(x: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
    """Return run(x) in x's dtype; if x has fewer than 32 bits, `run` gets x as float32, and its result is rounded.

    A function of several steps is so rounded once, not at every step.
    """
    return run(x.float()).to(x.dtype) if x.element_size() < 4 else run(x)


def rescaled(name: str, before: float = 1.0, after: float = 1.0, offset: float = 0.0) -> Spelling:
    """Return a `Spelling` that redirects the torch function `name` to operator(x·before + offset)·after.

    For example, exp2 is exp with before = ln 2.
    """

    def call(operator: Callable[..., Tensor], input: Tensor) -> Tensor:
        return rounded_once(input, lambda x: operator(x * before + offset) * after)

    return Spelling((name,), call)


def no_settings(module: Any) -> tuple[Any, ...]:
    """Return (): the operator takes no arguments after the tensor, whatever the module (which is ignored)."""
    return ()
