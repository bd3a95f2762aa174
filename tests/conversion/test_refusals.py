"""What convert refuses: one sentence with a remedy, and the model as it was."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_models import logits, tiny_model, tokens
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from spikeplug.conversion import convert, revert
from spikeplug.errors import SpikeplugError

REQUESTS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown operator": ({"operators": ("gelu",)}, "unknown operator 'gelu': choose"),
    "operator not hashable": ({"operators": ([],)}, "unknown operator"),
    "a string of operators": ({"operators": "softmax"}, "give a tuple"),
    "no operator": ({"operators": ()}, "give a tuple"),
    "operators None": ({"operators": None}, "give a tuple"),
    "exclude that does not compile": ({"exclude": "("}, "is not a regular expression"),
    "exclude that is no string": ({"exclude": 3}, "give one regular expression"),
    "exclude that finds nothing": ({"exclude": "layer7"}, "finds none of the paths"),
    "exclude that finds only what is left anyway": ({"exclude": "lm_head"}, "finds none of the paths"),
    "exclude outside of the operators chosen": (
        {"operators": ("silu",), "exclude": "norm"},
        r"finds none of the paths to replace, which look like 'model\.layers\.0\.mlp\.act_fn'",
    ),
    "exclude that leaves nothing": ({"exclude": ""}, "leaves nothing to replace"),
    "config that is none": ({"config": "paper"}, r"SpikeConfig\.paper\(\)"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_bad_requests(name: str) -> None:
    arguments, message = REQUESTS[name]
    model = tiny_model()
    before = [(path, id(module)) for path, module in model.named_modules()]
    with pytest.raises(SpikeplugError, match=message) as caught:
        convert(model, **arguments)
    assert "\n" not in str(caught.value)
    assert [(path, id(module)) for path, module in model.named_modules()] == before
    assert model.config._attn_implementation == "sdpa"


def test_an_operator_the_model_does_not_have() -> None:
    model = tiny_model(hidden_act="gelu")
    with pytest.raises(SpikeplugError, match="no silu to replace: leave 'silu' out"):
        convert(model)
    convert(model, operators=("softmax", "rms_norm"))


@pytest.mark.parametrize("thing", [None, "HuggingFaceTB/SmolLM2-135M", nn.Linear(2, 2), SimpleNamespace(config=None)])
def test_things_that_are_no_transformers_model(thing: Any) -> None:
    with pytest.raises(SpikeplugError, match=f"not a {type(thing).__name__}: load one with"):
        convert(thing)


def test_unknown_model_type() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=11))
    with pytest.raises(SpikeplugError, match="model_type 'gpt2' is not supported: give one of llama, mistral"):
        convert(model)


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


def test_accelerate_hooks() -> None:
    model = tiny_model()
    model.model.layers[0]._hf_hook = object()
    with pytest.raises(SpikeplugError, match=r"its part 'model\.layers\.0' carries accelerate hooks"):
        convert(model)


def test_meta_tensors() -> None:
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=11))
    with pytest.raises(SpikeplugError, match="holds meta tensors"):
        convert(model)


def test_attention_weights_switched_on_in_the_config() -> None:
    model = tiny_model(attn_implementation="eager")
    model.config.output_attentions = True
    with pytest.raises(SpikeplugError, match="output_attentions = False"):
        convert(model)
    convert(model, operators=("silu",))
