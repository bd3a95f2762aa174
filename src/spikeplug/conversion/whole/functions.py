"""List what replaces torch's linear functions in a whole spiking model: sums, products and constant scales.

A sum is the operator `add`, a product the operator `multiply`; a factor that is a power of two is an exponent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spikeplug.fixedpoint import is_power_of_two
from spikeplug.library import OPERATORS
from spikeplug.numerics import Numerics


@dataclass(frozen=True)
class LinearFunction:
    """Replace torch functions of these names by `run`, which takes their arguments and `numerics`.

    `run` returns NotImplemented where the call is exact on codes, so that torch runs it.
    """

    names: tuple[str, ...]
    run: Callable[..., Any]


def _number(value: Any, like: Tensor) -> Tensor:
    """Return a number or tensor in the dtype of the floating tensor `like`."""
    if isinstance(value, Tensor):
        return value if value.is_floating_point() else value.to(like.dtype)
    return torch.tensor(float(value), dtype=like.dtype, device=like.device)


def _pair(a: Any, b: Any) -> tuple[Tensor, Tensor]:
    like = a if isinstance(a, Tensor) and a.is_floating_point() else b
    return _number(a, like), _number(b, like)


def _add(input: Any, other: Any, *, alpha: Any = 1, numerics: Numerics | None) -> Any:
    if alpha != 1:
        other = _multiply_always(other, alpha, numerics)
    if (not isinstance(other, Tensor) and other == 0) or (not isinstance(input, Tensor) and input == 0):
        return NotImplemented  # sum() begins with 0
    return OPERATORS["add"](*_pair(input, other), numerics=numerics)


def _subtract(input: Any, other: Any, *, alpha: Any = 1, numerics: Numerics | None) -> Any:
    return _add(input, -other, alpha=alpha, numerics=numerics)


def _subtract_from(input: Any, other: Any, *, alpha: Any = 1, numerics: Numerics | None) -> Any:
    return _add(other, -input, alpha=alpha, numerics=numerics)


def _multiply(input: Any, other: Any, *, numerics: Numerics | None) -> Any:
    for value in (input, other):
        if not isinstance(value, Tensor) and (value == 0 or is_power_of_two(value)):
            return NotImplemented
    return OPERATORS["multiply"](*_pair(input, other), numerics=numerics)


def _multiply_always(input: Any, other: Any, numerics: Numerics | None) -> Any:
    result = _multiply(input, other, numerics=numerics)
    return input * other if result is NotImplemented else result


def _divide(input: Any, other: Any, *, rounding_mode: Any = None, numerics: Numerics | None) -> Any:
    if isinstance(other, Tensor) or rounding_mode is not None or other == 0:
        return NotImplemented  # the operator `divide`
    return NotImplemented if is_power_of_two(other) else _multiply(input, 1 / other, numerics=numerics)


def _matmul(input: Tensor, other: Tensor, *, numerics: Numerics | None) -> Any:
    """Multiply vectors and matrices as torch.matmul does."""
    a, b = (x.unsqueeze(place) if x.dim() == 1 else x for x, place in ((input, 0), (other, 1)))
    product = OPERATORS["matmul"](a, b, numerics=numerics)
    product = product.squeeze(-2) if input.dim() == 1 else product
    return product.squeeze(-1) if other.dim() == 1 else product


def _matmul_of(input: Tensor, other: Tensor, *, numerics: Numerics | None) -> Any:
    return _matmul(other, input, numerics=numerics)


def _matrix_product(input: Tensor, b: Tensor, *, numerics: Numerics | None) -> Any:
    return _matmul(input, b, numerics=numerics)


def _added_product(
    input: Tensor, a: Tensor, b: Tensor, *, beta: Any = 1, alpha: Any = 1, numerics: Numerics | None
) -> Any:
    product = _multiply_always(_matmul(a, b, numerics=numerics), alpha, numerics)
    if beta == 0:
        return product
    return OPERATORS["add"](_multiply_always(input, beta, numerics), product, numerics=numerics)


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None, *, numerics: Numerics | None) -> Any:
    """Multiply by a weight that is no layer's own, so that it is a float parameter: its rows become codes here."""
    product = _matmul(input, weight.T, numerics=numerics)
    return product if bias is None else OPERATORS["add"](product, bias, numerics=numerics)


def _sum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, numerics: Numerics | None) -> Any:
    x = input if dtype is None else input.to(dtype)
    dims = range(x.dim()) if dim is None or dim == () else (dim,) if isinstance(dim, int) else dim
    dims = sorted(d % max(x.dim(), 1) for d in dims)
    for d in dims:
        x = OPERATORS["sum"](x, d, numerics=numerics)
    return x if keepdim else x.squeeze(tuple(dims))


def _mean(
    input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, numerics: Numerics | None
) -> Any:
    total = _sum(input, dim, keepdim, dtype=dtype, numerics=numerics)
    return _multiply_always(total, total.numel() / max(input.numel(), 1), numerics)


FUNCTIONS = (
    LinearFunction(("matmul",), _matmul),
    LinearFunction(("rmatmul",), _matmul_of),
    LinearFunction(("mm", "bmm"), _matrix_product),
    LinearFunction(("baddbmm", "addmm"), _added_product),
    LinearFunction(("linear",), _linear),
    LinearFunction(("sum",), _sum),
    LinearFunction(("mean",), _mean),
    LinearFunction(("add", "radd"), _add),
    LinearFunction(("sub", "subtract"), _subtract),
    LinearFunction(("rsub",), _subtract_from),
    LinearFunction(("mul", "multiply", "rmul"), _multiply),
    LinearFunction(("div", "divide", "true_divide", "truediv"), _divide),
)
