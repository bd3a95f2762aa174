"""Test every redirected torch function in every spelling, calls that must be left alone, and scopes inside scopes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from spellings import COMPOSED, CONFIG, IMAGE, MATRIX, SPELLINGS, W, X, Y
from tiny_models import relative_error
from torch import Tensor, nn, overrides
from torch.overrides import TorchFunctionMode

from spikeplug import functional
from spikeplug.conversion import audit, convert
from spikeplug.conversion.match import OPERATORS
from spikeplug.conversion.redirection import NAMES, TABLE, Redirection, only
from spikeplug.conversion.replacements import ALL


def scope(*operators: str) -> only:
    return only(Redirection(CONFIG, frozenset(operators or OPERATORS)))


def parts(x: Tensor) -> Tensor:
    return torch.view_as_real(x) if x.is_complex() else x


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_gives_what_the_operator_gives(name: str) -> None:
    expected, spellings = SPELLINGS[name]
    for place, spelling in enumerate(spellings):
        with scope():
            answer = spelling()
        assert torch.allclose(answer, expected(), rtol=1e-6, atol=1e-7), place
        exact = spelling()
        assert not torch.equal(answer, exact), place
        assert relative_error(parts(answer), parts(exact)) < 1e-3, place


@pytest.mark.parametrize("name", COMPOSED)
def test_every_spelling_of_a_composition_agrees(name: str) -> None:
    answers = []
    for spelling in COMPOSED[name]:
        with scope():
            answers.append(spelling())
        assert relative_error(answers[-1], spelling()) < 1e-3
    with audit(nn.Identity()) as found, scope():
        COMPOSED[name][0]()
    assert found.counts == {}
    assert not torch.equal(answers[0], COMPOSED[name][0]())
    assert all(torch.allclose(answer, answers[0], rtol=1e-6, atol=1e-7) for answer in answers)


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("upper", [True, False])
@pytest.mark.parametrize("unitriangular", [True, False])
def test_triangular_systems(left: bool, upper: bool, unitriangular: bool) -> None:
    matrix, right = MATRIX.T if upper else MATRIX, X if not left else X.transpose(1, 2)

    def solve() -> Tensor:
        return torch.linalg.solve_triangular(matrix, right, upper=upper, left=left, unitriangular=unitriangular)

    with scope():
        answer = solve()
    assert relative_error(answer, solve()) < 1e-3


EDGES = torch.tensor([-torch.inf, -100.0, -3.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 3.0, 100.0, torch.inf, torch.nan])
ENDS: dict[str, Callable[[], Tensor]] = {
    "pow": lambda: EDGES[:, None] ** EDGES[(EDGES.abs() < 50) | EDGES.isnan()],
    "expm1": lambda: torch.expm1(EDGES),
    "logsumexp": lambda: torch.stack([EDGES[:10].logsumexp(0), EDGES[1:].logsumexp(0), EDGES[:1].logsumexp(0)]),
    "erf": lambda: torch.erf(EDGES),
    "erfc": lambda: torch.erfc(EDGES),
    "elu": lambda: F.elu(EDGES),
    "selu": lambda: F.selu(EDGES),
    "celu": lambda: F.celu(EDGES, 0.5),
    "softsign": lambda: F.softsign(EDGES[1:-2]),
    "sqrt": lambda: EDGES.sqrt(),
    "log1p": lambda: EDGES.log1p(),
    "quotient": lambda: EDGES[:, None] / EDGES,
}


@pytest.mark.parametrize("name", ENDS)
def test_infinities_zeros_and_nan_are_torchs(name: str) -> None:
    with scope():
        answer = ENDS[name]()
    exact = ENDS[name]()
    finite = exact.isfinite()
    assert torch.equal(answer.isnan(), exact.isnan())
    assert torch.equal(answer[exact.isinf()], exact[exact.isinf()])
    assert torch.allclose(answer[finite], exact[finite], rtol=1e-3, atol=1e-4)


# See test_claims.py and, for the rounded quotients, test_compositions.py.
ELSEWHERE = {
    *("floor_divide", "rfloordiv", "remainder", "rmod", "fmod", "float_power", "_softmax", "_log_softmax"),
    *("gumbel_softmax", "dist", "pairwise_distance", "cdist", "var_mean", "std_mean", "mse_loss", "kl_div"),
    *("binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy"),
}


def test_no_entry_is_without_a_test() -> None:
    attention = {"multi_head_attention_forward"}  # see test_plain_torch.py
    assert {entry.names[0] for entry in ALL} == SPELLINGS.keys() | COMPOSED.keys() | attention | {"rdiv"} | ELSEWHERE


def test_functions_in_place_change_their_argument() -> None:
    in_place = [f for f in TABLE if f.__name__.endswith("_") and not f.__name__.endswith("__")]
    assert len(in_place) > 30
    for function in in_place:
        if function.__name__ in ("float_power_", "floor_divide_", "remainder_", "fmod_"):
            continue  # they need float64, or give whole numbers: see test_claims.py and test_compositions.py
        more = (Y,) if "div" in function.__name__ else (2,) if "pow" in function.__name__ else ()
        x = X.clone()
        view = x[0]
        with scope():
            answer = function(x, *more)
        exact = function(X.clone(), *more)
        assert answer is x, function
        assert not torch.equal(x, exact) or function.__name__ in ("elu_", "selu_", "celu_"), function
        assert torch.equal(view, x[0]), function
        assert relative_error(x, exact) < 1e-3, function


def test_assignments_reach_every_view() -> None:
    x = X.clone()
    view = x[0]
    with scope():
        x /= Y
        view **= 2
    assert torch.equal(view, x[0])
    assert relative_error(x[1], X[1] / Y[1]) < 1e-3
    assert relative_error(view, (X[0] / Y[0]) ** 2) < 1e-3


INTEGERS, COMPLEX = torch.arange(1, 7).view(2, 3), torch.complex(X, Y)
ALONE: dict[str, Callable[[], Tensor]] = {
    "exp of integers": lambda: torch.exp(INTEGERS),
    "square of integers": lambda: INTEGERS**2,
    "quotient of integers": lambda: INTEGERS / INTEGERS.flip(0),
    "power of integers": lambda: 2.5**INTEGERS,
    "softmax of integers": lambda: torch.softmax(INTEGERS, -1, torch.float32),
    "exp of complex": lambda: COMPLEX.exp(),
    "square of complex": lambda: COMPLEX**2,
    "complex by float": lambda: COMPLEX / X,
    "float by complex": lambda: X / COMPLEX,
    "imaginary number by float": lambda: 1j / X,
    "norm of complex": lambda: COMPLEX.norm(dim=-1),
    "floor by a number": lambda: torch.div(X, 3, rounding_mode="floor") + X // 2 + X % 2,
    "quotient by a number": lambda: X / 3,
    "quotient by a number, in place": lambda: X.clone().div_(3.0),
    "zeroth power": lambda: X**0,
    "first power": lambda: X**1,
    "negative base": lambda: (-2.0) ** X,
    "L1 norm": lambda: X.norm(1, -1),
    "largest": lambda: torch.linalg.vector_norm(X, math.inf, -1),
    "matrix norm": lambda: torch.linalg.norm(X[0], 2),
    "Frobenius norms": lambda: torch.linalg.norm(X, dim=(0, 1)),
    "affine": lambda: (2 * X + 1) @ Y.transpose(-1, -2),
    "thresholds": lambda: X.relu() + X.clamp(0.5, 1) + X.abs().round() + X.amax(-1, True),
    "mean": lambda: X.mean(-1) + X.sum(1).max(),
}


@pytest.mark.parametrize("name", ALONE)
def test_other_calls_are_left_alone(name: str) -> None:
    with scope():
        answer = ALONE[name]()
    assert torch.equal(torch.nan_to_num(parts(answer)), torch.nan_to_num(parts(ALONE[name]())))
    assert answer.dtype == ALONE[name]().dtype


MORE: dict[str, Callable[[], Tensor]] = {
    "by a short 0-d tensor": lambda: X / torch.tensor(3.0, dtype=torch.bfloat16),
    "short by a 0-d tensor": lambda: X.bfloat16() / torch.tensor(3.0),
    "short by float": lambda: X.bfloat16() / Y,
    "integers by float": lambda: INTEGERS / INTEGERS.flip(0).double(),
    "float by integers": lambda: X[0, :, :3] / INTEGERS.repeat(2, 1)[:3],
    "0-d integer by float": lambda: torch.tensor(3) / X,
    "double by float": lambda: X.double() / Y,
    "broadcast": lambda: X[:, :1] / Y[0, :, :1],
    "broadcast by one": lambda: X[0] / Y[:1, :1, :1],
    "short number power": lambda: 3.0 ** X.bfloat16(),
    "tensor power": lambda: X**Y,
    "exp of half": lambda: X.half().exp(),
    "log2 of half": lambda: X.half().log2(),
    "softmax to double": lambda: F.softmax(X.bfloat16(), -1, dtype=torch.float64),
    "short layer norm, float weights": lambda: F.layer_norm(X.bfloat16(), (8,), W, W),
    "rms norm, no eps": lambda: F.rms_norm(X.bfloat16() * 1e-3, (8,)),
    "rms norm, no eps, half": lambda: F.rms_norm(X.half() * 1e-2, (3, 8)),
    "rms norm, no eps, double": lambda: F.rms_norm(X.double() * 1e-8, (8,)),
    "layer norm over two dimensions": lambda: F.layer_norm(X, (3, 8), X[0], Y[0]),
    "group norm": lambda: F.group_norm(IMAGE, 2, IMAGE[0, :, 0, 0], IMAGE[1, :, 0, 0]),
    "group norm of two dimensions": lambda: F.group_norm(X[0], 4, W, W),
    "L1 normalised": lambda: F.normalize(X, 1.0),
    "variance of all": lambda: X.var(),
    "variance over two dimensions": lambda: X.var((0, 2), keepdim=True),
    "deviation": lambda: X.std(1, unbiased=False, keepdim=True),
    "seventh power": lambda: X**7 + X**1.5,
    "third and minus second power": lambda: torch.pow(X, 3) + X.pow(-2),
    "0-d": lambda: X[0, 0, 0].exp().sqrt(),
    "empty": lambda: torch.softmax(X[:0], -1).sum() + 1 + X[:0].exp().sum(),
    "transposed": lambda: X.transpose(0, 2).exp() / Y.transpose(0, 2),
}


@pytest.mark.parametrize("name", MORE)
def test_dtypes_and_shapes_are_torchs(name: str) -> None:
    with scope():
        answer = MORE[name]()
    exact = MORE[name]()
    assert answer.dtype == exact.dtype
    assert answer.shape == exact.shape
    short = exact.dtype.itemsize < 4 or "short" in name
    assert relative_error(answer, exact) < (8e-3 if short else 1e-3)


def test_only_the_operators_chosen_are_used() -> None:
    def both() -> tuple[Tensor, ...]:
        return X**2, X**0.5, X.exp(), F.normalize(X), X.std(-1), torch.softmax(X, -1)

    exact = both()
    for operators, expected in (
        ({"square"}, (1, 0, 0, 0, 1, 0)),
        ({"sqrt"}, (0, 1, 0, 0, 1, 0)),
        ({"divide"}, (0, 0, 0, 1, 0, 0)),
        ({"softmax", "exp"}, (0, 0, 1, 0, 0, 1)),
    ):
        with scope(*operators):
            answers = both()
        for answer, x, differs in zip(answers, exact, expected, strict=True):
            assert torch.equal(answer, x) != bool(differs), (operators, differs)
            assert torch.allclose(answer, x, rtol=1e-3)


def test_scopes_in_scopes_see_only_their_own() -> None:
    with scope("exp"):
        with scope("sqrt"):
            inner = X.exp(), X.sqrt()
            with only(None):
                innermost = X.exp(), X.sqrt()
        outer = X.exp(), X.sqrt()
    assert torch.equal(inner[0], X.exp())
    assert torch.equal(inner[1], functional.sqrt(X, numerics=CONFIG))
    assert torch.equal(outer[0], functional.exp(X, numerics=CONFIG))
    assert torch.equal(outer[1], X.sqrt())
    assert torch.equal(innermost[0], X.exp())
    assert torch.equal(innermost[1], X.sqrt())


class Counting(TorchFunctionMode):
    """Count calls as a third party's mode that changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


def test_the_modes_of_others_go_on() -> None:
    with Counting() as around, scope("exp"), torch.device("meta"), Counting() as within:
        answer = X.exp()
        made = torch.zeros(2)
        with only(None):
            X.exp()
            assert torch.zeros(2).device.type == "meta"
    assert torch.equal(answer, functional.exp(X, numerics=CONFIG))
    assert made.device.type == "meta"
    assert within.seen.count(Tensor.exp) == 2
    assert around.seen.count(Tensor.exp) == 1  # the one in no scope; the other is an operator out here


def test_an_error_leaves_no_mode_behind() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError(float(x.exp().sum()))

    model = nn.Sequential(nn.Tanh(), Fails())
    convert(model, exclude="0")
    with Counting() as mode:
        before = overrides._get_current_function_mode_stack()
        with pytest.raises(ValueError, match=r"\d"):
            model(X)
        assert overrides._get_current_function_mode_stack() == before == [mode]
    assert overrides._get_current_function_mode_stack() == []
    assert torch.equal(X.exp(), torch.exp(X))


class Inner(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.exp() / x.exp().sum(-1, keepdim=True)


class Outer(nn.Module):
    """Run in a scope, with a child that makes the same calls, and one call that byte code does not show."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.hidden = Inner(), Hidden()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"own": x.exp(), "inner": self.inner(x), "hidden": self.hidden(x)}


class Hidden(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return getattr(torch, "e" + "xp")(x)


def test_an_excluded_module_in_a_scoped_one_stays_exact() -> None:
    model = Outer()
    exact = model(X)
    convert(model, exclude="inner")
    answer = model(X)
    assert torch.equal(answer["inner"], exact["inner"])
    assert not torch.equal(answer["own"], exact["own"])
    assert not torch.equal(answer["hidden"], exact["hidden"])  # a child without places belongs to the scope around


def test_a_module_in_an_excluded_one_is_replaced() -> None:
    model = Outer()
    exact = model(X)
    convert(model, exclude="^$")
    answer = model(X)
    assert torch.equal(answer["own"], exact["own"])
    assert torch.equal(answer["hidden"], exact["hidden"])
    assert not torch.equal(answer["inner"], exact["inner"])


@pytest.mark.parametrize("name", sorted(SPELLINGS.keys() - {"polar"}))
def test_gradients_go_straight_through(name: str) -> None:
    leaf = IMAGE if name == "group_norm" else X
    gradients = []
    for context in (scope(), only(None)):
        leaf.requires_grad_()
        try:
            with context:
                answer = SPELLINGS[name][1][0]()
            weighted = answer.flatten() * torch.linspace(1, 3, answer.numel())
            gradients.append(torch.autograd.grad(weighted.sum(), leaf)[0])
        finally:
            leaf.requires_grad_(False)
    ours, exact = gradients
    assert relative_error(ours, exact) < 3e-3


def test_a_gradient_taken_within_the_scope_is_the_exact_functions() -> None:
    """Models of energies take gradients in forward; backward then runs in the scope of that module."""

    class Force(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x.detach().requires_grad_()
            return torch.autograd.grad(torch.tanh(x).sum() + torch.softmax(x, -1)[..., 0].sum(), x)[0]

    model = Force()
    exact = model(X)
    convert(model)
    assert relative_error(model(X), exact) < 3e-3


def test_names_and_table_agree() -> None:
    assert all(operators <= set(OPERATORS) for operators in NAMES.values())
    assert {f.__name__ for f in TABLE} <= NAMES.keys()


def test_nothing_stays_float_in_any_spelling() -> None:
    class Every(nn.Module):
        def forward(self, name: str) -> None:
            for spelling in SPELLINGS[name][1]:
                spelling()

    model = Every()
    for name in SPELLINGS:
        with audit(model) as found, scope():
            model(name)
        assert found.counts == {}, (name, found.counts)
