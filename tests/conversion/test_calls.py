"""Test that byte code shows the functions a module's code may call, however it fetches them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from inherited import Base, shared
from tiny_models import relative_error, tiny_model
from torch import Tensor, nn
from torch.nn.functional import silu as swish

from spikeplug.conversion import audit, convert
from spikeplug.conversion.calls import called_names
from spikeplug.conversion.redirection import NAMES

TABLE_OF_ACTIVATIONS = {"relu": F.relu, "tanh": torch.tanh}
ALSO_A_FUNCTION = torch.sigmoid


def helper(x: Tensor) -> Tensor:
    return deeper(x) + 1


def deeper(x: Tensor) -> Tensor:
    return torch.exp(x)


def recursive(x: Tensor, depth: int = 2) -> Tensor:
    return recursive(x, depth - 1) if depth else x.exp()


def bare(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate without recording what is wrapped."""

    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


@functools.lru_cache
def cached(size: int) -> Tensor:
    return torch.arange(float(size)).exp()


class Method(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return self.act(x)

    def act(self, x: Tensor) -> Tensor:
        return torch.tanh(x)


class Static(Method):
    @staticmethod
    def act(x: Tensor) -> Tensor:
        return torch.sqrt(x)


class OfClass(Method):
    @classmethod
    def act(cls, x: Tensor) -> Tensor:
        return torch.log(x)


class Property(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale

    @property
    def scale(self) -> Tensor:
        return torch.ones(1).exp()


class CachedProperty(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale

    @functools.cached_property
    def scale(self) -> Tensor:
        return torch.ones(1).exp()


class Attribute(nn.Module):
    def __init__(self, act: Any) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x)


class InList(Attribute):
    def forward(self, x: Tensor) -> Tensor:
        for act in self.act:
            x = act(x)
        return x


class ClassAttribute(nn.Module):
    act = staticmethod(torch.cos)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x)


class Alias(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return swish(x) + ALSO_A_FUNCTION(x)


class FromTable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return TABLE_OF_ACTIVATIONS["tanh"](x)


class Helper(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return helper(x)


class OtherFile(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return shared(x)


class Recursive(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return recursive(x)


class Cached(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * cached(x.shape[-1])


class Bare(nn.Module):
    @bare
    def forward(self, x: Tensor) -> Tensor:
        return x.exp()


class Wrapped(nn.Module):
    @torch.no_grad()
    @wrapped
    def forward(self, x: Tensor) -> Tensor:
        return x.exp()


class Nested(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        def inner(x: Tensor) -> list[Tensor]:
            return [(lambda y: y.exp())(row) for row in x]

        return torch.stack(inner(x))


class Inherits(Base):
    pass


class CallsBase(Base):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class NamesBase(Base):
    def forward(self, x: Tensor) -> Tensor:
        return Base.forward(self, x)


class Overrides(Base):
    def act(self, x: Tensor) -> Tensor:
        return x.sin()


class Signs(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x /= x.sum()
        return x**2


class Aliased(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        act = torch.tanh
        return act(x)


class Local(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        from torch.nn.functional import gelu as act

        return act(x)


def double(x: Tensor, factor: float) -> Tensor:
    return torch.sigmoid(x) * factor


FOUND: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "method": (Method, {"tanh"}),
    "static method": (Static, {"sqrt"}),
    "class method": (OfClass, {"log"}),
    "property": (Property, {"exp"}),
    "cached property": (CachedProperty, {"exp"}),
    "builtin as attribute": (lambda: Attribute(torch.tanh), {"tanh"}),
    "torch's Python function as attribute": (lambda: Attribute(F.silu), {"silu"}),
    "another name of torch's own": (lambda: Attribute(F.logsigmoid), {"log_sigmoid"}),
    "method of Tensor as attribute": (lambda: Attribute(Tensor.exp), {"exp"}),
    "lambda as attribute": (lambda: Attribute(lambda x: torch.tanh(x)), {"tanh"}),
    "function as attribute": (lambda: Attribute(helper), {"exp"}),
    "partial of a builtin": (lambda: Attribute(functools.partial(torch.softmax, dim=-1)), {"softmax"}),
    "partial of a function": (lambda: Attribute(functools.partial(double, factor=2.0)), {"sigmoid"}),
    "partial of a partial": (
        lambda: Attribute(functools.partial(functools.partial(F.gelu), approximate="tanh")),
        {"gelu"},
    ),
    "closure as attribute": (lambda: Attribute(bare(torch.tanh)), {"tanh"}),
    "list of functions": (lambda: InList([torch.tanh, lambda x: x.exp()]), {"tanh", "exp"}),
    "class attribute": (ClassAttribute, {"cos"}),
    "import under another name": (Alias, {"silu", "sigmoid"}),
    "global table": (FromTable, {"tanh"}),
    "function of the file": (Helper, {"exp"}),
    "function of another file": (OtherFile, {"tanh"}),
    "recursive function": (Recursive, {"exp"}),
    "cached function": (Cached, {"exp"}),
    "decorated, silently": (Bare, {"exp"}),
    "decorated": (Wrapped, {"exp"}),
    "nested functions": (Nested, {"exp"}),
    "inherited": (Inherits, {"cos", "exp", "sqrt"}),
    "super()": (CallsBase, {"cos", "exp", "sqrt"}),
    "base class by name": (NamesBase, {"cos", "exp", "sqrt"}),
    "overridden method": (Overrides, {"sin", "exp", "sqrt"}),
    "signs": (Signs, {"division", "power"}),
    "local alias": (Aliased, {"tanh"}),
    "local import": (Local, {"gelu"}),
}


@pytest.mark.parametrize("name", FOUND)
def test_a_function_is_found(name: str) -> None:
    make, expected = FOUND[name]
    assert called_names(make()) & NAMES.keys() == expected


@pytest.mark.parametrize("name", FOUND)
def test_what_is_found_is_replaced(name: str) -> None:
    model, x = FOUND[name][0](), torch.rand(3, 4) + 0.5
    exact = model(x.clone())
    if name == "cached property":
        del vars(model)["scale"]
    cached.cache_clear()
    convert(model)
    with audit(model) as found:
        converted = model(x.clone())
    assert found.counts == {}
    assert 0 < relative_error(converted, exact) < 1e-3


class Child(nn.Module):
    """Call children and read attributes whose names are those of functions."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.softmax = nn.Linear(4, 4), nn.Identity()
        self.exp, self.var = 3, nn.Parameter(torch.ones(4))
        self.register_buffer("std", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.softmax(self.norm(x)) * self.exp + self.var * self.std


class ChildAndFunction(Child):
    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(super().forward(x), -1)


class Plain(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        scale = self.extra_repr()  # nn.Module's own methods are not followed
        return x.float().relu().view(-1).to(x.dtype) * len(scale)


def test_names_of_children_and_attributes_do_not_count() -> None:
    assert called_names(Child()) & NAMES.keys() == set()
    assert called_names(Plain()) & NAMES.keys() == set()


def test_a_function_counts_beside_a_child_of_its_name() -> None:
    assert called_names(ChildAndFunction()) & NAMES.keys() == {"softmax"}


def test_an_instance_may_hold_another_forward() -> None:
    module = nn.Identity()
    module.forward = lambda x: torch.tanh(x)
    assert "tanh" in called_names(module)


def test_what_made_a_buffer_does_not_count() -> None:
    """A rotary embedding keeps the function that computed its frequencies."""
    rotary = tiny_model().model.rotary_emb
    assert called_names(rotary) & NAMES.keys() == {"cos", "sin"}


def test_torchs_own_layers_call_nothing_unknown() -> None:
    for layer in (nn.Linear(2, 2), nn.Conv2d(2, 2, 2), nn.Embedding(2, 2), nn.Dropout(), nn.MaxPool1d(2), nn.ReLU()):
        assert called_names(layer) & NAMES.keys() == set()
