"""The public functions: their defaults, weights and settings, and that they work under torch.compile and export."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spikeplug import Numerics, functional
from spikeplug.errors import SpikeplugError
from spikeplug.neurons import Events
from spikeplug.operators import RECORDS
from spikeplug.presets import PRESETS

X = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0))
WEIGHT, BIAS = torch.linspace(0.5, 2, 8), torch.linspace(-1, 1, 8)


class Calls(nn.Module):
    """One function on ordinary input."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor, **how: Any) -> Tensor:
        function = getattr(functional, self.name)
        if self.name == "attention":
            return function(x[None], x[None], x[None], **how)
        if self.name == "attention_weights":
            return function(x[None], x[None], **how)
        if self.name == "divide":
            return function(x, x.abs() + 1, **how)
        return function(x.abs() + 0.5 if self.name in ("log", "sqrt", "rsqrt", "reciprocal") else x, **how)


def call(name: str, **how: Any) -> Tensor:
    return Calls(name)(X, **how)


@pytest.mark.parametrize("name", RECORDS)
def test_numerics_and_events_are_keywords_of_all(name: str) -> None:
    parameters = inspect.signature(getattr(functional, name)).parameters
    assert parameters["events"].kind is inspect.Parameter.KEYWORD_ONLY
    assert parameters["numerics"].kind is inspect.Parameter.KEYWORD_ONLY
    events = Events()
    assert torch.equal(call(name, events=events), call(name))
    assert events.spikes > 0
    assert torch.equal(call(name, numerics=Numerics()), call(name))
    assert not torch.equal(call(name, numerics=Numerics(bits=6)), call(name))
    assert torch.equal(call(name, numerics="narrow"), call(name, numerics=PRESETS["narrow"].numerics))
    assert getattr(functional, name).__doc__


@pytest.mark.parametrize("name", RECORDS)
def test_bad_input_is_one_sentence(name: str) -> None:
    for bad in (X.long(), X.bool(), torch.complex(X, X), [1.0], None, 1.0):
        others = (
            () if name not in ("attention", "attention_weights", "divide") else (X,) * (2 if name == "attention" else 1)
        )
        with pytest.raises(SpikeplugError) as caught:
            getattr(functional, name)(bad, *others)
        assert "\n" not in str(caught.value)
    with pytest.raises(SpikeplugError, match="unknown preset 'nothing-here'"):
        call(name, numerics="nothing-here")
    with pytest.raises(SpikeplugError, match="numerics is a int: give Numerics"):
        call(name, numerics=8)


def test_norms_multiply_and_add_their_parameters() -> None:
    plain = functional.layer_norm(X)
    assert torch.equal(functional.layer_norm(X, WEIGHT, BIAS), plain * WEIGHT + BIAS)
    assert torch.equal(functional.layer_norm(X, None, BIAS), plain + BIAS)
    assert torch.equal(functional.rms_norm(X, WEIGHT), functional.rms_norm(X) * WEIGHT)
    assert functional.rms_norm(X.bfloat16(), WEIGHT).dtype == torch.float32
    assert functional.layer_norm(X.half(), WEIGHT.half(), BIAS).dtype == torch.float32
    for wrong in (WEIGHT[:4], WEIGHT[None], torch.ones(())):
        with pytest.raises(SpikeplugError, match=r"rms_norm got a weight of shape .* give one of \(8,\)"):
            functional.rms_norm(X, wrong)
        with pytest.raises(SpikeplugError, match="layer_norm got a bias of shape"):
            functional.layer_norm(X, None, wrong)


def test_settings_are_passed_on() -> None:
    assert torch.equal(functional.softmax(X, 1), functional.softmax(X.transpose(1, 2)).transpose(1, 2))
    assert torch.equal(functional.log_softmax(X, 0), functional.log_softmax(X.transpose(0, 2)).transpose(0, 2))
    assert not torch.equal(functional.gelu(X, "tanh"), functional.gelu(X, "quick"))
    assert torch.allclose(functional.softplus(X, 3.0), nn.functional.softplus(X, 3.0), rtol=1e-3, atol=1e-4)
    assert torch.equal(functional.softplus(X.abs() + 1, 1.0, 0.5), functional.softplus(X.abs() + 1, 1.0, 0.7))
    assert functional.vector_norm(X, 1).shape == (3, 8)
    assert functional.vector_norm(X, 1, True).shape == (3, 1, 8)
    assert functional.divide(X, torch.tensor([2.0])).shape == X.shape


@pytest.mark.parametrize("name", RECORDS)
def test_every_function_compiles_and_exports_as_one_op(name: str) -> None:
    exported = torch.export.export(Calls(name), (X,))
    called = [str(node.target) for node in exported.graph.nodes if "spikeplug" in str(node.target)]
    assert called == [f"spikeplug.{name}.default"]
    assert torch.equal(exported.module()(X), call(name))
