"""Test whose plug a module runs: copies, moved, duplicated, pruned and wrapped layers, other methods, recomputation."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from tiny_models import logits, tiny_model, tokens
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from spikeplug import functional
from spikeplug.conversion import audit, convert, revert
from spikeplug.errors import SpikeplugError


class Gate(nn.Module):
    """A module that calls a nonlinearity in its own code, in forward and in another method."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.1, 2, 8))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x * self.weight)

    def encode(self, x: Tensor) -> Tensor:
        return self.scaled(x).softmax(-1)

    def scaled(self, x: Tensor) -> Tensor:
        return x * self.weight


X = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))


def test_a_shallow_copy_runs_itself() -> None:
    model = Gate()
    convert(model)
    twin = copy.copy(model)
    twin.weight = nn.Parameter(torch.full((8,), 3.0))
    assert torch.equal(twin(X), functional.sigmoid(X * 3.0))
    assert torch.equal(model(X), functional.sigmoid(X * model.weight))
    assert torch.equal(twin.encode(X), functional.softmax(X * 3.0))
    revert(twin)
    assert torch.equal(twin(X), torch.sigmoid(X * 3.0))
    assert torch.equal(model(X), functional.sigmoid(X * model.weight))
    revert(model)
    assert torch.equal(model(X), torch.sigmoid(X * model.weight))


def test_a_shallow_copy_of_a_transformer_with_a_new_head() -> None:
    model = tiny_model()
    exact = logits(model, tokens())
    convert(model)
    spiking = logits(model, tokens())
    twin = copy.copy(model)
    twin._modules = dict(model._modules)
    twin.lm_head = nn.Linear(model.lm_head.in_features, 5, bias=False)
    assert logits(twin, tokens()).shape[-1] == 5
    assert torch.equal(logits(model, tokens()), spiking)
    revert(model)
    assert torch.equal(logits(model, tokens()), exact)


def test_other_methods_run_in_the_scope_and_are_given_back() -> None:
    model = Gate()
    exact = model.encode(X)
    convert(model)
    with audit(model) as found:
        spiking = model.encode(X)
    assert not found.entries
    assert torch.equal(spiking, functional.softmax(X * model.weight))
    revert(model)
    assert torch.equal(model.encode(X), exact)
    assert set(vars(model)) == set(vars(Gate()))


@pytest.mark.parametrize("change", ["pruned", "duplicated", "reordered", "renamed"])
def test_revert_follows_layers_wherever_they_are(change: str) -> None:
    model = tiny_model("llama")
    convert(model)
    layers = list(model.model.layers)
    if change == "pruned":
        model.model.layers = nn.ModuleList(layers[:1])
    elif change == "duplicated":
        model.model.layers = nn.ModuleList([layers[0], copy.deepcopy(layers[0]), layers[1]])
        model.config.num_hidden_layers = 3
    elif change == "reordered":
        model.model.layers = nn.ModuleList(layers[::-1])
    else:
        model.model.blocks, model.model.layers = model.model.layers, nn.ModuleList()
    if change in ("pruned", "renamed"):
        with pytest.warns(UserWarning, match="were moved, removed or wrapped after convert"):
            missing = revert(model)
        assert missing
        assert all(path.startswith("model.layers") for path in missing)
    else:
        assert revert(model) == ()
    assert not any(name.startswith("spikeplug") for module in model.modules() for name in vars(module))
    assert model.config._attn_implementation == "sdpa"
    with audit(model) as found:
        model(tokens())
    assert change == "renamed" or found.counts["silu"] == len(model.model.layers)


def test_layers_taken_out_are_reverted_on_their_own() -> None:
    model = tiny_model()
    convert(model)
    taken = model.model.layers[1]
    model.model.layers = model.model.layers[:1]
    with pytest.warns(UserWarning, match="call revert on what was taken out"):
        revert(model)
    revert(taken)
    assert "forward" not in vars(taken.mlp.act_fn)


@pytest.mark.parametrize("kind", ["closure", "elsewhere"])
def test_a_wrapped_forward_runs_the_original_after_revert(kind: str) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.SiLU())
    exact = model(X)
    convert(model)
    inner = model[1].forward
    held = {"forward": inner}
    wrapper = (lambda x: inner(x) + 1) if kind == "closure" else (lambda x: held["forward"](x) + 1)
    model[1].forward = wrapper  # of a third party
    assert not torch.equal(model(X), exact + 1)
    if kind == "closure":
        assert revert(model) == ()
    else:
        with pytest.warns(UserWarning, match="the first '1'"):
            assert revert(model) == ("1",)
    assert torch.equal(model(X), exact + 1)
    assert model[1].forward is wrapper


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("kind", ["method", "lambda"])
def test_recomputation_in_the_backward_pass_is_spiking(use_reentrant: bool, kind: str) -> None:
    class Attention(nn.Module):
        recompute = True

        def core(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            weights = (q @ k.mT).softmax(-1)
            return nn.functional.scaled_dot_product_attention(q, k, v) + weights @ v

        def forward(self, x: Tensor) -> Tensor:
            core = self.core if kind == "method" else lambda q, k, v: self.core(q, k, v)
            if not self.recompute:
                return core(x, x * 2, x * 3)
            output: Tensor = checkpoint(core, x, x * 2, x * 3, use_reentrant=use_reentrant)
            return output

    model, gradients, outputs = Attention(), [], []
    convert(model)
    for model.recompute in (True, False):
        x = torch.randn(1, 2, 5, 8, generator=torch.Generator().manual_seed(3)).requires_grad_()
        outputs.append(model(x))
        outputs[-1].square().sum().backward()
        gradients.append(x.grad)
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(gradients[0], gradients[1])


def test_symbolic_tracing_and_scripting_are_refused() -> None:
    for model in (Gate(), nn.Sequential(nn.Linear(8, 8), nn.GELU())):
        exact = model(X)
        convert(model)
        spiking = model(X)
        with pytest.raises(SpikeplugError, match=r"use torch\.export\.export, or revert"):
            torch.fx.symbolic_trace(model)
        with pytest.raises(SpikeplugError, match=r"use torch\.jit\.trace or torch\.export, or revert"), _deprecated():
            torch.jit.script(model)
        with _deprecated():
            traced = torch.jit.trace(model, X)
        assert torch.equal(traced(X), spiking)
        assert torch.equal(torch.export.export(model, (X,)).module()(X), spiking)
        revert(model)
        assert torch.equal(torch.fx.symbolic_trace(model)(X), exact)


def _deprecated() -> pytest.WarningsRecorder:
    return pytest.warns(DeprecationWarning, match="jit")


def test_of_threads_that_convert_one_model_one_wins() -> None:
    model = tiny_model("llama", num_hidden_layers=4)
    exact = logits(model, tokens())
    start, results = threading.Barrier(4), []

    def work() -> None:
        start.wait()
        try:
            convert(model)
            results.append("converted")
        except SpikeplugError as error:
            results.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count("converted") == 1
    assert sum("is converted already" in result for result in results) == 3
    assert revert(model) == ()
    assert torch.equal(logits(model, tokens()), exact)
