"""A cache of a whole model holds bytes; no token, and no way of running the cache, tells."""

from __future__ import annotations

import ast
import copy
from typing import Any

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, StaticCache
from transformers.cache_utils import EncoderDecoderCache

import spikeplug
from spikeplug.codes import is_packed
from spikeplug.conversion.attention import AttentionPlug
from spikeplug.conversion.whole.cache import _only_attends, encoding


@pytest.fixture(scope="module")
def exact() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=100,
        eos_token_id=None,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def whole(exact: LlamaForCausalLM) -> Any:
    model = copy.deepcopy(exact)
    spikeplug.convert(model, recipe="whole", calibration=False)
    return model


IDS = torch.arange(24).view(2, 12)


def test_a_cache_holds_bytes_and_gives_the_logits_of_a_run_without_one(whole: Any) -> None:
    with torch.no_grad():
        expected = whole(IDS, use_cache=False).logits
        first = whole(IDS[:, :5])
        cache = first.past_key_values
        rest = [whole(IDS[:, place : place + 1], past_key_values=cache).logits for place in range(5, 12)]
    assert torch.equal(torch.cat([first.logits, *rest], 1), expected)
    for layer in cache.layers:
        assert is_packed(layer.keys)
        assert is_packed(layer.values)
        assert layer.keys.shape == (2, 2, 12, 16 + 4)


def test_a_cache_may_be_cropped_copied_and_reordered(whole: Any) -> None:
    with torch.no_grad():
        expected = whole(IDS, use_cache=False).logits[:, -4:]
        cache = whole(IDS[:, :10]).past_key_values
        cache.crop(-2)
        for other in (copy.deepcopy(cache), cache):
            assert torch.equal(whole(IDS[:, 8:], past_key_values=other).logits, expected)
        cache.crop(-4)
        cache.batch_select_indices(torch.tensor([1, 0]))
        assert torch.equal(whole(IDS[:, 8:].flip(0), past_key_values=cache).logits, expected.flip(0))


@pytest.mark.parametrize("how", [{"num_beams": 3}, {"cache_implementation": "static"}, {"prompt_lookup_num_tokens": 2}])
def test_ways_to_generate_give_the_tokens_of_a_run_without_a_cache(whole: Any, how: dict[str, Any]) -> None:
    one = IDS[:1, :6]
    given = {"max_new_tokens": 8, "do_sample": False, "attention_mask": torch.ones_like(one)}
    beams = {"num_beams": how["num_beams"]} if "num_beams" in how else {}
    expected = whole.generate(one, use_cache=False, **beams, **given)
    assert torch.equal(whole.generate(one, **how, **given), expected)


def test_a_static_cache_and_one_of_numbers_keep_numbers(exact: Any, whole: Any) -> None:
    with torch.no_grad():
        expected = whole(IDS, use_cache=False).logits
        static = StaticCache(whole.config, max_cache_len=16)
        assert torch.equal(whole(IDS, past_key_values=static).logits, expected)
        assert static.layers[0].keys.dtype is torch.float32
        begun = exact(IDS[:, :4]).past_key_values
        whole(IDS[:, 4:], past_key_values=begun)
        assert begun.layers[0].keys.dtype is torch.float32


def test_a_model_that_is_not_whole_refuses_such_a_cache(exact: Any, whole: Any) -> None:
    cache = whole(IDS).past_key_values
    with torch.no_grad(), pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        exact(IDS[:, :1], past_key_values=cache)


def test_gradients_keep_numbers(whole: Any) -> None:
    cache = DynamicCache(config=whole.config)
    embedded = whole.get_input_embeddings()(IDS).requires_grad_()
    whole(inputs_embeds=embedded, past_key_values=cache).logits.sum().backward()
    assert embedded.grad is not None
    assert cache.layers[0].keys.dtype is torch.float32
    with torch.no_grad():
        cache = whole(IDS[:, :4]).past_key_values
    with pytest.raises(spikeplug.SpikeplugError, match="have no gradient"):
        whole(inputs_embeds=whole.get_input_embeddings()(IDS).requires_grad_(), past_key_values=cache)


def test_simulated_keys_are_encoded_once(whole: Any) -> None:
    with torch.no_grad():
        cache = whole(IDS[:, :8]).past_key_values
        with spikeplug.simulate(whole) as one:
            stepped = whole(IDS[:, 8:9], past_key_values=cache).logits
        cache.crop(-1)
        assert torch.equal(whole(IDS[:, 8:9], past_key_values=cache).logits, stepped)
        with spikeplug.simulate(whole) as alone:
            whole(IDS[:, 8:9])
    events = [found.operators["quantise"].spikes for found in (one, alone)]
    assert 0.5 < events[0] / events[1] < 2  # of one token's keys and values, whatever the cache holds


def test_a_whole_cache_keeps_its_class_and_what_it_holds() -> None:
    plug = AttentionPlug(spikeplug.Numerics(), "sdpa", 127)
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    seen = encoding(cache, plug)
    assert isinstance(seen, EncoderDecoderCache)
    assert isinstance(seen.self_attention_cache, DynamicCache)
    key = torch.randn(1, 2, 3, 8)
    seen = encoding(seen, plug)  # a module that hands on what it was shown
    seen.self_attention_cache.update(key, key, 0)
    seen.is_updated[0] = True
    assert is_packed(cache.self_attention_cache.layers[0].keys)
    assert cache.is_updated[0]
    assert type(cache.self_attention_cache) is DynamicCache


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("a, b = cache.update(a, b, 0)\nf = ALL_ATTENTION_FUNCTIONS.get_interface(x)\nf(self, q, a, b, mask)", True),
        (
            "if c:\n    a, b = c.update(a, b, 0)\nf = eager\nf = ALL_ATTENTION_FUNCTIONS[x]\nf(self, q, a, b)",
            True,
        ),
        ("a, b = cache.update(a, b, 0)\na = a.float()\nf = ALL_ATTENTION_FUNCTIONS[x]\nf(self, q, a, b)", False),
        ("a, b = cache.update(a, b, 0)\nscores = q @ a.mT", False),
        ("f = ALL_ATTENTION_FUNCTIONS[x]\nf(self, q, *cache.update(a, b, 0))", False),
        ("f = ALL_ATTENTION_FUNCTIONS[x]\nf(self, q, a, b)", False),
        ("a, b = cache.update(a, b, 0)\nreturn a, b", False),
    ],
)
def test_bytes_go_only_where_code_hands_them_to_attention(code: str, expected: bool) -> None:
    assert _only_attends(ast.parse(code)) is expected
