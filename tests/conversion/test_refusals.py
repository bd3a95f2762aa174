"""Test what convert refuses: one sentence with a remedy, and the model stays as it was."""

from __future__ import annotations

import copy
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from tiny_models import logits, relative_error, tiny_model, tokens
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from spikeplug import functional
from spikeplug.conversion import audit, convert, explain, revert, reverted
from spikeplug.errors import SpikeplugError

REQUESTS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown operator": ({"operators": ("relu",)}, "unknown operator 'relu': choose from attention, cos, divide"),
    "operator not hashable": ({"operators": ([],)}, "unknown operator"),
    "a string of operators": ({"operators": "softmax"}, "give a tuple"),
    "no operator": ({"operators": ()}, "give a tuple"),
    "an operator it does not have": ({"operators": ("mish",)}, "no mish to replace: leave 'mish' out"),
    "exclude that does not compile": ({"exclude": "("}, "is not a regular expression"),
    "exclude that is no string": ({"exclude": 3}, "give one regular expression"),
    "exclude that finds nothing": ({"exclude": "layer7"}, "finds none of the paths"),
    "exclude that finds only what is left anyway": ({"exclude": "lm_head"}, "finds none of the paths"),
    "exclude outside of the operators chosen": (
        {"operators": ("silu",), "exclude": "norm"},
        r"finds none of the paths to replace: correct it, the paths look like 'model\.layers\.0\.mlp\.act_fn'",
    ),
    "exclude that leaves nothing": ({"exclude": ""}, "leaves nothing to replace"),
    "unknown preset": ({"numerics": "papers"}, "unknown preset 'papers': choose one of 'default', 'narrow', 'paper'"),
    "numerics that are none": ({"numerics": 8}, "numerics is a int: give Numerics"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_bad_requests(name: str) -> None:
    arguments, message = REQUESTS[name]
    model = tiny_model()
    before = [(path, dict(vars(module))) for path, module in model.named_modules()]
    with pytest.raises(SpikeplugError, match=message) as caught:
        convert(model, **arguments)
    assert "\n" not in str(caught.value)
    assert [(path, dict(vars(module))) for path, module in model.named_modules()] == before
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("thing", [None, "HuggingFaceTB/SmolLM2-135M", torch.ones(2), SimpleNamespace(numerics=None)])
def test_things_that_are_no_module(thing: Any) -> None:
    with pytest.raises(SpikeplugError, match=f"not a {type(thing).__name__}: give it the model"):
        convert(thing)


def test_any_model_type_will_do() -> None:
    """GPT-2 has Conv1D, LayerNorm, NewGELU and learnt positions."""
    model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=97)).eval()
    exact = logits(model, tokens())
    assert convert(model, strict=True).leftovers == ()
    assert 0 < relative_error(logits(model, tokens()), exact) < 2e-3


class Calls(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x)


def traced() -> nn.Module:
    return torch.fx.symbolic_trace(Calls())


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.Sequential(nn.Tanh()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (traced, "is a traced graph: convert the model first"),
        (scripted, "is a TorchScript module, whose code is fixed"),
        (lambda: torch.compile(nn.Sequential(nn.Tanh())), "is compiled: convert the model first"),
        (lambda: nn.DataParallel(nn.Sequential(nn.Tanh())), "use DistributedDataParallel"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile imports TorchScript
def test_modules_that_are_not_their_own_code(make: Any, message: str) -> None:
    for model in (make(), nn.Sequential(nn.GELU(), make())):
        with pytest.raises(SpikeplugError, match=message):
            convert(model)


def test_a_traced_graph_of_modules_is_converted() -> None:
    """Its own code calls no function: what computes something is in its modules, whose plugs its copies keep."""
    x, model = torch.randn(3, 4), torch.fx.symbolic_trace(nn.Sequential(nn.Tanh()))
    convert(model)
    spiking = model(x)
    assert not torch.equal(spiking, x.tanh())
    twin = copy.deepcopy(model)
    assert torch.equal(twin(x), spiking)
    for each in (model, twin):
        revert(each)
        assert torch.equal(each(x), x.tanh())


def test_converting_twice() -> None:
    model = tiny_model()
    convert(model)
    before = logits(model, tokens())
    with pytest.raises(SpikeplugError, match=r"the model is converted already: call spikeplug\.revert"):
        convert(model)
    with pytest.raises(SpikeplugError, match="is spiking already"):
        convert(model.model)
    assert torch.equal(logits(model, tokens()), before)
    revert(model)
    convert(model.model)
    with pytest.raises(SpikeplugError, match="its part 'model' is converted already"):
        convert(model)


def test_what_is_left_under_strict() -> None:
    model = tiny_model()
    model.lm_head = nn.Sequential(model.lm_head, nn.Module())
    model.lm_head[1].forward = lambda x: torch.lgamma(x)
    before = [dict(vars(module)) for module in model.modules()]
    with pytest.raises(
        SpikeplugError, match=r"strict: 1 places would stay .* 'lm_head\.1' \(no spiking operator for lgam"
    ):
        convert(model, strict=True)
    assert [dict(vars(module)) for module in model.modules()] == before
    assert convert(model).leftovers[0].path == "lm_head.1"


def test_accelerate_hooks_are_taken_in() -> None:
    """Weights that are offloaded until a module runs are there when its plug runs."""
    model = tiny_model()
    exact = logits(model, tokens())
    model = cpu_offload(model)
    assert model.model.norm.weight.is_meta
    convert(model)
    with audit(model) as found:
        converted = logits(model, tokens())
    assert found.counts == {}
    assert 0 < relative_error(converted, exact) < 2e-3
    revert(model)
    assert torch.equal(logits(model, tokens()), exact)
    assert model.model.norm.weight.is_meta


DENSE, QUERY = torch.rand(4, 4), torch.rand(1, 2, 3, 4)
ODD: dict[str, Any] = {
    "sparse": lambda: functional.softmax(DENSE.to_sparse()),
    "sparse rows": lambda: functional.silu(DENSE.to_sparse_csr()),
    "nested": lambda: functional.silu(torch.nested.nested_tensor([DENSE, DENSE[:2]])),
    "jagged": lambda: functional.softmax(torch.nested.nested_tensor([DENSE, DENSE[:2]], layout=torch.jagged), 1),
    "scaling": lambda: functional.attention(QUERY, QUERY, QUERY, scaling="a"),  # type: ignore[arg-type]
    "events": lambda: functional.silu(DENSE, events=3),  # type: ignore[arg-type]
    "weight": lambda: functional.rms_norm(DENSE, [1.0]),  # type: ignore[arg-type]
    "up": lambda: functional.swiglu(DENSE, 3),  # type: ignore[arg-type]
    "up of another shape": lambda: functional.swiglu(DENSE, DENSE[:, :3]),
    "nested weight": lambda: functional.rms_norm(DENSE, torch.nested.nested_tensor([DENSE])),
    "nested bias": lambda: functional.layer_norm(DENSE, None, torch.nested.nested_tensor([DENSE])),
    "inputs": lambda: explain(_spiking(), {1: DENSE}),  # type: ignore[dict-item]
    "reverted": lambda: reverted(3),  # type: ignore[arg-type]
    "sparse in a model": lambda: _spiking()(DENSE.to_sparse()),
}


def _spiking() -> nn.Module:
    model = nn.Sequential(nn.SiLU())
    convert(model)
    return model


@pytest.mark.parametrize("name", ODD)
@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:The PyTorch API of nested")
def test_odd_inputs_are_one_sentence(name: str) -> None:
    with pytest.raises(SpikeplugError) as caught:
        ODD[name]()
    assert "\n" not in str(caught.value)
