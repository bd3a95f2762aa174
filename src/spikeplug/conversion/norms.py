"""Find which norm a module computes, by running a copy of it with random weights on the CPU.

Names mislead: `T5LayerNorm` is an RMSNorm, and some norms multiply by 1 + weight.
Some have neither weight nor epsilon under a common name, and some are gated.
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

#: Relative difference below which a module equals a formula (float32 arithmetic is good to about 1e-6).
_TOLERANCE = 1e-4
#: Width for probing a module without weights, whose own width is not known.
_WIDTH = 16


@dataclass(frozen=True)
class Norm:
    """Describe a norm: operator(x, eps)·(weight + offset) + bias over the last dimension.

    operator  rms_norm or layer_norm
    eps       number added to the mean square (rms_norm) or to the variance (layer_norm)
    weight    name of the module's parameter that multiplies, or None
    offset    number added to the weight
    bias      name of the module's parameter that is added, or None
    gate      what silu of a second argument multiplies: `before`: the norm's input; `after`: its result; None: no gate
    dtype     of the output: `input`: the input's. `promoted`: what torch promotes the input's and the weight's to
              (float32 for a norm without weight). `weight`: as promoted, but the weight's if shorter than float32
    """

    operator: Literal["rms_norm", "layer_norm"]
    eps: float
    weight: str | None = None
    offset: float = 0.0
    bias: str | None = None
    gate: Literal["before", "after"] | None = None
    dtype: Literal["input", "weight", "promoted"] = "input"

    def exact(self, x: Tensor, gate: Tensor | None, parameters: dict[str, Tensor]) -> Tensor:
        """Return the exact norm of x over its last dimension, in x's dtype and shape.

        gate        tensor whose silu multiplies x or the result, or None
        parameters  tensors of the module by name; `weight` and `bias` are looked up in it
        """
        if gate is not None and self.gate == "before":
            x = x * F.silu(gate)
        output = OPERATORS[self.operator].exact(x, self.eps)
        if self.weight is not None:
            output = output * (parameters[self.weight].to(x.dtype) + self.offset)
        if self.bias is not None:
            output = output + parameters[self.bias].to(x.dtype)
        return output * F.silu(gate) if gate is not None and self.gate == "after" else output


def find_norm(module: nn.Module, known: dict[object, Norm | None]) -> Norm | None:
    """Return the norm that a leaf module computes, or None. The module itself is not run and not touched.

    known  results so far, by class, parameter shapes and numbers of the module; the new result is added
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
    # The scales reach from where eps decides the result to where it does not matter. A mean tells the two norms apart.
    # Three dimensions tell the last one from the second.
    scales = (0.1 * smallest**0.5, smallest**0.5, largest**0.5, 1.0, 30.0)
    x = torch.stack([(random(3, width) + 0.5) * scale for scale in scales])
    parameters = {name: random(width).abs() + 0.5 for name in names}
    gate = random(*x.shape) if _takes_gate(module) else None
    # A bare shallow copy, because copy.copy constructs some classes (FSDP's) anew.
    probe = object.__new__(type(module))
    probe.__dict__ = dict(vars(module))
    vars(probe).pop("forward", None)
    # A shallow copy shares the dict of parameters with the model: replace it before changing it.
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
    except Exception:  # a third party's forward may raise anything
        return None
    wide = {name: value.double() for name, value in parameters.items()}
    for norm in candidates:
        expected = norm.exact(x.double(), None if gate is None else gate.double(), wide)
        error = (answer.double() - expected).abs().amax(-1) / expected.abs().amax(-1).clamp(min=1e-30)
        if bool((error < _TOLERANCE).all()):
            return replace(norm, dtype=dtype)
    return None


def _dtype(probe: nn.Module, arguments: tuple[Tensor, ...]) -> Literal["input", "weight", "promoted"]:
    """Return what determines the dtype of a norm's output, as `Norm.dtype` names it.

    It runs the norm with float32 and bfloat16 mixed. This changes the parameters of `probe`.

    probe      a copy of the module, with float32 parameters
    arguments  float32 inputs of its forward
    """
    if probe.forward(*(value.bfloat16() for value in arguments)).dtype == torch.bfloat16:
        return "input"
    for name, value in probe._parameters.items():
        probe._parameters[name] = None if value is None else nn.Parameter(value.bfloat16(), requires_grad=False)
    return "weight" if probe.forward(*arguments).dtype == torch.bfloat16 else "promoted"


def _candidates(module: nn.Module, names: list[str]) -> Iterator[Norm]:
    """Yield every norm that the module might compute.

    Its small float attributes and common values are tried as epsilon, and each of its parameters as weight and as bias.

    names  names of its parameters, two at most
    """
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
    """Return whether the module's forward takes one argument, and at most one more, called `gate`.

    The effect of any other argument cannot be known.
    """
    _, *parameters = inspect.signature(type(module).forward).parameters.values()
    others = [parameter for parameter in parameters[1:] if parameter.name != "gate"]
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return bool(parameters) and parameters[0].kind not in variable and not others


def _takes_gate(module: nn.Module) -> bool:
    """Return whether the module's forward has a parameter called `gate`."""
    return "gate" in inspect.signature(type(module).forward).parameters
