"""The registry is complete: every operator is public, and one with its torch op, its module and its exact function."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

from spikeplug import functional
from spikeplug import nn as spiking
from spikeplug.library import OPERATORS
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.operators import LINEAR, RECORDS
from spikeplug.presets import PRESETS


def x(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def positive(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return x(*shape, seed=seed, dtype=dtype).abs() + 0.25


def attention_inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    return x(2, 4, 3, 8, dtype=dtype), x(2, 2, 5, 8, seed=1, dtype=dtype), x(2, 2, 5, 6, seed=2, dtype=dtype)


MASK = torch.ones(3, 5, dtype=torch.bool).tril(2)


def arguments(name: str, dtype: torch.dtype = torch.float64) -> list[tuple[Any, ...]]:
    """Some arguments of the operator, in the order of its schema."""
    query, key, value = attention_inputs(dtype)
    bias, sinks = x(2, 4, 3, 5, seed=3, dtype=dtype), x(4, seed=4, dtype=dtype)
    given: dict[str, list[tuple[Any, ...]]] = {
        "softmax": [(x(3, 7, dtype=dtype) * 4, -1), (x(3, 7, 2, dtype=dtype), 1)],
        "log_softmax": [(x(3, 7, dtype=dtype) * 4, -1), (x(3, 7, 2, dtype=dtype), 0)],
        "attention": [
            (query, key, value, None, None, None, None),
            (query, key, value, MASK, 0.2, None, None),
            (query, key, value, bias, None, 3.0, sinks),
        ],
        "attention_weights": [(query, key, MASK, None, None, None), (query, key, bias, 0.2, 3.0, sinks)],
        "gelu": [(x(3, 9, dtype=dtype) * 3, approximate) for approximate in ("none", "tanh", "quick")],
        "softplus": [(x(3, 9, dtype=dtype) * 3, 1.0, 20.0), (x(3, 9, dtype=dtype) * 3, 2.5, 4.0)],
        "rms_norm": [(x(3, 9, dtype=dtype), 1e-6), (x(2, 3, 9, dtype=dtype) * 1e-3, 1e-2)],
        "layer_norm": [(x(3, 9, dtype=dtype), 1e-5), (x(2, 3, 9, dtype=dtype) + 5, 1e-2)],
        "vector_norm": [(x(3, 9, dtype=dtype), -1, False), (x(2, 3, 9, dtype=dtype), 1, True)],
        "divide": [
            (x(3, 9, dtype=dtype), positive(3, 9, dtype=dtype)),
            (x(3, 1, dtype=dtype), -positive(9, dtype=dtype)),
        ],
        "log": [(positive(3, 9, dtype=dtype) * 10,)],
        "sqrt": [(positive(3, 9, dtype=dtype) * 10,)],
        "rsqrt": [(positive(3, 9, dtype=dtype) * 10,)],
        "reciprocal": [(-positive(3, 9, dtype=dtype) * 10,)],
    }
    return given.get(name, [(x(3, 9, dtype=dtype) * 3,), (x(2, 3, 9, dtype=dtype),)])


def test_every_operator_is_registered_and_public() -> None:
    assert RECORDS.keys() | LINEAR.keys() == OPERATORS.keys()
    functions = {
        name
        for name, value in vars(functional).items()
        if inspect.isfunction(value) and value.__module__ == functional.__name__ and not name.startswith("_")
    }
    assert functions - {"swiglu"} == RECORDS.keys()  # silu, and a product; linear operators run in whole models only
    assert all(operator.name == name for name, operator in OPERATORS.items())


def test_modules_cover_what_takes_one_tensor() -> None:
    """Elementwise arithmetic needs no module, attention is a function of three tensors."""
    modules = {name.lower() for name in vars(spiking) if not name.startswith("_")}
    arithmetic = {"cos", "sin", "exp", "log", "sqrt", "rsqrt", "square", "reciprocal", "divide", "vector_norm"}
    for name in RECORDS.keys() - arithmetic - {"attention", "attention_weights"}:
        assert name.replace("_", "") in modules, name


@pytest.mark.parametrize("name", RECORDS)
def test_exact_is_what_the_operator_approximates(name: str) -> None:
    for given in arguments(name):
        ours, exact = OPERATORS[name](*given), OPERATORS[name].exact(*given)
        assert ours.shape == exact.shape
        assert ours.dtype == exact.dtype == torch.float64
        assert float((ours - exact).abs().max() / exact.abs().max()) < 1e-3
        assert not torch.equal(ours, exact)


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("numerics", [Numerics(), PRESETS["paper"].numerics], ids=["default", "paper"])
def test_the_torch_op_is_the_operator(name: str, numerics: Numerics) -> None:
    for given in arguments(name, torch.float32):
        by_op = getattr(torch.ops.spikeplug, name)(*given, numerics.token)
        assert torch.equal(by_op, OPERATORS[name].spiking(*given, numerics=numerics))
        assert torch.equal(by_op, OPERATORS[name](*given, numerics=numerics))


@pytest.mark.parametrize("name", RECORDS)
def test_its_simulation_is_the_operator_too(name: str) -> None:
    given, events = arguments(name, torch.float32)[0], Events()
    assert torch.equal(OPERATORS[name](*given, events=events), OPERATORS[name](*given))
    assert events.spikes > 0
