"""Test that the audit sees every float nonlinearity, by every way of computing it, and nothing else."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import pytest
import torch
from rich.console import Console
from tiny_models import logits, tiny_model, tokens
from torch import Tensor, nn

from spikeplug import nn as spiking
from spikeplug.conversion import audit, convert
from spikeplug.conversion.auditing import NONLINEAR
from spikeplug.errors import SpikeplugError
from spikeplug.library import OPERATORS
from spikeplug.numerics import Numerics
from spikeplug.presets import PRESETS

NONLINEAR_CALLS: dict[str, tuple[Callable[[Tensor], object], set[str]]] = {
    "exp": (torch.exp, {"exp"}),
    "exp in place": (lambda x: x.clone().exp_(), {"exp"}),
    "exp of integers": (lambda x: x.long().exp(), {"exp"}),
    "exp of a list": (lambda x: torch._foreach_exp([x]), {"exp"}),
    "2^x": (lambda x: 2**x, {"pow"}),
    "e^n": (lambda x: 2.718 ** x.long(), {"pow"}),
    "ldexp with a float exponent": (lambda x: torch.ldexp(x, x), {"ldexp"}),
    "square": (torch.square, {"pow"}),
    "quotient": (lambda x: x / x, {"div"}),
    "quotient of integers": (lambda x: x.long() / x.long(), {"div"}),
    "quotient by a 0-d tensor": (lambda x: x / x[0, 0], {"div"}),
    "inverse": (lambda x: 1 / x, {"reciprocal"}),
    "softmax": (lambda x: x.softmax(-1), {"_softmax"}),
    "cross entropy": (lambda x: nn.functional.cross_entropy(x, torch.tensor([0, 1])), {"_log_softmax"}),
    "layer norm": (lambda x: nn.functional.layer_norm(x, (4,)), {"native_layer_norm"}),
    "cosine similarity": (
        lambda x: nn.functional.cosine_similarity(x, x),
        {"linalg_vector_norm", "div"},
    ),
    "gelu": (nn.functional.gelu, {"gelu"}),
    "error function": (torch.special.erfcx, {"special_erfcx"}),
}
OTHER_CALLS: dict[str, Callable[[Tensor], object]] = {
    "matrix product": lambda x: x @ x.T,
    "linear": lambda x: nn.functional.linear(x, x),
    "affine": lambda x: 2 * (x + 1) / 3 - x,
    "quotient into a tensor": lambda x: torch.div(x, 2, out=torch.empty_like(x)),
    "elementwise product": lambda x: x * x,
    "relu": lambda x: torch.relu(x) + nn.functional.hardtanh(x) + nn.functional.leaky_relu(x),
    "mean": lambda x: x.mean(-1) + x.mean(),
    "thresholds": lambda x: torch.where(x.abs() > 1, x.clamp(-1, 1), x.round()).amax(-1),
    "casts and moves": lambda x: x.to(torch.bfloat16).double().T.contiguous().view(-1).long(),
    "exponents": lambda x: torch.ldexp(torch.frexp(x)[0], torch.frexp(x)[1]) * torch.pow(2.0, x.int()),
    "integers": lambda x: x.long() // 3 % 5 << 2 >> 1,
    "integer quotient by a tensor": lambda x: torch.div(x.long(), x.long() + 100, rounding_mode="floor"),
    "sum": lambda x: x.sum() + x.cumsum(-1)[-1, -1],
}


class Calls(nn.Module):
    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(x)


@pytest.fixture(params=["grad", "no_grad", "inference_mode"])
def mode(request: pytest.FixtureRequest) -> torch.autograd.grad_mode.set_grad_enabled | torch.inference_mode:
    """Vary what decides whether composite operations are dispatched whole or in parts; the audit must not change."""
    return (
        torch.inference_mode() if request.param == "inference_mode" else torch.set_grad_enabled(request.param == "grad")
    )


@pytest.mark.parametrize("name", NONLINEAR_CALLS)
def test_nonlinearities_are_seen(name: str, mode: torch.inference_mode) -> None:
    function, ops = NONLINEAR_CALLS[name]
    model = Calls(function)
    x = torch.arange(1.0, 9.0).view(2, 4)
    with mode, audit(model) as found:
        model(x)
    assert set(found.counts) == ops


@pytest.mark.parametrize("name", OTHER_CALLS)
def test_nothing_else_is(name: str, mode: torch.inference_mode) -> None:
    model = Calls(OTHER_CALLS[name])
    x = torch.arange(1.0, 9.0).view(2, 4)
    with mode, audit(model) as found:
        model(x)
    assert found.counts == {}


@pytest.mark.parametrize("query_keys", [(4, 4), (1, 4)])
def test_every_form_of_fused_attention_is_seen(query_keys: tuple[int, int], mode: torch.inference_mode) -> None:
    queries, keys = (torch.randn(1, 2, length, 8, dtype=torch.float32) for length in query_keys)
    with mode, audit(nn.Identity()) as found:
        nn.functional.scaled_dot_product_attention(queries, keys, keys)
    assert len(found.counts) == 1
    assert "softmax" in str(found) or "attention" in str(found)


def test_the_set_names_only_operations_that_exist_and_are_not_composite() -> None:
    def has_leaf(name: str) -> bool:
        packet = getattr(torch.ops.aten, name)
        composite = torch._C.DispatchKey.CompositeImplicitAutograd
        names = (f"aten::{name}.{o}" if o != "default" else f"aten::{name}" for o in packet.overloads())
        registered = set(torch._C._dispatch_get_all_op_names())
        return any(n in registered and not torch._C._dispatch_has_kernel_for_dispatch_key(n, composite) for n in names)

    assert [name for name in sorted(NONLINEAR) if not has_leaf(name)] == []


def test_a_spiking_operator_cannot_hide_a_float_exponential(monkeypatch: pytest.MonkeyPatch) -> None:
    """The audit looks inside our own ops too, although they are opaque to other modes."""
    model = tiny_model()
    convert(model)
    cheating = dataclasses.replace(OPERATORS["silu"], spiking=lambda x, **_: x * torch.exp(-x))
    monkeypatch.setitem(OPERATORS, "silu", cheating)
    with audit(model) as found:
        logits(model, tokens())
    assert found.counts == {"exp": 2}
    assert [entry.path for entry in found.entries if entry.op == "exp"] == [
        f"model.layers.{i}.mlp.act_fn" for i in (0, 1)
    ]


def test_an_operation_of_another_library_counts_by_its_full_name() -> None:
    library = torch.library.Library("stranger", "DEF")
    library.define("activate(Tensor x) -> Tensor")
    library.impl("activate", lambda x: x.exp(), "CompositeExplicitAutograd")
    with audit(nn.Identity()) as found:
        torch.ops.stranger.activate(torch.ones(2))
        torch.ops.stranger.activate(torch.ones(2, dtype=torch.int64))  # gives floats from integers
    library._destroy()
    assert found.counts["stranger::activate"] == 2


@pytest.mark.parametrize("numerics", [Numerics(), PRESETS["paper"].numerics])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_our_operators_execute_none(numerics: Numerics, dtype: torch.dtype) -> None:
    weight = nn.Parameter(torch.ones(8, dtype=dtype))
    modules = nn.Sequential(
        spiking.RMSNorm(weight, 1e-6, numerics),
        spiking.LayerNorm(weight, weight, 1e-6, numerics),
        *(
            make(numerics=numerics)
            for make in (spiking.SiLU, spiking.GELU, spiking.Sigmoid, spiking.Tanh, spiking.Softplus)
        ),
        *(make(numerics=numerics) for make in (spiking.Mish, spiking.ReLUSquared, spiking.Softmax, spiking.LogSoftmax)),
    )
    with audit(modules) as found:
        modules(torch.randn(3, 8).to(dtype))
    assert found.counts == {}


def test_paths_counts_and_tables_of_an_exact_model(family: str) -> None:
    model = tiny_model(family, "eager", num_hidden_layers=3)
    with audit(model) as found:
        logits(model, tokens())
    norms = 13 if family == "qwen3" else 7
    assert found.counts == {"cos": 1, "sin": 1, "pow": norms, "rsqrt": norms, "_softmax": 3, "silu": 3}
    places = {(entry.path, entry.op): entry.count for entry in found.entries}
    assert places["model.layers.2.self_attn", "_softmax"] == 1
    assert places["model.norm", "rsqrt"] == 1
    assert {path for path, _ in places} <= {path for path, _ in model.named_modules()}
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
    assert found.table().row_count == 6
    console = Console(width=120)
    with console.capture() as captured:
        console.print(found.table())
    assert "model.layers.*.self_attn (3)" in captured.get()


def test_what_runs_outside_of_any_module_has_an_empty_path() -> None:
    with audit(nn.Identity()) as found:
        torch.ones(2).exp()
        assert found.counts == {"exp": 1}
    torch.ones(2).exp()
    assert [(entry.path, entry.op, entry.count) for entry in found.entries] == [("", "exp", 1)]
    assert str(found) == "1 exp"


def test_an_error_inside_ends_the_audit() -> None:
    model = tiny_model()
    with pytest.raises(IndexError), audit(model) as found:
        logits(model, tokens() + 1000)
    count = dict(found.counts)
    logits(model, tokens())
    assert found.counts == count


def test_refuses_what_is_no_module() -> None:
    with pytest.raises(SpikeplugError, match="give it the model"), audit("model"):  # type: ignore[arg-type]
        pass
