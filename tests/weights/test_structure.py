"""Test how tensors are followed, on small modules of plain torch and on models of transformers, none known by name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from spikeplug.conversion.norms import Norm, find_norm
from spikeplug.errors import SpikeplugError
from spikeplug.weights import Structure, find_structure
from spikeplug.weights.structure import check_norms

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from architectures import ARCHITECTURES


def norms_of(model: nn.Module) -> dict[str, Norm]:
    known: dict[object, Norm | None] = {}
    found = {path: find_norm(module, known) for path, module in model.named_modules()}
    return {path: norm for path, norm in found.items() if norm is not None}


def structure_of(name: str) -> Structure:
    (architecture,) = (each for each in ARCHITECTURES if each.name == name)
    model = architecture.build()
    return find_structure(model, norms_of(model), architecture.inputs())


class Block(nn.Module):
    """A residual block: norm, attention with grouped keys, norm, gate."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.before, self.after = nn.RMSNorm(16), nn.RMSNorm(16)
        self.qkv = nn.Linear(16, 32)
        self.q, self.kv = nn.Linear(16, 16), nn.Linear(16, 16)
        self.out, self.up, self.gate, self.down = (
            nn.Linear(16, 16), nn.Linear(16, 64), nn.Linear(16, 64), nn.Linear(64, 16),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        n = self.before(x)
        joint = self.qkv(n) if self.fused else torch.cat([self.q(n), self.kv(n)], -1)
        q, k, v = (part.unflatten(-1, (-1, 4)).transpose(1, 2) for part in joint.split((16, 8, 8), -1))
        heads = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        x = x + self.out(heads.transpose(1, 2).flatten(2))
        n = self.after(x)
        return x + self.down(F.silu(self.gate(n)) * self.up(n))


class Net(nn.Module):
    def __init__(self, *, fused: bool = True) -> None:
        super().__init__()
        self.embed, self.block, self.norm, self.head = (
            nn.Embedding(9, 16), Block(fused), nn.RMSNorm(16), nn.Linear(16, 5),
        )  # fmt: skip

    def embedded(self, ids: Tensor) -> Tensor:
        return self.embed(ids)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.block(self.embedded(ids))))


IDS = {"ids": torch.tensor([[1, 4, 2, 8, 3], [0, 2, 2, 1, 7]])}


def found_in(model: nn.Module, inputs: dict[str, Any] | None = None) -> Structure:
    if isinstance(model, Net):  # the layers of the other kind would never run
        for name in ("q", "kv") if model.block.fused else ("qkv",):
            delattr(model.block, name)
    return find_structure(model, norms_of(model), inputs or IDS)


def test_a_whole_block() -> None:
    found = found_in(Net())
    assert found.kept == ()
    assert [norm.path for norm in found.norms] == ["block.before", "block.after", "norm"]
    (stream,) = found.streams
    assert (stream.width, stream.centred) == (16, False)
    assert [writer.name for writer in stream.writers] == ["embed", "block.out", "block.down"]
    (value,) = found.values
    assert value.name == "block.qkv"
    # Values are the last 8 of 32 outputs, in two heads of 4, and each is read by two query heads.
    assert value.heads == ((24, 25, 26, 27), (28, 29, 30, 31))
    assert value.readers[0].columns == (*value.heads[0],) * 2 + (*value.heads[1],) * 2
    assert [(down.path, down.block) for down in found.downs] == [("block.down", 64)]


def test_values_that_are_joined_with_other_channels() -> None:
    """The torch.cat of two projections is a new space, so it is not clear which layer writes the values."""
    found = found_in(Net(fused=False))
    assert [value.reason for value in found.values] == ["cat in block writes them"]
    assert found.streams[0].reason == ""


def test_running_does_not_change_the_model() -> None:
    model = Net()
    model.train()
    model.block.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found_in(model)
    assert model.training
    assert not model.block.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: x.softmax(-1), "softmax in the model itself writes to it"),
        (lambda x: x + torch.ones(16), "add in the model itself adds a constant to it"),
        (lambda x: x * torch.arange(16.0), "mul in the model itself writes to it"),
        (lambda x: x.flip(-1) + x, "add in the model itself writes to it"),
    ],
)
def test_what_depends_on_the_basis_is_named(change: Any, reason: str) -> None:
    class Changed(Net):
        def embedded(self, ids: Tensor) -> Tensor:
            return change(self.embed(ids))

    (stream,) = found_in(Changed()).streams
    assert stream.reason.startswith(reason)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x * 3.5,
        lambda x: x / torch.tensor(2.0),
        lambda x: x * torch.arange(5.0)[:, None],
        lambda x: torch.cat([x[:, :2], x[:, 2:]], 1),
        lambda x: torch.cat([x.mean(1, keepdim=True), x], 1)[:, 1:],
        lambda x: torch.softmax(torch.ones(5, 5), -1) @ x,
        lambda x: x.transpose(0, 1).contiguous().view(5, 2, 16).transpose(0, 1),
        lambda x: F.dropout(x, 0.5, training=False).float().clone(),
    ],
)
def test_what_does_not_depend_on_the_basis_lets_it_turn(change: Any) -> None:
    class Changed(Net):
        def embedded(self, ids: Tensor) -> Tensor:
            return change(self.embed(ids))

    assert found_in(Changed()).kept == ()


def test_a_second_reader_of_a_norm_keeps_its_gain() -> None:
    class Changed(Net):
        def forward(self, ids: Tensor) -> Tensor:
            n = self.norm(self.block(self.embed(ids)))
            return self.head(n) + n.exp().mean(-1, keepdim=True)

    found = found_in(Changed())
    assert found.norms[-1].reason == "exp in the model itself reads it"
    assert found.streams[0].reason == "the gain of norm does not fold (exp in the model itself reads it)"


def test_a_weight_that_is_read_outside_of_its_layer() -> None:
    class Changed(Net):
        def forward(self, ids: Tensor) -> Tensor:
            n = self.norm(self.block(self.embed(ids)))
            return F.linear(n, self.embed.weight)

    model = Changed()
    del model.head
    assert found_in(model).streams[0].reason == "embed.weight is read outside of its module"


def test_layers_that_never_run_stop_everything() -> None:
    model = Net()
    model.expert = nn.Linear(16, 16)
    found = found_in(model)
    assert found.unreached == ("expert",)
    (sentence,) = found.kept
    assert "the first expert, did not run on the tiny input" in sentence


@pytest.mark.parametrize(
    ("name", "part"),
    [
        (
            "Gemma 3 (text)",
            "model.layers.0.post_attention_layernorm stands between model.layers.0.self_attn.o_proj and the residual",
        ),
        ("Qwen3", "The gain of model.layers.0.self_attn.q_norm stays: mul in model.layers.0.self_attn reads it."),
        ("BERT", "bert.embeddings.LayerNorm stands between bert.embeddings.position_embeddings and the residual"),
        ("ViT", "The gain of layernorm stays: the model returns it."),
        ("Whisper", "The stream of add in model.encoder is not rotated: add in model.encoder writes to it without"),
        ("Mixtral", "grouped_mm in model.layers.0.mlp.experts writes to it without a linear layer in between."),
        ("Falcon", "matmul in transformer.h.0.self_attention.query_key_value reads it."),
        ("OLMo", "No residual stream is rotated: no norm module reads a sum of layers."),
    ],
)
def test_architectures_that_do_not_fold_whole(name: str, part: str) -> None:
    assert any(part in sentence for sentence in structure_of(name).kept), structure_of(name).kept


@pytest.mark.parametrize(
    "name", ["Llama 3", "Mistral", "Qwen2", "Gemma", "GPT-2", "GPT-NeoX", "OPT", "Phi", "Phi-3", "T5"]
)
def test_architectures_that_fold_whole(name: str) -> None:
    assert structure_of(name).kept == ()


def test_bad_input() -> None:
    with pytest.raises(SpikeplugError, match=r"does not run on the tiny input .*give `inputs`"):
        find_structure(Net(), {}, {"ids": torch.ones(2)})
    with pytest.raises(SpikeplugError, match="does not say what it takes: give `inputs`"):
        find_structure(Net(), {})
    with pytest.raises(SpikeplugError, match="no module 'nonsense'"):
        check_norms(Net(), {"nonsense": Norm("rms_norm", 1e-6)})
