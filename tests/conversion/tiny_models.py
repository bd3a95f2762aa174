"""Make tiny random models of the four families, and measures to compare them by."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
VOCABULARY = 97


def tiny_model(family: str = "llama", attn_implementation: str = "sdpa", **overrides: Any) -> PreTrainedModel:
    """Return a causal LM in eval mode, always with the same weights: `tiny_model("qwen3", num_hidden_layers=3)`."""
    settings = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 128,
        # Large enough that attention is far from uniform, so that a wrong mask shows.
        "initializer_range": 0.3,
        "bos_token_id": 1,
        "eos_token_id": None,
        "pad_token_id": 0,
        "sliding_window": None,
        **overrides,
    }
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **settings)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attn_implementation).eval()


def tokens(batch: int = 2, length: int = 12, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, VOCABULARY, (batch, length), generator=generator)


def logits(model: PreTrainedModel, ids: Tensor, **kwargs: Any) -> Tensor:
    with torch.inference_mode():
        return model(input_ids=ids, **kwargs).logits.clone()


def unchanged(model: nn.Module) -> Callable[[], None]:
    """Return a check that the model has the state, the attributes and the outputs that it has now."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    kept = {name: (list(vars(module)), module.training) for name, module in model.named_modules()}
    tied, exact = model.config.tie_word_embeddings, logits(model, tokens())

    def check() -> None:
        assert {name: (list(vars(module)), module.training) for name, module in model.named_modules()} == kept
        found = model.state_dict()
        assert list(found) == list(state)
        assert all(torch.equal(found[name], value) for name, value in state.items())
        assert model.config.tie_word_embeddings == tied
        assert torch.equal(logits(model, tokens()), exact)

    return check


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Return the largest absolute difference over the largest absolute expected value."""
    actual, expected = actual.detach().double(), expected.detach().double()
    return float((actual - expected).abs().max() / expected.abs().max())


def deep_copied(model: PreTrainedModel) -> PreTrainedModel:
    return copy.deepcopy(model)


def pickled(model: PreTrainedModel) -> PreTrainedModel:
    return pickle.loads(pickle.dumps(model))


def torch_saved(model: PreTrainedModel) -> PreTrainedModel:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


#: Every way to a second model with the same weights.
DUPLICATES = (deep_copied, pickled, torch_saved)
