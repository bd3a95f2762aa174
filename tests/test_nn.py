"""The modules give what the functions give, and keep the parameters they are given."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spikeplug import functional
from spikeplug import nn as spiking
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.operators import RECORDS

X = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0))
WEIGHT, BIAS = nn.Parameter(torch.linspace(0.5, 2, 8)), nn.Parameter(torch.linspace(-1, 1, 8))
NUMERICS = Numerics(bits=12)

MODULES: dict[str, tuple[Callable[..., nn.Module], Callable[..., Tensor]]] = {
    "Softmax": (lambda **how: spiking.Softmax(1, **how), lambda x, **how: functional.softmax(x, 1, **how)),
    "LogSoftmax": (lambda **how: spiking.LogSoftmax(0, **how), lambda x, **how: functional.log_softmax(x, 0, **how)),
    "GELU": (lambda **how: spiking.GELU("tanh", **how), lambda x, **how: functional.gelu(x, "tanh", **how)),
    "Softplus": (
        lambda **how: spiking.Softplus(2.0, 9.0, **how),
        lambda x, **how: functional.softplus(x, 2.0, 9.0, **how),
    ),
    "RMSNorm": (
        lambda **how: spiking.RMSNorm(WEIGHT, 1e-3, **how),
        lambda x, **how: functional.rms_norm(x, WEIGHT, 1e-3, **how),
    ),
    "LayerNorm": (
        lambda **how: spiking.LayerNorm(WEIGHT, BIAS, 1e-3, **how),
        lambda x, **how: functional.layer_norm(x, WEIGHT, BIAS, 1e-3, **how),
    ),
}
# Modules without settings need no entry: their records name them.
MODULES |= {
    record.module: (getattr(spiking, record.module), getattr(functional, name))
    for name, record in RECORDS.items()
    if record.module and not record.settings
}


def test_every_module_is_tested() -> None:
    public = {name for name, value in vars(spiking).items() if inspect.isclass(value) and "operator" in vars(value)}
    assert public == MODULES.keys()


@pytest.mark.parametrize("numerics", [None, NUMERICS, "paper"], ids=["default", "bits", "paper"])
@pytest.mark.parametrize("name", MODULES)
def test_a_module_gives_what_its_function_gives(name: str, numerics: Numerics | str | None) -> None:
    make, function = MODULES[name]
    module, expected = make(numerics=numerics), function(X, numerics=numerics)
    assert torch.equal(module(X), expected)
    assert torch.equal(copy.deepcopy(module)(X), expected)
    assert torch.equal(pickle.loads(pickle.dumps(module))(X), expected)
    assert f"bits={module.numerics.bits}" in repr(module)


@pytest.mark.parametrize("name", MODULES)
def test_gradients_reach_input_and_parameters(name: str) -> None:
    module, x = copy.deepcopy(MODULES[name][0]()), X.clone().requires_grad_()
    (module(x) * torch.linspace(1, 2, 8)).sum().backward()
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_parameters_are_used_as_given() -> None:
    assert list(spiking.RMSNorm(WEIGHT).parameters()) == [WEIGHT]
    norm = spiking.LayerNorm(WEIGHT, BIAS)
    assert dict(norm.named_parameters()).keys() == {"weight", "bias"}
    assert norm.weight is WEIGHT
    assert norm.bias is BIAS
    assert list(spiking.LayerNorm().parameters()) == []
    assert torch.equal(spiking.LayerNorm()(X), functional.layer_norm(X))
    assert torch.equal(spiking.LayerNorm(bias=BIAS)(X), functional.layer_norm(X, None, BIAS))
    assert repr(norm) == "LayerNorm(8, eps=1e-05, bits=16)"


@pytest.mark.parametrize(
    "make", [lambda: spiking.RMSNorm(8), lambda: spiking.RMSNorm(None), lambda: spiking.LayerNorm(8)]
)
def test_a_size_is_no_weight(make: Callable[[], Any]) -> None:
    with pytest.raises(SpikeplugError, match="takes the weight itself"):
        make()


@pytest.mark.parametrize("name", MODULES)
def test_bad_input(name: str) -> None:
    with pytest.raises(SpikeplugError):
        MODULES[name][0]()(torch.arange(8))
    with pytest.raises(SpikeplugError, match="unknown preset 'nothing-here'"):
        MODULES[name][0](numerics="nothing-here")
    with pytest.raises(SpikeplugError, match="numerics is a dict: give Numerics"):
        MODULES[name][0](numerics={})


def test_settings_by_name_or_place() -> None:
    assert repr(spiking.GELU(approximate="tanh")) == repr(spiking.GELU("tanh"))
    assert torch.equal(spiking.Softplus(threshold=3.0, beta=2.0)(X), functional.softplus(X, 2.0, 3.0))
    for make in (lambda: spiking.GELU("tanh", 3), lambda: spiking.SiLU(inplace=True), lambda: spiking.Softmax(axis=1)):
        with pytest.raises(SpikeplugError) as caught:
            make()
        assert "\n" not in str(caught.value)
