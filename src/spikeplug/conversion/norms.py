"""What norm a module computes, found by running a copy of it, with random weights, on the CPU.

Names mislead: `T5LayerNorm` is an RMSNorm, some multiply by 1 + weight, some have neither weight nor epsilon under a
common name, some are gated. Behaviour does not.
"""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from spikeplug.library import OPERATORS

#: Relative difference below which a module is what the formula says (float32 arithmetic is good to about 1e-6).
_TOLERANCE = 1e-4
#: Width that modules without weights, whose width is not known, are probed at.
_WIDTH = 16


@dataclass(frozen=True)
class Norm:
    """operator(x, eps)·(weight + offset) + bias over the last dimension; weight and bias are parameter names or None.

    gate         None, or where a second argument comes in: x·silu(gate) `before` the norm, or its result `after`
    dtype        of the answer: the input's; what torch promotes it and the weight's to (without one: and float32); or
                 that too, but the weight's if that is shorter than float32
    """

    operator: Literal["rms_norm", "layer_norm"]
    eps: float
    weight: str | None = None
    offset: float = 0.0
    bias: str | None = None
    gate: Literal["before", "after"] | None = None
    dtype: Literal["input", "weight", "promoted"] = "input"

    def exact(self, x: Tensor, gate: Tensor | None, parameters: dict[str, Tensor]) -> Tensor:
        """The formula, in x's dtype."""
        if gate is not None and self.gate == "before":
            x = x * F.silu(gate)
        output = OPERATORS[self.operator].exact(x, self.eps)
        if self.weight is not None:
            output = output * (parameters[self.weight].to(x.dtype) + self.offset)
        if self.bias is not None:
            output = output + parameters[self.bias].to(x.dtype)
        return output * F.silu(gate) if gate is not None and self.gate == "after" else output


def find_norm(module: nn.Module, known: dict[object, Norm | None]) -> Norm | None:
    """The norm a leaf module is, or None. `known` remembers the answer for modules that cannot differ.

    The module itself is not run and not touched.
    """
    parameters = {name: tuple(value.shape) for name, value in module._parameters.items() if value is not None}
    sizes = set(parameters.values())
    if len(parameters) > 2 or len(sizes) > 1 or any(len(size) != 1 for size in sizes) or module._buffers:
        return None
    if any(True for _ in module.children()) or not _takes_gate_at_most(module):
        return None
    numbers = tuple(
        sorted((name, value) for name, value in vars(module).items() if isinstance(value, (int, float, str)))
    )
    key = (type(module), tuple(parameters.items()), numbers)
    if key not in known:
        width = next(iter(sizes))[0] if sizes else _WIDTH
        known[key] = _probe(module, list(parameters), max(width, 1))
    return known[key]


def _probe(module: nn.Module, names: list[str], width: int) -> Norm | None:
    generator = torch.Generator().manual_seed(width)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device="cpu", dtype=torch.float32)

    candidates = list(_candidates(module, names))
    smallest, largest = min(norm.eps for norm in candidates), max(norm.eps for norm in candidates)
    # Scales from where eps decides the result to where it does not matter; a mean, to tell the two norms apart; three
    # dimensions, to tell the last from the second.
    scales = (0.1 * smallest**0.5, smallest**0.5, largest**0.5, 1.0, 30.0)
    x = torch.stack([(random(3, width) + 0.5) * scale for scale in scales])
    parameters = {name: random(width).abs() + 0.5 for name in names}
    gate = random(*x.shape) if _takes_gate(module) else None
    # A bare shallow copy: some classes (FSDP's) answer copy.copy by constructing anew.
    probe = object.__new__(type(module))
    probe.__dict__ = dict(vars(module))
    vars(probe).pop("forward", None)
    # A shallow copy shares the dict of parameters with the model: give it its own before touching it.
    probe._parameters = dict.fromkeys(module._parameters)
    probe._parameters |= {name: nn.Parameter(value, requires_grad=False) for name, value in parameters.items()}
    arguments = (x,) if gate is None else (x, gate)
    try:
        with torch.no_grad(), torch.device("cpu"), torch.autocast("cpu", enabled=False), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of mixed dtypes
            answer = probe.forward(*arguments)
            dtype = _dtype(probe, arguments)
        if answer.shape != x.shape:
            return None
    except Exception:  # a stranger's forward may raise anything
        return None
    wide = {name: value.double() for name, value in parameters.items()}
    for norm in candidates:
        expected = norm.exact(x.double(), None if gate is None else gate.double(), wide)
        error = (answer.double() - expected).abs().amax(-1) / expected.abs().amax(-1).clamp(min=1e-30)
        if bool((error < _TOLERANCE).all()):
            return replace(norm, dtype=dtype)
    return None


def _dtype(probe: nn.Module, arguments: tuple[Tensor, ...]) -> Literal["input", "weight", "promoted"]:
    """Of the answer, by mixing float32 and bfloat16; changes the probe's parameters."""
    if probe.forward(*(value.bfloat16() for value in arguments)).dtype == torch.bfloat16:
        return "input"
    for name, value in probe._parameters.items():
        probe._parameters[name] = None if value is None else nn.Parameter(value.bfloat16(), requires_grad=False)
    return "weight" if probe.forward(*arguments).dtype == torch.bfloat16 else "promoted"


def _candidates(module: nn.Module, names: list[str]) -> Iterator[Norm]:
    """Every norm the module might be: the numbers it holds are tried as epsilon, each of its parameters as weight."""
    own = [value for value in vars(module).values() if isinstance(value, float) and 0 < value < 0.1]
    common = [torch.finfo(torch.float32).eps, 1e-5, 1e-6, 1e-12, 1e-8]
    roles: list[tuple[str | None, str | None]] = [(None, None)]
    if len(names) == 1:
        roles = [(names[0], None), (None, names[0])]
    elif names:
        roles = [(names[0], names[1]), (names[1], names[0])]
    gates: tuple[Literal["before", "after"] | None, ...] = ("after", "before") if _takes_gate(module) else (None,)
    operators: tuple[Literal["rms_norm", "layer_norm"], ...] = ("rms_norm", "layer_norm")
    for eps, operator, (weight, bias), gate in itertools.product(dict.fromkeys(own + common), operators, roles, gates):
        for offset in (0.0, 1.0) if weight is not None else (0.0,):
            yield Norm(operator, eps, weight, offset, bias, gate)


def _takes_gate_at_most(module: nn.Module) -> bool:
    """One tensor, or a gate too: what other arguments do cannot be known."""
    _, *parameters = inspect.signature(type(module).forward).parameters.values()
    others = [parameter for parameter in parameters[1:] if parameter.name != "gate"]
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return bool(parameters) and parameters[0].kind not in variable and not others


def _takes_gate(module: nn.Module) -> bool:
    """A second tensor called gate."""
    return "gate" in inspect.signature(type(module).forward).parameters
