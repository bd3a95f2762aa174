"""Test that torch.compile and torch.export see one node per operator, and give the bits of the uncompiled model."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny_models import VOCABULARY, tiny_model, tokens
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.export import Dim, ExportedProgram, export, load, save
from transformers import BertConfig, BertForMaskedLM, PreTrainedModel

from spikeplug.conversion import convert, revert, simulate
from spikeplug.numerics import Numerics
from spikeplug.presets import PRESETS

# What torch itself deprecates inside while it traces.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(autouse=True)
def fresh_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Or pytest records everything the compiler thinks.
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "propagate", False)
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def tiny_bert() -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
    settings = {"max_position_embeddings": 64, "initializer_range": 0.3, "attn_implementation": "sdpa", **sizes}
    return BertForMaskedLM(BertConfig(vocab_size=VOCABULARY, **settings)).eval()


def converted(name: str) -> PreTrainedModel:
    model = tiny_bert() if name == "bert" else tiny_model(name, num_hidden_layers=1)
    convert(model)
    return model


def run(model: Any, *args: Any, **kwargs: Any) -> Tensor:
    with torch.no_grad():
        return model(*args, **kwargs).logits


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_one_graph_of_any_length_gives_the_same_bits(name: str) -> None:
    model = converted(name)
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=True)
    for length in (5, 9, 3, 7):
        ids = tokens(2, length)
        mask = torch.ones_like(ids)
        mask[0, : length // 2] = 0
        assert torch.equal(run(compiled, ids, attention_mask=mask), run(model, ids, attention_mask=mask))
        assert counters["stats"]["unique_graphs"] == 1


def test_the_growing_cache_of_a_compiled_model() -> None:
    model, ids = converted("llama"), tokens(1, 5)
    expected = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False)
    model.compile(backend="eager", dynamic=True)
    found = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False)
    assert torch.equal(found, expected)
    assert 0 < counters["stats"]["unique_graphs"] < 4


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.activation = nn.Linear(8, 8), nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.activation(self.linear(x)), -1)


def test_a_compiled_model_follows_convert_and_revert() -> None:
    torch.manual_seed(0)
    model, x = Small(), torch.randn(3, 8)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    exact = compiled(x)
    for numerics in (Numerics(), PRESETS["paper"].numerics):
        convert(model, numerics)
        assert not torch.equal(model(x), exact)
        assert torch.equal(compiled(x), model(x))
        revert(model)
        assert torch.equal(compiled(x), exact)


def test_a_compiled_training_step_gives_the_same_loss_and_gradients() -> None:
    model, twin, ids = converted("llama").train(), converted("llama").train(), tokens(2, 6)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    losses = [each(ids, labels=ids).loss for each in (compiled, twin)]
    assert torch.equal(*losses)
    for loss in losses:
        loss.backward()
    for mine, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine.grad, other.grad)


def operators_in(program: ExportedProgram) -> dict[str, int]:
    """Count each of our operators in the graph and the graphs inside it."""
    found: dict[str, int] = {}
    for graph in program.graph_module.modules():
        for node in getattr(graph, "graph", torch.fx.Graph()).nodes:
            namespace, _, name = str(node.target).partition(".")
            if namespace == "spikeplug":
                name = name.removesuffix(".default")
                found[name] = found.get(name, 0) + 1
    return found


@pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects")  # transformers' own
@pytest.mark.parametrize(("name", "strict"), [("llama", False), ("llama", True), ("bert", False)])
def test_export(name: str, strict: bool) -> None:
    model, ids = converted(name), tokens(2, 6)
    settings = {"use_cache": False} if name == "llama" else {}
    lengths = {"input_ids": {1: Dim("length", min=2, max=60)}, **dict.fromkeys(settings)}
    inputs = {"input_ids": ids, **settings}
    program = export(model, (), inputs, strict=strict, dynamic_shapes=None if strict else lengths)
    expected = {
        "llama": {"rms_norm": 3, "cos": 1, "sin": 1, "attention": 1, "silu": 1},
        "bert": {"layer_norm": 4, "attention": 1, "gelu": 2},
    }
    assert operators_in(program) == expected[name]
    file = io.BytesIO()
    save(program, file)
    file.seek(0)
    loaded = load(file).module()
    for length in (6,) if strict else (6, 3, 11):
        ids = tokens(2, length)
        assert torch.equal(run(loaded, input_ids=ids, **settings), run(model, ids, **settings))


@pytest.mark.filterwarnings("ignore:Using .torch.compile")  # of the hooks by which simulate knows what runs
def test_a_compiled_model_is_simulated() -> None:
    model, ids = converted("llama"), tokens(1, 5)
    with simulate(model) as whole:
        run(model, ids)
    compiled = torch.compile(model, backend="eager")
    closed = run(compiled, ids)
    with simulate(compiled) as simulation:
        assert torch.equal(run(compiled, ids), closed)
    assert simulation.operators == whole.operators
