"""Torch's linear functions in a whole model: every spelling is replaced, near torch's result, in its shape."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.overrides import TorchFunctionMode

from spikeplug.conversion.auditing import Audit, _Watch
from spikeplug.conversion.redirection import LINEAR_TABLE, Redirection, only
from spikeplug.conversion.whole.functions import FUNCTIONS
from spikeplug.fixedpoint import is_power_of_two
from spikeplug.operators import LINEAR

SCOPE = Redirection(None, frozenset(LINEAR))


def seeded(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


A, B, ROW, SQUARE = seeded(3, 5), seeded(3, 5, seed=2), seeded(5, seed=3), seeded(5, 5, seed=4)
BATCH, OTHER = seeded(2, 3, 5, seed=5), seeded(2, 5, 4, seed=6)
SUMMED = seeded(2, 3, 4, seed=7)
SCALAR, WHOLE, MASK = torch.tensor(0.7), torch.arange(5), torch.tensor([True, False, True, True, False])


def out_of(run: Callable[..., Tensor], *given: Any) -> Tensor:
    target = torch.empty(3, 5)
    result = run(*given, out=target)
    assert result is target
    return target


def in_place(run: Callable[..., Any], *given: Any, **options: Any) -> Tensor:
    target = A.clone()
    result = run(target, *given, **options)
    assert result is target
    return target


CALLS: dict[str, Callable[[], Tensor]] = {
    "a + b": lambda: A + B,
    "a - b": lambda: A - B,
    "a * b": lambda: A * B,
    "a @ b": lambda: A @ SQUARE,
    "a / 3": lambda: A / 3,
    "a * 3": lambda: A * 3,
    "a + 3": lambda: A + 3,
    "a - 0.3": lambda: A - 0.3,
    "0.3 + a": lambda: 0.3 + A,
    "0.3 - a": lambda: 0.3 - A,
    "0.3 * a": lambda: 0.3 * A,
    "True + a": lambda: True + A,
    "a + True": lambda: A + True,
    "broadcast": lambda: A + ROW,
    "broadcast up": lambda: ROW * A,
    "0-dim": lambda: A * SCALAR,
    "0-dim first": lambda: SCALAR + A,
    "both 0-dim": lambda: SCALAR + SCALAR,
    "int tensor": lambda: A + WHOLE,
    "int tensor first": lambda: WHOLE * A,
    "int minus": lambda: WHOLE - A,
    "bool tensor": lambda: A * MASK,
    "bool tensor first": lambda: MASK * A,
    "bool sum": lambda: A + MASK,
    "minus int": lambda: A - WHOLE,
    "torch.add": lambda: torch.add(A, B),
    "torch.add, names": lambda: torch.add(input=A, other=B),
    "torch.add, alpha": lambda: torch.add(A, B, alpha=0.3),
    "torch.add, alpha 2": lambda: torch.add(A, B, alpha=2),
    "torch.add, alpha 0": lambda: torch.add(A, B, alpha=0),
    "torch.add, number and alpha": lambda: torch.add(A, 2, alpha=0.3),
    "torch.sub": lambda: torch.sub(A, B, alpha=0.3),
    "torch.subtract": lambda: torch.subtract(A, B),
    "torch.rsub": lambda: torch.rsub(A, B),
    "torch.rsub, alpha": lambda: torch.rsub(A, B, alpha=0.3),
    "torch.rsub, number": lambda: torch.rsub(A, 1),
    "torch.mul": lambda: torch.mul(A, B),
    "torch.multiply": lambda: torch.multiply(A, B),
    "torch.div": lambda: torch.div(A, 3.0),
    "torch.true_divide": lambda: torch.true_divide(A, 3),
    "out": lambda: out_of(torch.add, A, B),
    "out of a product": lambda: out_of(torch.mul, A, B),
    "out of a number": lambda: out_of(torch.mul, A, 3.0),
    "out of a matmul": lambda: out_of(torch.matmul, A, SQUARE),
    "a.add": lambda: A.add(B, alpha=0.5),
    "a.sub": lambda: A.sub(B),
    "a.mul": lambda: A.mul(B),
    "a.div": lambda: A.div(3),
    "a.add_": lambda: in_place(Tensor.add_, B),
    "a.add_, alpha": lambda: in_place(Tensor.add_, B, alpha=0.3),
    "a.sub_": lambda: in_place(Tensor.sub_, B),
    "a.mul_": lambda: in_place(Tensor.mul_, B),
    "a.mul_ number": lambda: in_place(Tensor.mul_, 3),
    "a.div_": lambda: in_place(Tensor.div_, 3),
    "a += b": lambda: in_place(operator.iadd, B),
    "a -= b": lambda: in_place(operator.isub, B),
    "a *= b": lambda: in_place(operator.imul, B),
    "a *= 3": lambda: in_place(operator.imul, 3),
    "a /= 3": lambda: in_place(operator.itruediv, 3),
    "a += row": lambda: in_place(operator.iadd, ROW),
    "sum": lambda: A.sum(),
    "sum of 0-dim": lambda: SCALAR.sum(),
    "sum over -1": lambda: A.sum(-1),
    "sum over 0, kept": lambda: torch.sum(A, 0, True),
    "sum over two": lambda: BATCH.sum((0, 2)),
    "sum over two, kept": lambda: BATCH.sum(dim=[0, -1], keepdim=True),
    "sum over none": lambda: BATCH.sum(()),
    "sum, axis": lambda: BATCH.sum(axis=1),
    "sum, dtype": lambda: A.sum(-1, dtype=torch.float64),
    "sum of all, dtype": lambda: torch.sum(A, dtype=torch.float64),
    "mean": lambda: A.mean(),
    "mean over -1": lambda: A.mean(-1),
    "mean over two": lambda: BATCH.mean((0, 2), keepdim=True),
    "mean over 4 of 4": lambda: OTHER.mean(-1),
    "mean, dtype": lambda: A.mean(-1, dtype=torch.float64),
    "python's sum": lambda: sum([A, B, A]),  # type: ignore[arg-type]
    "matmul of vectors": lambda: torch.matmul(ROW, ROW),
    "matmul of a vector": lambda: SQUARE @ ROW,
    "matmul by a vector": lambda: ROW @ SQUARE,
    "matmul of batches": lambda: BATCH @ OTHER,
    "matmul, broadcast": lambda: BATCH @ SQUARE,
    "matmul of a vector by batches": lambda: ROW @ OTHER,
    "matmul, names": lambda: torch.matmul(input=A, other=SQUARE),
    "mm": lambda: torch.mm(A, SQUARE),
    "mm, names": lambda: torch.mm(input=A, mat2=SQUARE),
    "bmm": lambda: BATCH.bmm(OTHER),
    "addmm": lambda: torch.addmm(ROW, A, SQUARE),
    "addmm, factors": lambda: torch.addmm(ROW, A, SQUARE, beta=0.3, alpha=1.7),
    "addmm, beta 0": lambda: torch.addmm(ROW, A, SQUARE, beta=0),
    "addmm, names": lambda: torch.addmm(input=ROW, mat1=A, mat2=SQUARE),
    "addmm_": lambda: in_place(Tensor.addmm_, B, SQUARE),
    "baddbmm": lambda: torch.baddbmm(SUMMED, BATCH, OTHER, beta=0.5, alpha=0.3),
    "baddbmm, names": lambda: SUMMED.baddbmm(batch1=BATCH, batch2=OTHER, beta=1.0, alpha=0.3),
    "F.linear": lambda: F.linear(A, SQUARE),
    "F.linear, bias": lambda: F.linear(A, SQUARE, ROW),
    "F.linear, names": lambda: F.linear(input=BATCH, weight=SQUARE, bias=ROW),
    "F.linear of a vector": lambda: F.linear(ROW, SQUARE),
}


def floats_in(run: Callable[[], Tensor]) -> tuple[Tensor, dict[str, int]]:
    """Return a call's result in a scope, and what it computes in float outside of our operators."""
    found = Audit()
    with _Watch(lambda op: found.add("", op), True, False), only(SCOPE):
        result = run()
    return result, found.counts


@pytest.mark.parametrize("run", CALLS.values(), ids=CALLS)
def test_a_call_is_replaced_and_near(run: Callable[[], Tensor]) -> None:
    exact = run()
    spiking, floats = floats_in(run)
    assert not floats
    assert (spiking.shape, spiking.dtype) == (exact.shape, exact.dtype)
    assert (spiking.double() - exact.double()).abs().max() <= 3e-4 * exact.abs().max()


EXACT: dict[str, Callable[[], Tensor]] = {
    "twice": lambda: A * 2,
    "half": lambda: 0.5 * A,
    "minus four": lambda: A * -4.0,
    "by eight": lambda: A / 8,
    "nothing added": lambda: A + 0,
    "nothing before": lambda: 0 + A,
    "nothing taken": lambda: A - 0,
    "by zero": lambda: A * 0,
    "integers": lambda: WHOLE + 3,
    "integers by integers": lambda: WHOLE * WHOLE,
    "integer sum": lambda: WHOLE.sum(),
    "bool sum": lambda: MASK.sum(),
    "integer product": lambda: WHOLE @ WHOLE,
    "complex": lambda: torch.complex(A, B) * torch.complex(B, A),
}


@pytest.mark.parametrize("run", EXACT.values(), ids=EXACT)
def test_what_changes_no_digit_stays_as_it_is(run: Callable[[], Tensor]) -> None:
    with only(SCOPE):
        assert torch.equal(run(), run())
        spiking = run()
    assert torch.equal(spiking, run())


def test_powers_of_two() -> None:
    assert all(map(is_power_of_two, (1, 2, -0.5, 2.0**-140, 1 << 60)))
    assert not any(map(is_power_of_two, (0, 3, 0.1, -6, float("inf"), float("nan"))))


@pytest.mark.parametrize("name", ["add", "sub", "mul", "matmul"])
def test_errors_are_torchs_or_a_sentence(name: str) -> None:
    from spikeplug.errors import SpikeplugError

    with only(SCOPE), pytest.raises((RuntimeError, SpikeplugError, ValueError)):
        getattr(torch, name)(A, seeded(4, 7))


def test_nothing_and_what_is_not_finite() -> None:
    """As torch has it, element by element."""
    odd = torch.tensor([[torch.nan, torch.inf, -torch.inf, 1.0, 0.0]])
    for run in (lambda: odd + ROW, lambda: odd * ROW, lambda: odd.sum(-1), lambda: odd - odd, lambda: A[:0] + ROW):
        with only(SCOPE):
            spiking = run()
        exact = run()
        assert spiking.shape == exact.shape
        strange = ~torch.isfinite(exact)
        assert torch.equal(spiking[strange].nan_to_num(9.0), exact[strange].nan_to_num(9.0))
        assert bool(torch.isfinite(spiking[~strange]).all())


def test_masks_pass_sums_and_leave_the_scores() -> None:
    lowest = torch.finfo(torch.float32).min
    mask = torch.tensor([0.0, 0.0, 0.0, lowest, lowest])
    with only(SCOPE):
        spiking = A + mask
        twice = spiking + mask
    assert (spiking[:, :3] - A[:, :3]).abs().max() < 1e-4
    assert bool((spiking[:, 3:] <= lowest / 2).all())
    assert bool((twice[:, 3:] <= lowest / 2).all())


def test_gradients_are_those_of_the_float_functions() -> None:
    for name in ("a + b", "a * b", "a @ b", "a / 3", "mean over two", "F.linear, bias", "baddbmm"):
        leaves = [x.requires_grad_() for x in (A, B, ROW, SQUARE, BATCH, OTHER)]
        exact = torch.autograd.grad(CALLS[name]().sum(), leaves, allow_unused=True)
        with only(SCOPE):
            output = CALLS[name]().sum()
        spiking = torch.autograd.grad(output, leaves, allow_unused=True)
        for x in leaves:
            x.requires_grad_(False)
        for mine, expected in zip(spiking, exact, strict=True):
            assert (mine is None) == (expected is None)
            assert mine is None or (mine - expected).abs().max() < 1e-3 * (1 + expected.abs().max())


class _Seen(TorchFunctionMode):
    """Note which functions were called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in LINEAR_TABLE:
            self.names.add(func.__name__.strip("_"))
        return func(*args, **(kwargs or {}))


def test_the_calls_above_cover_the_table() -> None:
    with _Seen() as seen:
        for run in CALLS.values():
            run()
    names = {name for entry in FUNCTIONS for name in entry.names}
    assert names - seen.names - {"rmatmul", "radd", "rmul", "truediv", "divide"} == set()
