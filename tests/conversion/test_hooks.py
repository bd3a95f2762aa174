"""Test the attention and mask hooks: every mask and cache gives what the exact model gives; the rest is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny_models import logits, relative_error, tiny_model, tokens
from torch import Tensor
from transformers import PreTrainedModel, StaticCache

from spikeplug.conversion import convert, revert
from spikeplug.errors import SpikeplugError
from spikeplug.measurement.caching import cache_of, with_cache

TOLERANCE = 2e-3
SLIDING: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 4},
    "qwen2": {"sliding_window": 4, "use_sliding_window": True, "max_window_layers": 1},
    "qwen3": {"sliding_window": 4, "use_sliding_window": True, "max_window_layers": 1},
}


def left_padded(batch: int = 2, length: int = 12) -> tuple[Tensor, Tensor]:
    """Return ids and a padding mask; row i starts with 3·i padding tokens."""
    ids, mask = tokens(batch, length), torch.ones(batch, length, dtype=torch.long)
    for row in range(batch):
        ids[row, : 3 * row] = 0
        mask[row, : 3 * row] = 0
    return ids, mask


def both(model: PreTrainedModel, ids: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Return (spiking, exact) logits."""
    exact = logits(model, ids, **kwargs)
    convert(model)
    spiking = logits(model, ids, **kwargs)
    revert(model)
    return spiking, exact


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("family", SLIDING)
def test_sliding_window(family: str, implementation: str) -> None:
    model = tiny_model(family, implementation, **SLIDING[family])
    spiking, exact = both(model, tokens(2, 20))
    assert relative_error(spiking, exact) < TOLERANCE
    assert relative_error(logits(tiny_model(family), tokens(2, 20)), exact) > 10 * TOLERANCE  # the window matters


def test_left_padding(family: str) -> None:
    ids, mask = left_padded(3)
    spiking, exact = both(tiny_model(family), ids, attention_mask=mask)
    visible = mask.bool()  # the outputs of padding tokens do not matter, but must be finite
    assert relative_error(spiking[visible], exact[visible]) < TOLERANCE
    assert spiking.isfinite().all()
    assert relative_error(logits(tiny_model(family), ids)[visible], exact[visible]) > 10 * TOLERANCE  # padding matters


def test_a_padded_row_gives_what_it_gives_alone() -> None:
    ids, mask = left_padded(2)
    model = tiny_model()
    convert(model)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    together = logits(model, ids, attention_mask=mask, position_ids=positions)[1, 3:]
    alone = logits(model, ids[1:, 3:])[0]
    assert relative_error(together, alone) < TOLERANCE


def test_four_dimensional_masks() -> None:
    visible = torch.ones(12, 12).tril().bool() & (torch.rand(12, 12, generator=torch.Generator().manual_seed(5)) > 0.3)
    visible |= torch.eye(12, dtype=torch.bool)
    visible = visible.expand(2, 1, 12, 12)
    additive = torch.where(visible, 0.0, torch.finfo(torch.float32).min)
    model = tiny_model()
    spiking, exact = both(model, tokens(), attention_mask=visible)
    assert relative_error(spiking, exact) < TOLERANCE
    assert torch.equal(both(model, tokens(), attention_mask=additive)[0], spiking)
    assert torch.equal(both(model, tokens(), attention_mask=torch.where(visible, 0.0, -torch.inf))[0], spiking)
    assert relative_error(both(model, tokens())[0], spiking) > 10 * TOLERANCE


def test_float_biases_are_added_to_the_scores() -> None:
    bias = torch.randn(2, 1, 12, 12, generator=torch.Generator().manual_seed(5)) * 3
    bias = bias.masked_fill(torch.ones(12, 12, dtype=torch.bool).triu(1), -torch.inf)
    model = tiny_model()
    spiking, exact = both(model, tokens(), attention_mask=bias)
    assert relative_error(spiking, exact) < TOLERANCE
    assert relative_error(both(model, tokens())[0], spiking) > 10 * TOLERANCE


def test_no_mask_at_all_is_causal_as_in_sdpa() -> None:
    model = tiny_model("qwen2")
    convert(model)
    assert torch.equal(logits(model, tokens(), attention_mask={"full_attention": None}), logits(model, tokens()))


def test_key_value_cache_in_pieces(family: str) -> None:
    # float64: in float32, matrix products of other shapes round otherwise and flip last bits of the codes.
    model = tiny_model(family, **SLIDING.get(family, {})).double()
    ids = tokens(2, 14)
    convert(model)
    whole = logits(model, ids)
    with torch.inference_mode():
        cache, pieces = None, []
        for piece in ids.split([6, 1, 4, 1, 1, 1], dim=1):
            output = model(input_ids=piece, **with_cache(model, cache))
            cache = cache_of(output)
            pieces.append(output.logits)
    assert relative_error(torch.cat(pieces, dim=1), whole) < 1e-9


def test_static_cache() -> None:
    model = tiny_model("llama").double()
    ids = tokens(2, 9)
    convert(model)
    whole = logits(model, ids)
    with torch.inference_mode():
        cache = StaticCache(config=model.config, max_cache_len=16)
        pieces = [model(input_ids=piece, **with_cache(model, cache)).logits for piece in ids.split([6, 1, 2], dim=1)]
    assert relative_error(torch.cat(pieces, dim=1), whole) < 1e-9


@pytest.mark.parametrize("padded", [False, True])
def test_greedy_generation(family: str, padded: bool) -> None:
    model = tiny_model(family, **SLIDING.get(family, {}))
    ids, mask = left_padded() if padded else (tokens(), torch.ones(2, 12, dtype=torch.long))

    def generate(**kwargs: Any) -> Tensor:
        return model.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False, **kwargs)

    exact = generate()
    convert(model)
    cached = generate(use_cache=True)
    assert cached.shape == (2, 20)
    assert torch.equal(cached, generate(use_cache=False))
    assert torch.equal(cached, exact)
    if family == "llama":
        assert torch.equal(cached, generate(cache_implementation="static"))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("padded", [False, True])
def test_an_excluded_layer_runs_bit_for_bit_what_it_ran(family: str, implementation: str, padded: bool) -> None:
    """Layer 0 has the same input, positions included, so it must give the same output; layer 1 must not."""
    model = tiny_model(family, implementation, **SLIDING.get(family, {}))
    ids, mask = left_padded() if padded else (tokens(), None)
    outputs: dict[int, list[Tensor]] = {0: [], 1: []}
    for index, layer in enumerate(model.model.layers):
        layer.self_attn.register_forward_hook(lambda m, a, out, index=index: outputs[index].append(out[0].clone()))
    logits(model, ids, attention_mask=mask)
    convert(model, exclude=r"layers\.0\.|rotary_emb")
    logits(model, ids, attention_mask=mask)
    assert torch.equal(*outputs[0])
    assert not torch.equal(*outputs[1])


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_an_excluded_layer_decodes_from_its_cache_as_before(implementation: str) -> None:
    model = tiny_model("llama", implementation)
    outputs: list[Tensor] = []
    model.model.layers[0].self_attn.register_forward_hook(lambda m, args, out: outputs.append(out[0].clone()))

    def decode() -> list[Tensor]:
        outputs.clear()
        with torch.inference_mode():
            cache = cache_of(model(input_ids=tokens(), use_cache=True))
            for step in range(3):
                cache = cache_of(model(input_ids=tokens(2, 1, seed=step), **with_cache(model, cache)))
        return list(outputs)

    exact = decode()
    convert(model, operators=("attention",), exclude=r"layers\.0\.")
    assert all(torch.equal(spiking, before) for spiking, before in zip(decode(), exact, strict=True))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_weights_are_returned(family: str, implementation: str) -> None:
    model = tiny_model(family, "eager")
    ids, mask = left_padded()
    with torch.inference_mode():
        exact = model(ids, attention_mask=mask, output_attentions=True).attentions
        model = tiny_model(family, implementation)
        convert(model)
        weights = model(ids, attention_mask=mask, output_attentions=True).attentions
    assert len(weights) == len(exact) == 2
    visible = mask.bool()
    for ours, theirs in zip(weights, exact, strict=True):
        rows, expected = ours.transpose(1, 2)[visible], theirs.transpose(1, 2)[visible]
        assert relative_error(rows, expected) < TOLERANCE
        assert torch.allclose(rows.sum(-1), torch.ones(1), atol=1e-3)


def test_attention_weights_switched_on_in_the_config() -> None:
    model = tiny_model(attn_implementation="eager")
    model.config.output_attentions = True
    convert(model)
    with torch.inference_mode():
        assert len(model(tokens()).attentions) == 2


def test_dropout_drops_in_training_only() -> None:
    model = tiny_model(attention_dropout=0.5)
    convert(model)
    assert torch.equal(logits(model, tokens()), logits(model, tokens()))
    model.train()
    assert not torch.equal(logits(model, tokens()), logits(model, tokens()))


def test_another_implementation_set_afterwards_is_refused() -> None:
    model = tiny_model()
    convert(model)
    model.config._attn_implementation = "sdpa"
    with pytest.raises(SpikeplugError, match="was set to 'sdpa' on a converted model"):
        logits(model, tokens())
    model.config._attn_implementation = "spiking"
    logits(model, tokens())
    revert(model)
    assert model.config._attn_implementation == "sdpa"


def test_a_model_that_only_shares_the_config_is_not_run_by_accident() -> None:
    model = tiny_model()
    sibling = type(model)(model.config).eval()
    independent = type(model)(copy.deepcopy(model.config)).eval()
    exact = logits(independent, tokens())
    convert(model)
    with pytest.raises(SpikeplugError, match="not converted"):
        logits(sibling, tokens())
    with pytest.raises(SpikeplugError, match="from_config or from_pretrained with attn_implementation"):
        convert(sibling)
    assert torch.equal(logits(independent, tokens()), exact)
    revert(model)
    logits(sibling, tokens())
