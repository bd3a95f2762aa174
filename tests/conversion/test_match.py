"""Test that every place where a model computes is found, by what its modules do and what their code calls."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from tiny_models import relative_error, tiny_model
from torch import Tensor, nn
from transformers import activations

from spikeplug.conversion import audit, convert
from spikeplug.conversion.match import find


def names(model: nn.Module) -> Counter[str]:
    return Counter(found.name for found in find(model))


def test_every_place_of_a_qwen3_is_found() -> None:
    assert names(tiny_model("qwen3")) == {
        "attention": 2,
        "silu": 2,
        "rms_norm": 9,
        "matmul": 2 * 8 + 1,
        "product": 2,
        "cos": 1,
        "sin": 1,
    }


def test_a_strange_norm_runs_its_own_code_on_the_operators() -> None:
    class Strange(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.ones(32)), 1e-6

        def forward(self, x: Tensor) -> Tensor:
            return x / (x.pow(2).mean(-1, keepdim=True).sqrt() + self.eps) * self.weight  # eps outside of the root

    model, x = Strange(), torch.randn(3, 32)
    exact = model(x)
    assert {found.name for found in find(model)} == {"pow", "sqrt", "division"}
    convert(model)
    with audit(model) as found:
        converted = model(x)
    assert found.counts == {}
    assert 0 < relative_error(converted, exact) < 1e-3


def test_what_no_operator_replaces_is_named() -> None:
    class Hard(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.lgamma(x) + torch.atan2(x, x) + torch.tanh(x)

    report = convert(nn.Sequential(Hard(), nn.LSTM(2, 2)))
    assert {(entry.path, entry.operator) for entry in report.leftovers} == {
        ("0", "lgamma"),
        ("0", "atan2"),
        ("1", "lstm"),
    }
    assert all(entry.reason == f"no spiking operator for {entry.operator}" for entry in report.leftovers)


ACTIVATIONS = {
    "silu": {"silu", "swish"},
    "gelu": {"gelu", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_python_tanh", "gelu_pytorch_tanh"}
    | {"gelu_10", "quick_gelu"},
    "relu_squared": {"relu2"},
    "sigmoid": {"sigmoid"},
    "tanh": {"tanh"},
    "mish": {"mish"},
}


@pytest.mark.parametrize(
    ("operator", "name"), [(o, name) for o, members in ACTIVATIONS.items() for name in sorted(members)]
)
def test_activations_of_transformers(operator: str, name: str) -> None:
    model, x = nn.Sequential(activations.ACT2FN[name]), torch.linspace(-12, 12, 97)
    exact = model(x)
    report = convert(model)
    assert {entry.operator for entry in report.replaced} == {operator}
    with audit(model) as found:
        converted = model(x)
    assert found.counts == {}
    assert relative_error(converted, exact) < 1e-3


@pytest.mark.parametrize("name", sorted(activations.ACT2CLS))
def test_every_activation_of_transformers_is_replaced_or_named(name: str) -> None:
    """Every nonlinearity that runs in floats is in the report as left."""
    model, x = nn.Sequential(activations.ACT2FN[name], nn.Tanh()), torch.linspace(-3, 3, 25).view(1, 25)
    report = convert(model)
    with audit(model) as found:
        model(x)
    assert bool(found.counts) == bool(report.leftovers), (found.counts, report.leftovers)


def test_an_in_place_activation_stays_in_place() -> None:
    for activation in (nn.SiLU(inplace=True), nn.Mish(inplace=True)):
        model, x = nn.Sequential(activation), torch.randn(5)
        exact = activation(x.clone())
        convert(model)
        answer = model(x)
        assert answer is x
        assert relative_error(x, exact) < 1e-3


def test_arguments_may_be_given_by_name() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act, self.norm = nn.SiLU(), nn.LayerNorm(8)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(input=self.act(input=x))

    model, x = Named(), torch.randn(2, 8)
    exact = model(x)
    convert(model)
    assert 0 < relative_error(model(x), exact) < 1e-3


def test_a_module_whose_forward_was_exchanged_is_taken_for_what_it_runs() -> None:
    model, x = nn.Sequential(nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 8)), torch.randn(2, 8)
    model[0].forward = lambda x: x * torch.sigmoid(x)
    model[1].forward = lambda x: x.tanh()
    model[2].forward = lambda x: nn.functional.softplus(x)
    exact = model(x)
    report = convert(model)
    assert {("0", "sigmoid"), ("1", "tanh"), ("2", "softplus")} <= {(e.path, e.operator) for e in report.replaced}
    assert 0 < relative_error(model(x), exact) < 1e-3


def test_a_linear_layer_that_computes_more_is_looked_into() -> None:
    class Cosine(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(
                nn.functional.normalize(x, dim=-1), nn.functional.normalize(self.weight, dim=-1)
            )

    model, x = nn.Sequential(Cosine(6, 6)), torch.randn(2, 6)
    exact = model(x)
    convert(model)
    with audit(model) as found:
        converted = model(x)
    assert found.counts == {}
    assert 0 < relative_error(converted, exact) < 1e-3
