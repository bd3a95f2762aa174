"""List every way to call a redirected torch function, by the name of its replacement, for test_redirection.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from spikeplug import Numerics, functional
from spikeplug.operators import RECORDS

CONFIG = Numerics(bits=14)  # not the default, so that the test shows which numerics are used


def tensor(*shape: int, seed: int = 0) -> Tensor:
    """Return positive numbers, for which every function is defined."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32) * 2 + 0.25


X, Y, W = tensor(2, 3, 8), tensor(2, 3, 8, seed=1), tensor(8, seed=2)
IMAGE = tensor(2, 6, 4, 4)


def changed(x: Tensor, *calls: Callable[[Tensor], Any]) -> Tensor:
    for call in calls:
        call(x)
    return x


#: name of the entry -> (what CONFIG's operators give, all the spellings)
SPELLINGS: dict[str, tuple[Callable[[], Tensor], list[Callable[[], Any]]]] = {
    "softmax": (
        lambda: functional.softmax(X, 1, numerics=CONFIG),
        [
            lambda: torch.softmax(X, 1),
            lambda: torch.softmax(X, dim=1),
            lambda: torch.softmax(input=X, dim=1, dtype=torch.float32),
            lambda: torch.softmax(X, 1, out=torch.empty_like(X)),
            lambda: X.softmax(1),
            lambda: X.softmax(axis=1),
            lambda: X.softmax(-2, torch.float32),
            lambda: F.softmax(X, 1),
            lambda: F.softmax(X, 1, 3, torch.float32),
            lambda: torch.special.softmax(X, 1),
            lambda: nn.Softmax(1)(X),
            lambda: nn.Softmax2d()(X[None].transpose(1, 2)).transpose(1, 2)[0],
        ],
    ),
    "log_softmax": (
        lambda: functional.log_softmax(X, -1, numerics=CONFIG),
        [
            lambda: torch.log_softmax(X, -1),
            lambda: X.log_softmax(dim=-1),
            lambda: F.log_softmax(X, dim=-1),
            lambda: torch.special.log_softmax(X, -1),
            lambda: nn.LogSoftmax(-1)(X),
        ],
    ),
    "scaled_dot_product_attention": (
        lambda: functional.attention(X[None], Y[None], X[None], numerics=CONFIG)[0],
        [
            lambda: F.scaled_dot_product_attention(X, Y, X),
            lambda: F.scaled_dot_product_attention(X, Y, X, None, 0.0, False),
            lambda: F.scaled_dot_product_attention(query=X, key=Y, value=X, scale=8**-0.5),
        ],
    ),
    "silu": (
        lambda: functional.silu(X, numerics=CONFIG),
        [
            lambda: F.silu(X),
            lambda: F.silu(X.clone(), True),
            lambda: changed(X.clone(), lambda x: F.silu(x, inplace=True)),
            lambda: nn.SiLU()(X),
        ],
    ),
    "gelu": (
        lambda: functional.gelu(X, "tanh", numerics=CONFIG),
        [lambda: F.gelu(X, approximate="tanh"), lambda: nn.GELU("tanh")(X)],
    ),
    "sigmoid": (
        lambda: functional.sigmoid(X, numerics=CONFIG),
        [
            lambda: torch.sigmoid(X),
            lambda: torch.sigmoid(X, out=torch.empty_like(X)),
            lambda: X.sigmoid(),
            lambda: changed(X.clone(), Tensor.sigmoid_),
            lambda: changed(X.clone(), torch.sigmoid_),
            lambda: F.sigmoid(X),
            lambda: torch.special.expit(X),
            lambda: nn.Sigmoid()(X),
        ],
    ),
    "tanh": (
        lambda: functional.tanh(X, numerics=CONFIG),
        [
            lambda: torch.tanh(X),
            lambda: X.tanh(),
            lambda: changed(X.clone(), Tensor.tanh_),
            lambda: F.tanh(X),
            lambda: nn.Tanh()(X),
        ],
    ),
    "softplus": (
        lambda: functional.softplus(X, 2.0, 15.0, numerics=CONFIG),
        [lambda: F.softplus(X, 2.0, 15.0), lambda: F.softplus(X, beta=2, threshold=15), lambda: nn.Softplus(2, 15)(X)],
    ),
    "logsigmoid": (
        lambda: -functional.softplus(-X, numerics=CONFIG),
        [lambda: F.logsigmoid(X), lambda: nn.LogSigmoid()(X)],
    ),
    "glu": (
        lambda: X[..., :4] * functional.sigmoid(X[..., 4:], numerics=CONFIG),
        [lambda: F.glu(X), lambda: F.glu(X, 2), lambda: nn.GLU()(X)],
    ),
    "layer_norm": (
        lambda: functional.layer_norm(X, W, W, 1e-3, numerics=CONFIG),
        [
            lambda: F.layer_norm(X, (8,), W, W, 1e-3),
            lambda: F.layer_norm(X, [8], weight=W, bias=W, eps=1e-3),
            lambda: torch.layer_norm(X, (8,), W, W, 1e-3, True),
        ],
    ),
    "rms_norm": (
        lambda: functional.rms_norm(X, W, 1e-3, numerics=CONFIG),
        [lambda: F.rms_norm(X, (8,), W, 1e-3), lambda: torch.rms_norm(X, [8], weight=W, eps=1e-3)],
    ),
    "group_norm": (
        lambda: functional.layer_norm(IMAGE.view(2, 3, -1), numerics=CONFIG).view(IMAGE.shape),
        [lambda: F.group_norm(IMAGE, 3), lambda: torch.group_norm(IMAGE, 3), lambda: nn.GroupNorm(3, 6)(IMAGE)],
    ),
    "cos": (
        lambda: functional.cos(X, numerics=CONFIG),
        [lambda: torch.cos(X), lambda: X.cos(), lambda: X.clone().cos_()],
    ),
    "sin": (
        lambda: functional.sin(X, numerics=CONFIG),
        [lambda: torch.sin(X), lambda: X.sin(), lambda: X.clone().sin_()],
    ),
    "polar": (
        lambda: torch.complex(X * functional.cos(Y, numerics=CONFIG), X * functional.sin(Y, numerics=CONFIG)),
        [lambda: torch.polar(X, Y), lambda: torch.polar(abs=X, angle=Y)],
    ),
    "exp": (
        lambda: functional.exp(X, numerics=CONFIG),
        [
            lambda: torch.exp(X),
            lambda: X.exp(),
            lambda: changed(X.clone(), Tensor.exp_),
            lambda: torch.exp(X, out=torch.empty_like(X)),
            lambda: math.e**X,
            lambda: torch.pow(math.e, X),
        ],
    ),
    "exp2": (
        lambda: functional.exp(X * math.log(2), numerics=CONFIG),
        [lambda: torch.exp2(X), lambda: X.exp2(), lambda: torch.special.exp2(X), lambda: 2**X],
    ),
    "log": (
        lambda: functional.log(X, numerics=CONFIG),
        [lambda: torch.log(X), lambda: X.log(), lambda: X.clone().log_()],
    ),
    "log2": (lambda: functional.log(X, numerics=CONFIG) * (1 / math.log(2)), [lambda: torch.log2(X), lambda: X.log2()]),
    "log10": (
        lambda: functional.log(X, numerics=CONFIG) * (1 / math.log(10)),
        [lambda: torch.log10(X), lambda: X.log10()],
    ),
    "log1p": (
        lambda: functional.log(X + 1, numerics=CONFIG),
        [lambda: torch.log1p(X), lambda: X.log1p(), lambda: torch.special.log1p(X)],
    ),
    "sqrt": (
        lambda: functional.sqrt(X, numerics=CONFIG),
        [lambda: torch.sqrt(X), lambda: X.sqrt(), lambda: X**0.5, lambda: torch.pow(X, 0.5), lambda: X.clone().sqrt_()],
    ),
    "rsqrt": (
        lambda: functional.rsqrt(X, numerics=CONFIG),
        [lambda: torch.rsqrt(X), lambda: X.rsqrt(), lambda: X**-0.5, lambda: X.pow(exponent=-0.5)],
    ),
    "reciprocal": (
        lambda: functional.reciprocal(X, numerics=CONFIG),
        [
            lambda: torch.reciprocal(X),
            lambda: X.reciprocal(),
            lambda: 1 / X,
            lambda: 1.0 / X,
            lambda: X**-1,
            lambda: X.__rdiv__(1),
        ],
    ),
    "square": (
        lambda: functional.square(X, numerics=CONFIG),
        [
            lambda: torch.square(X),
            lambda: X.square(),
            lambda: X**2,
            lambda: X**2.0,
            lambda: X.pow(2),
            lambda: torch.pow(X, 2),
            lambda: torch.pow(X, exponent=2, out=torch.empty_like(X)),
            lambda: changed(X.clone(), lambda x: x.pow_(2)),
            lambda: changed(X.clone(), lambda x: x.__ipow__(2)),
        ],
    ),
    "div": (
        lambda: functional.divide(X, Y, numerics=CONFIG),
        [
            lambda: X / Y,
            lambda: torch.div(X, Y),
            lambda: torch.div(X, other=Y),
            lambda: torch.div(X, Y, out=torch.empty_like(X)),
            lambda: torch.div(X, Y, rounding_mode=None),
            lambda: torch.divide(X, Y),
            lambda: torch.true_divide(X, Y),
            lambda: X.div(Y),
            lambda: changed(X.clone(), lambda x: x.div_(Y)),
            lambda: changed(X.clone(), lambda x: x.__itruediv__(Y)),
        ],
    ),
    "norm": (
        lambda: functional.vector_norm(X, 1, True, numerics=CONFIG),
        [
            lambda: X.norm(dim=1, keepdim=True),
            lambda: X.norm(2, 1, True),
            lambda: X.norm("fro", [1], keepdim=True),
            lambda: torch.norm(X, dim=1, keepdim=True),
            lambda: torch.linalg.norm(X, dim=1, keepdim=True),
            lambda: torch.linalg.norm(X, 2, 1, True),
            lambda: torch.linalg.vector_norm(X, 2, 1, True),
            lambda: torch.linalg.vector_norm(X, dim=(1,), keepdim=True),
        ],
    ),
    "vector_norm": (
        lambda: functional.vector_norm(X.flatten(), numerics=CONFIG),
        [
            lambda: X.norm(),
            lambda: torch.norm(X),
            lambda: torch.linalg.vector_norm(X),
            lambda: torch.linalg.vector_norm(X, keepdim=True).view(()),
            lambda: torch.linalg.norm(X),
        ],
    ),
    "normalize": (
        lambda: functional.divide(X, functional.vector_norm(X, 1, True, numerics=CONFIG), numerics=CONFIG),
        [lambda: F.normalize(X), lambda: F.normalize(X, 2.0, 1), lambda: F.normalize(X, dim=-2, eps=1e-9)],
    ),
    "var": (
        lambda: functional.square(X - X.mean(-1, keepdim=True), numerics=CONFIG).sum(-1) * (1 / 7),
        [
            lambda: X.var(-1),
            lambda: torch.var(X, -1),
            lambda: torch.var(X, dim=(-1,), unbiased=True),
            lambda: torch.var(X, -1, correction=1),
            lambda: X.var(axis=-1, keepdims=True).squeeze(-1),
            lambda: X.var(-1, False) * (8 / 7),
            lambda: X.var(-1, correction=0) * (8 / 7),
        ],
    ),
    "std": (
        lambda: functional.sqrt(
            X.var() * 0 + functional.square(X - X.mean(), numerics=CONFIG).sum() / 48, numerics=CONFIG
        ),
        [lambda: X.std(correction=0), lambda: torch.std(X, False), lambda: torch.std(X, unbiased=False)],
    ),
}


MEAN, MATRIX = torch.linspace(-1, 1, 6), torch.eye(8) * 3 + tensor(8, 8, seed=4).tril()
#: compositions, whose parts are redirected: all the spellings
COMPOSED: dict[str, list[Callable[[], Any]]] = {
    "pow": [lambda: X**Y, lambda: torch.pow(X, Y), lambda: X.clone().pow_(Y)],
    "rpow": [lambda: 3**X, lambda: torch.pow(3.0, X), lambda: X.__rpow__(3)],
    "expm1": [lambda: torch.expm1(X), lambda: X.expm1(), lambda: torch.special.expm1(X), lambda: X.clone().expm1_()],
    "logsumexp": [
        lambda: torch.logsumexp(X, 1),
        lambda: X.logsumexp(dim=(1,)),
        lambda: torch.special.logsumexp(X, 1, True).squeeze(1),
    ],
    "softmin": [lambda: F.softmin(X, 1), lambda: F.softmin(X, dim=1, dtype=torch.float32), lambda: nn.Softmin(1)(X)],
    "elu": [lambda: F.elu(X - 1, 2.0), lambda: nn.ELU(2.0)(X - 1), lambda: F.elu(X - 1, alpha=2.0, inplace=True)],
    "celu": [lambda: F.celu(X - 1, 2.0), lambda: torch.celu(X - 1, 2.0), lambda: nn.CELU(2.0, True)(X - 1)],
    "selu": [lambda: F.selu(X - 1), lambda: torch.selu(X - 1), lambda: nn.SELU()(X - 1), lambda: torch.selu_(X - 1)],
    "tanhshrink": [lambda: F.tanhshrink(X), lambda: nn.Tanhshrink()(X)],
    "softsign": [lambda: F.softsign(X - 1), lambda: nn.Softsign()(X - 1)],
    "erf": [lambda: torch.erf(X - 1), lambda: (X - 1).erf(), lambda: torch.special.erf(X - 1), lambda: (X - 1).erf_()],
    "erfc": [lambda: torch.erfc(X - 1), lambda: (X - 1).erfc(), lambda: torch.special.erfc(X - 1)],
    "cosine_similarity": [
        lambda: F.cosine_similarity(X, Y - 1, -1),
        lambda: torch.cosine_similarity(X, Y - 1, dim=-1),
        lambda: nn.CosineSimilarity(-1)(X, Y - 1),
    ],
    "batch_norm": [
        lambda: F.batch_norm(IMAGE, MEAN, MEAN**2 + 0.1, MEAN, MEAN + 1, False, 0.1, 1e-3),
        lambda: F.batch_norm(IMAGE, MEAN, MEAN**2 + 0.1, weight=MEAN, bias=MEAN + 1, eps=1e-3),
        lambda: torch.batch_norm(IMAGE, MEAN, MEAN + 1, MEAN, MEAN**2 + 0.1, False, 0.1, 1e-3, False),
    ],
    "solve_triangular": [
        lambda: torch.linalg.solve_triangular(MATRIX, X.transpose(1, 2), upper=False),
        lambda: torch.linalg.solve_triangular(MATRIX.T, X, upper=True, left=False).transpose(1, 2),
    ],
}


def derived(name: str) -> tuple[Callable[[], Tensor], list[Callable[[], Any]]]:
    """Return the spellings of a function of one tensor: in every namespace, as a method, in place, as a module."""
    calls: list[Callable[[], Any]] = []
    for spelling in RECORDS[name].spellings[0].names:
        for namespace in (torch, F, torch.special):
            if callable(function := getattr(namespace, spelling, None)):
                calls.append(partial(lambda function: function(X), function))
                if "inplace" in getattr(getattr(function, "__code__", None), "co_varnames", ()):
                    calls.append(partial(lambda function: changed(X.clone(), lambda x: function(x, True)), function))
            if callable(function := getattr(namespace, f"{spelling}_", None)):
                calls.append(partial(lambda function: changed(X.clone(), function), function))
        if hasattr(Tensor, spelling):
            calls.append(lambda: getattr(X, name)())
    for path in RECORDS[name].modules:
        cls = getattr(import_module(path.rpartition(".")[0]), path.rpartition(".")[2])
        calls.append(lambda cls=cls: cls()(X))
    return lambda: getattr(functional, name)(X, numerics=CONFIG), calls


# Operators of one tensor need no entry: their records say how torch spells them.
for _name, _record in RECORDS.items():
    if _record.spellings and not _record.settings and _name not in SPELLINGS and len(_record.inputs) == 1:
        SPELLINGS[_name] = derived(_name)
