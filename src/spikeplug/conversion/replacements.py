"""List what replaces each torch function: the same arguments, the same result, by spiking operators.

The spellings of one operator are in its record. This file adds attention, and functions that take several operators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from spikeplug import functional as spiking
from spikeplug.conversion import compositions
from spikeplug.conversion.multi_head import multi_head_attention, scaled_dot_product_attention
from spikeplug.library import OPERATORS
from spikeplug.operators import RECORDS
from spikeplug.operators.record import Spelling

# A quotient has 15 correct bits with the default numerics, so that three cover every whole number of float32.
_REFINEMENTS = 3


@dataclass(frozen=True)
class Replacement:
    """Replace torch functions by spiking operators.

    names      names of the torch functions
    operators  operators that `run` uses
    run        takes the arguments of the torch functions, and `numerics`, and returns the result; if it returns
               NotImplemented, the call runs exactly
    parts      True if `run` is one of `compositions`: it takes no numerics, and the torch functions in it are
               redirected themselves (unless their operator was not chosen)
    """

    names: tuple[str, ...]
    operators: frozenset[str]
    run: Callable[..., Any]
    parts: bool = False


def _divide(input: Any, other: Any, *, rounding_mode: Any = None, numerics: Any) -> Any:
    if not isinstance(other, Tensor) or isinstance(input, complex):
        return NotImplemented  # a constant divisor is a synaptic weight
    if rounding_mode is not None:
        return _rounded(input, other, rounding_mode, numerics)[0]
    if not isinstance(input, Tensor):
        return spiking.reciprocal(other, numerics=numerics) * input
    dtype = compositions.common_type(input, other)
    if other.numel() == 1:  # one divisor: its reciprocal is a synaptic weight
        return spiking.reciprocal(other.to(dtype), numerics=numerics) * input
    return spiking.divide(input.to(dtype), other.to(dtype), numerics=numerics)


def _divide_into(input: Tensor, other: Any, *, numerics: Any) -> Any:
    return _divide(other, input, numerics=numerics)


def _rounded(input: Any, other: Tensor, mode: str, numerics: Any) -> tuple[Tensor, Tensor]:
    """Return the quotient input / other, rounded to a whole number, and the remainder input - quotient·other.

    mode  rounding: down ("floor") or towards zero ("trunc")

    The quotient of the spiking operator may be off by one. Comparisons of the remainder with the divisor correct it.
    """
    a = input if isinstance(input, Tensor) else torch.full_like(other, input)
    dtype = compositions.common_type(a, other)
    wide = torch.float64  # products of whole quotients and float32 numbers are exact
    a, b = torch.broadcast_tensors(a.to(wide), other.to(wide))
    sign = torch.where(torch.signbit(a) != torch.signbit(b), -1.0, 1.0).to(wide)
    size, step = a.abs(), b.abs()
    whole = torch.zeros_like(size)
    for _ in range(_REFINEMENTS):
        whole = whole + spiking.divide(size - whole * step, step, numerics=numerics).floor()
    left = size - whole * step
    whole = whole + (left >= step).to(wide) - (left < 0).to(wide)
    whole = torch.where(whole.isfinite(), whole, spiking.divide(size, step, numerics=numerics))
    left = size - whole * step
    quotient = whole * sign
    if mode == "trunc":
        return quotient.to(dtype), torch.copysign(left, a).to(dtype)
    below = (sign < 0) & (left != 0)
    quotient = torch.where(below, quotient - 1, quotient).masked_fill(a.isinf(), torch.nan)  # as torch has it
    return quotient.to(dtype), torch.copysign(torch.where(below, step - left, left), b).to(dtype)


def _floor_divide(input: Any, other: Any, *, numerics: Any) -> Any:
    return _divide(input, other, rounding_mode="floor", numerics=numerics)


def _floor_divide_into(input: Tensor, other: Any, *, numerics: Any) -> Any:
    return _divide(other, input, rounding_mode="floor", numerics=numerics)


def _remainder(input: Any, other: Any, *, numerics: Any) -> Any:
    return _rounded(input, other, "floor", numerics)[1] if isinstance(other, Tensor) else NotImplemented


def _remainder_into(input: Tensor, other: Any, *, numerics: Any) -> Any:
    return _remainder(other, input, numerics=numerics)


def _remainder_of_truncation(input: Any, other: Any, *, numerics: Any) -> Any:
    return _rounded(input, other, "trunc", numerics)[1] if isinstance(other, Tensor) else NotImplemented


def _of_records() -> Iterator[Replacement]:
    for name, record in RECORDS.items():
        for spelling in record.spellings:
            yield Replacement(spelling.names, frozenset({name}), _by_operator(name, spelling))


def _by_operator(name: str, spelling: Spelling) -> Callable[..., Any]:
    def run(*arguments: Any, numerics: Any, **keywords: Any) -> Any:
        return spelling.call(partial(OPERATORS[name], numerics=numerics), *arguments, **keywords)

    return run


def _entry(names: str, operators: str, run: Callable[..., Any], parts: bool = False) -> Replacement:
    return Replacement(tuple(names.split()), frozenset(operators.split()), run, parts)


def _parts(names: str, operators: str, run: Callable[..., Any]) -> Replacement:
    return _entry(names, operators, run, parts=True)


ALL = (
    *_of_records(),
    _entry("scaled_dot_product_attention", "attention", scaled_dot_product_attention),
    _entry("multi_head_attention_forward", "attention", multi_head_attention),
    _entry("div divide true_divide truediv", "divide", _divide),
    _entry("rdiv rtruediv", "divide", _divide_into),
    _entry("floor_divide floordiv", "divide", _floor_divide),
    _entry("rfloordiv", "divide", _floor_divide_into),
    _entry("remainder mod", "divide", _remainder),
    _entry("rmod", "divide", _remainder_into),
    _entry("fmod", "divide", _remainder_of_truncation),
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
    _parts("float_power", "square sqrt rsqrt reciprocal exp log", compositions.float_power),
    _parts("_softmax _safe_softmax", "softmax", compositions.raw_softmax),
    _parts("_log_softmax", "log_softmax", compositions.raw_log_softmax),
    _parts("gumbel_softmax", "log softmax", compositions.gumbel_softmax),
    _parts("dist", "vector_norm", compositions.distance),
    _parts("pairwise_distance", "vector_norm", compositions.pairwise_distance),
    _parts("cdist", "vector_norm", compositions.cdist),
    _parts("var_mean", "square", compositions.variance_and_mean),
    _parts("std_mean", "square sqrt", compositions.deviation_and_mean),
    _parts("mse_loss", "square", compositions.mse_loss),
    _parts("binary_cross_entropy", "log", compositions.binary_cross_entropy),
    _parts("binary_cross_entropy_with_logits", "softplus", compositions.binary_cross_entropy_with_logits),
    _parts("kl_div", "exp log", compositions.kl_div),
    _parts("cross_entropy", "log_softmax", compositions.cross_entropy),
)
