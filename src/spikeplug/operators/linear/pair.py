"""Run an operator of two numbers that broadcast: receive both, compute with integers, and pass what has no code."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from spikeplug.codes import Coded, as_real, decode
from spikeplug.operators.linear.receiver import received
from spikeplug.primitives.arithmetic import Arithmetic

#: Numbers of this size and more, such as those of a mask, have no code; they pass as they are.
HUGE = 2.0**96


def of_pair(
    a: Tensor,
    b: Tensor,
    integers: Callable[[Coded, Coded, int, Arithmetic], Coded],
    exact: Callable[[Tensor, Tensor], Tensor],
    on: Arithmetic,
) -> Tensor:
    """Return integers(a, b, numerics.bits, on) of the codes of a and b, broadcast, in the dtype torch would give.

    Every element is a vector of its own, (..., 1). Where a or b has no code, the result is exact(a, b).
    Errors: SpikeplugError for tensors that are not floating.
    """
    dtype = torch.result_type(a, b)
    a, b = as_real(a, on.operator), as_real(b, on.operator)
    shape = torch.broadcast_shapes(a.shape, b.shape)
    if 0 in shape:
        return exact(a, b).to(dtype)
    a, b, undefined = _with_codes(a, b, exact)
    code = integers(received(a.unsqueeze(-1)), received(b.unsqueeze(-1)), on.numerics.bits, on)
    return _restored(decode(code, a.dtype).squeeze(-1), undefined).reshape(shape).to(dtype)


def _with_codes(
    a: Tensor, b: Tensor, exact: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return a and b with at least one dimension, and what has no code set to 0; and what `exact` gives there.

    NaN, infinities and numbers from HUGE on have no code. The third is (2, ...): the results of `exact`, and 1 where
    they count; None if everything has a code.
    """
    a, b = torch.atleast_1d(a), torch.atleast_1d(b)
    dtype = torch.promote_types(a.dtype, b.dtype)
    a, b = a.to(dtype), b.to(dtype)
    coded_a, coded_b = a.abs() < HUGE, b.abs() < HUGE
    if bool(coded_a.all()) and bool(coded_b.all()):
        return a, b, None
    undefined = torch.stack([exact(a, b), (~(coded_a & coded_b)).to(dtype)])
    return a.masked_fill(~coded_a, 0.0), b.masked_fill(~coded_b, 0.0), undefined


def _restored(output: Tensor, undefined: Tensor | None) -> Tensor:
    """Return the output with the results of what has no code, as `_with_codes` gives them, put in."""
    return output if undefined is None else torch.where(undefined[1] != 0, undefined[0], output)
