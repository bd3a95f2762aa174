"""What is done in place of each torch function: the same arguments, the same answer, by the operators.

Every function here takes the arguments of the torch functions it stands for, and `numerics`. NotImplemented means that
this call stays as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spikeplug import functional as spiking
from spikeplug.conversion import compositions
from spikeplug.conversion.multi_head import multi_head_attention, scaled_dot_product_attention


@dataclass(frozen=True)
class Replacement:
    """names: of the torch functions; operators: which operators `run` uses, in place of them.

    parts: one of `compositions`: `run` takes no numerics, and its torch functions are redirected (or not chosen).
    """

    names: tuple[str, ...]
    operators: frozenset[str]
    run: Callable[..., Any]
    parts: bool = False


def _softmax(
    operator: Callable[..., Tensor],
) -> Callable[..., Tensor]:
    def run(
        input: Tensor, dim: int | None = None, *positional: Any, dtype: Any = None, numerics: Any, **_: Any
    ) -> Tensor:
        if dim is None:  # torch's own rule for a softmax without a dimension
            dim = 0 if input.dim() in (0, 1, 3) else 1
        dtype = dtype or next((value for value in positional if isinstance(value, torch.dtype)), None)
        return operator(input if dtype is None else input.to(dtype), dim, numerics=numerics)

    return run


def _elementwise(operator: Callable[..., Tensor]) -> Callable[..., Any]:
    def run(input: Any, inplace: bool = False, *, numerics: Any) -> Any:
        if not isinstance(input, Tensor) or not input.is_floating_point():
            return NotImplemented
        result = operator(input, numerics=numerics)
        return input.copy_(result) if inplace else result

    return run


def _gelu(input: Tensor, *, approximate: str = "none", numerics: Any) -> Tensor:
    return spiking.gelu(input, approximate, numerics=numerics)


def _softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0, *, numerics: Any) -> Tensor:
    return spiking.softplus(input, beta, threshold, numerics=numerics)


def _glu(input: Tensor, dim: int = -1, *, numerics: Any) -> Tensor:
    value, gate = input.chunk(2, dim)
    return value * spiking.sigmoid(gate, numerics=numerics)


def _layer_norm(
    input: Tensor,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *_: Any,
    numerics: Any,
) -> Tensor:
    shape = tuple(normalized_shape)
    weight, bias = (None if value is None else value.flatten() for value in (weight, bias))
    normed = spiking.layer_norm(input.flatten(-len(shape)), weight, bias, eps, numerics=numerics)
    return normed.view(input.shape).to(input.dtype)


def _rms_norm(
    input: Tensor, normalized_shape: Any, weight: Any = None, eps: float | None = None, *, numerics: Any
) -> Tensor:
    shape = tuple(normalized_shape)
    # torch's own rule: that of the type it computes in, which for short floats is float32.
    eps = torch.finfo(torch.promote_types(input.dtype, torch.float32)).eps if eps is None else eps
    flat = None if weight is None else weight.flatten()
    return spiking.rms_norm(input.flatten(-len(shape)), flat, eps, numerics=numerics).view(input.shape)


def _group_norm(
    input: Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any, numerics: Any
) -> Tensor:
    normed = spiking.layer_norm(input.reshape(input.shape[0], num_groups, -1), None, None, eps, numerics=numerics)
    normed, channels = normed.view(input.shape), (-1, *[1] * (input.dim() - 2))
    if weight is not None:
        normed = normed * weight.view(channels)
    return normed if bias is None else normed + bias.view(channels)


def _divide(input: Any, other: Any, *, rounding_mode: Any = None, numerics: Any) -> Any:
    if rounding_mode is not None or not isinstance(other, Tensor) or isinstance(input, complex):
        return NotImplemented  # rounding: a threshold; a number: a synaptic weight
    if not isinstance(input, Tensor):
        return spiking.reciprocal(other, numerics=numerics) * input
    dtype = compositions.common_type(input, other)
    if other.numel() == 1:  # one number: a synaptic weight, once it is found
        return spiking.reciprocal(other.to(dtype), numerics=numerics) * input
    return spiking.divide(input.to(dtype), other.to(dtype), numerics=numerics)


def _divide_into(input: Tensor, other: Any, *, numerics: Any) -> Any:
    return _divide(other, input, numerics=numerics)


def _scaled(
    operator: Callable[..., Tensor], before: float = 1.0, after: float = 1.0, offset: float = 0.0
) -> Callable[..., Any]:
    def run(input: Tensor, *, numerics: Any) -> Tensor:
        return compositions.rounded_once(input, lambda x: operator(x * before + offset, numerics=numerics) * after)

    return run


def _norm(input: Tensor, p: Any = None, dim: Any = None, *args: Any, **kwargs: Any) -> Any:
    order = kwargs.pop("ord", p)
    if dim is None and input.dim() == 2 and isinstance(order, (int, float)):
        return NotImplemented  # torch.linalg.norm means the matrix
    return _vector_norm(input, order, dim, *args, **kwargs)


def _vector_norm(
    input: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, numerics: Any
) -> Any:
    if ord not in (2, "fro", None):
        return NotImplemented
    x = input if dtype is None else input.to(dtype)
    if dim is None:
        length = spiking.vector_norm(x.flatten(), 0, False, numerics=numerics)
        return length.view((1,) * x.dim()) if keepdim else length
    if not isinstance(dim, int) and len(dim) != 1:
        return NotImplemented
    return spiking.vector_norm(x, dim if isinstance(dim, int) else dim[0], keepdim, numerics=numerics)


def _entry(names: str, operators: str, run: Callable[..., Any]) -> Replacement:
    return Replacement(tuple(names.split()), frozenset(operators.split()), run)


def _parts(names: str, operators: str, run: Callable[..., Any]) -> Replacement:
    return Replacement(tuple(names.split()), frozenset(operators.split()), run, parts=True)


ALL = (
    _entry("softmax", "softmax", _softmax(spiking.softmax)),
    _entry("log_softmax", "log_softmax", _softmax(spiking.log_softmax)),
    _entry("scaled_dot_product_attention", "softmax", scaled_dot_product_attention),
    _entry("multi_head_attention_forward", "softmax", multi_head_attention),
    _entry("silu", "silu", _elementwise(spiking.silu)),
    _entry("gelu", "gelu", _gelu),
    _entry("sigmoid expit", "sigmoid", _elementwise(spiking.sigmoid)),
    _entry("tanh", "tanh", _elementwise(spiking.tanh)),
    _entry("mish", "mish", _elementwise(spiking.mish)),
    _entry("softplus", "softplus", _softplus),
    _entry("logsigmoid", "softplus", lambda input, *, numerics: -spiking.softplus(-input, numerics=numerics)),
    _entry("glu", "sigmoid", _glu),
    _entry("layer_norm", "layer_norm", _layer_norm),
    _entry("rms_norm", "rms_norm", _rms_norm),
    _entry("group_norm", "layer_norm", _group_norm),
    _entry("cos", "cos", _elementwise(spiking.cos)),
    _entry("sin", "sin", _elementwise(spiking.sin)),
    _entry("exp", "exp", _elementwise(spiking.exp)),
    _entry("exp2", "exp", _scaled(spiking.exp, before=math.log(2))),
    _entry("log", "log", _elementwise(spiking.log)),
    _entry("log2", "log", _scaled(spiking.log, after=1 / math.log(2))),
    _entry("log10", "log", _scaled(spiking.log, after=1 / math.log(10))),
    _entry("log1p", "log", _scaled(spiking.log, offset=1.0)),
    _entry("sqrt", "sqrt", _elementwise(spiking.sqrt)),
    _entry("rsqrt", "rsqrt", _elementwise(spiking.rsqrt)),
    _entry("reciprocal", "reciprocal", _elementwise(spiking.reciprocal)),
    _entry("square", "square", _elementwise(spiking.square)),
    _entry("div divide true_divide truediv", "divide", _divide),
    _entry("rdiv rtruediv", "divide", _divide_into),
    _entry("norm", "vector_norm", _norm),
    _entry("vector_norm", "vector_norm", _vector_norm),
    _parts("pow", "square sqrt rsqrt reciprocal exp log", compositions.power),
    _parts("rpow", "exp", compositions.power_of),
    _parts("polar", "cos sin", compositions.polar),
    _parts("expm1", "exp", compositions.expm1),
    _parts("logsumexp", "log_softmax", compositions.logsumexp),
    _parts("softmin", "softmax", compositions.softmin),
    _parts("elu", "exp", compositions.elu),
    _parts("celu", "exp", compositions.celu),
    _parts("selu", "exp", compositions.selu),
    _parts("tanhshrink", "tanh", compositions.tanhshrink),
    _parts("softsign", "divide", compositions.softsign),
    _parts("erf", "tanh", compositions.erf),
    _parts("erfc", "tanh", compositions.erfc),
    _parts("normalize", "vector_norm divide", compositions.normalize),
    _parts("cosine_similarity", "vector_norm divide", compositions.cosine_similarity),
    _parts("var", "square", compositions.variance),
    _parts("std", "square sqrt", compositions.deviation),
    _parts("batch_norm", "rsqrt", compositions.batch_norm),
    _parts("solve_triangular", "reciprocal", compositions.solve_triangular),
)
