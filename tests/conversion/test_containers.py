"""A container that saves the transformers model inside it saves its conversion too, as SentenceTransformer does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import logits, tiny_model, tokens
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from spikeplug.conversion import SpikingConfig, convert, revert


class Container(nn.Module):
    """Save the model inside alone, and its own head not at all."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model, self.head = model, nn.Sequential(nn.GELU(), nn.Softmax(-1))

    def save(self, path: Path) -> None:
        self.model.save_pretrained(path)


@pytest.mark.parametrize(
    ("exclude", "operators"),
    [
        (None, None),
        (r"^head", None),
        (r"^model\.model\.layers\.1\.|rotary", None),
        (None, ("gelu", "attention")),
    ],
)
def test_the_model_inside_comes_back_spiking(
    tmp_path: Path, exclude: str | None, operators: tuple[str, ...] | None
) -> None:
    container = Container(tiny_model("llama"))
    exact = logits(container.model, tokens())
    convert(container, "narrow", exclude=exclude, operators=operators)
    spiking = logits(container.model, tokens())
    container.save(tmp_path / "spiking")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "spiking")
    assert torch.equal(logits(loaded, tokens()), spiking)
    assert not torch.equal(spiking, exact)
    revert(container)
    container.save(tmp_path / "exact")
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "exact"), tokens()), exact)


def test_a_model_of_which_nothing_is_replaced_is_saved_as_it_is() -> None:
    container = Container(tiny_model("llama"))
    convert(container, exclude=r"^model")
    assert getattr(container.model.config, "quantization_config", None) is None


def test_each_model_inside_says_it() -> None:
    container = nn.ModuleList([tiny_model("llama"), tiny_model("qwen3")])
    convert(container)
    assert all(isinstance(model.config.quantization_config, SpikingConfig) for model in container)
    revert(container)
    assert not any(hasattr(model.config, "quantization_config") for model in container)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_sentence_transformers(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    modules = pytest.importorskip("sentence_transformers.models")
    from transformers import BertConfig, BertModel, BertTokenizerFast

    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]))
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "bert")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=13, initializer_range=0.3, **sizes)).save_pretrained(tmp_path / "bert")
    parts = [modules.Transformer(str(tmp_path / "bert")), modules.Pooling(16)]
    model = library.SentenceTransformer(modules=parts, device="cpu")
    exact = model.encode("a b c")
    convert(model, "narrow", exclude="^1")  # the mean over tokens is outside the model that is saved
    spiking = model.encode("a b c")
    model.save(str(tmp_path / "saved"))
    loaded = library.SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert (loaded.encode("a b c") == spiking).all()
    assert (spiking != exact).any()
    revert(loaded)
    assert (loaded.encode("a b c") == exact).all()
