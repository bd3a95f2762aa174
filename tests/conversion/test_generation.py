"""Test generate and the pipelines on converted models: every cache, mask and search gives the expected tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_model import byte_tokenizer
from tiny_model import tiny_model as byte_model
from tiny_models import logits, tiny_model, tokens
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, PreTrainedModel, pipeline

from spikeplug.conversion import convert
from spikeplug.numerics import Numerics
from spikeplug.presets import PRESETS

NEW = 5


def generated(model: PreTrainedModel, ids: Tensor, mask: Tensor | None = None, **how: Any) -> Tensor:
    mask = torch.ones_like(ids) if mask is None else mask
    return model.generate(ids, attention_mask=mask, max_new_tokens=NEW, **{"do_sample": False, **how})


def converted(*args: Any, numerics: Numerics | None = None, **overrides: Any) -> PreTrainedModel:
    model = tiny_model(*args, **overrides)
    convert(model, numerics)
    return model


@pytest.mark.parametrize("numerics", [Numerics(), PRESETS["paper"].numerics], ids=["default", "paper"])
def test_no_cache_a_growing_and_a_static_one_give_the_same_tokens(numerics: Numerics) -> None:
    model, ids = converted(numerics=numerics), tokens(2, 6)
    greedy = ids
    for _ in range(NEW):
        greedy = torch.cat([greedy, logits(model, greedy)[:, -1:].argmax(-1)], 1)
    assert torch.equal(generated(model, ids, use_cache=False), greedy)
    assert torch.equal(generated(model, ids), greedy)
    assert torch.equal(generated(model, ids, cache_implementation="static"), greedy)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("mistral", {"sliding_window": 3}),
        ("qwen3", {"sliding_window": 3, "use_sliding_window": True, "max_window_layers": 1}),
    ],
)
def test_a_sliding_window_in_every_cache(family: str, settings: dict[str, Any]) -> None:
    model, ids = converted(family, **settings), tokens(2, 6)
    wide = generated(converted(family), ids)
    plain = generated(model, ids, use_cache=False)
    assert not torch.equal(plain, wide)
    assert torch.equal(generated(model, ids), plain)
    assert torch.equal(generated(model, ids, cache_implementation="static"), plain)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_left_padding_in_a_batch_changes_no_token(cache: str) -> None:
    model, ids = converted(), tokens(3, 7)
    mask = torch.ones_like(ids)
    for row, padding in enumerate((0, 2, 5)):
        mask[row, :padding] = 0
    batch = generated(model, ids * mask, mask, cache_implementation=cache)
    for row, padding in enumerate((0, 2, 5)):
        alone = generated(model, ids[row : row + 1, padding:], cache_implementation=cache)
        assert torch.equal(batch[row, padding:], alone[0])


def test_beam_search_is_the_same_with_and_without_cache_and_finds_no_worse() -> None:
    model, ids = converted(), tokens(2, 6)
    beams = generated(model, ids, num_beams=3)
    assert torch.equal(generated(model, ids, num_beams=3, use_cache=False), beams)

    def score(found: Tensor) -> Tensor:
        steps = logits(model, found)[:, ids.shape[1] - 1 : -1].log_softmax(-1)
        return steps.gather(-1, found[:, ids.shape[1] :, None]).sum((1, 2))

    assert bool((score(beams) >= score(generated(model, ids)) - 1e-3).all())


def test_sampling_follows_the_seed() -> None:
    model, ids = converted(), tokens(2, 6)

    def sampled(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return generated(model, ids, do_sample=True, temperature=2.0)

    assert torch.equal(sampled(0), sampled(0))
    assert not torch.equal(sampled(0), sampled(1))


def test_masks_of_two_and_four_dimensions() -> None:
    model, ids = converted(), tokens(2, 6)
    plain = logits(model, ids)
    assert torch.equal(logits(model, ids, attention_mask=torch.ones_like(ids)), plain)
    shown = torch.ones(2, 1, 6, 6, dtype=torch.bool).tril()
    assert torch.equal(logits(model, ids, attention_mask=shown), plain)
    added = torch.zeros(shown.shape).masked_fill(~shown, torch.finfo(torch.float32).min)
    assert torch.equal(logits(model, ids, attention_mask=added), plain)
    assert not torch.equal(logits(model, ids, attention_mask=torch.ones_like(shown)), plain)


def test_sequences_packed_by_their_positions_do_not_see_each_other() -> None:
    model, ids = converted(), tokens(1, 9)
    packed = logits(model, ids, position_ids=torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]]), use_cache=False)
    assert torch.equal(packed[:, :4], logits(model, ids[:, :4]))
    assert torch.equal(packed[:, 4:], logits(model, ids[:, 4:]))


def test_text_pipeline() -> None:
    model, tokenizer = byte_model(), byte_tokenizer()
    convert(model)
    write = pipeline("text-generation", model=model, tokenizer=tokenizer)
    (answer,) = write("hello", max_new_tokens=NEW, do_sample=False, return_tensors=True)
    expected = generated(model, tokenizer("hello", return_tensors="pt").input_ids)
    assert answer["generated_token_ids"] == expected[0].tolist()


def test_pipelines_of_an_encoder() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
    model = BertForMaskedLM(
        BertConfig(vocab_size=256, max_position_embeddings=64, initializer_range=0.3, **sizes)
    ).eval()
    convert(model)
    tokenizer = byte_tokenizer()
    tokenizer.mask_token = "*"
    ids = tokenizer("he*lo", return_tensors="pt").input_ids
    answers = pipeline("fill-mask", model=model, tokenizer=tokenizer)("he*lo")
    assert answers[0]["token"] == int(logits(model, ids)[0, 2].argmax())
    (features,) = pipeline("feature-extraction", model=model.bert, tokenizer=tokenizer)("hello")
    with torch.inference_mode():
        expected = model.bert(**tokenizer("hello", return_tensors="pt")).last_hidden_state[0]
    assert torch.equal(torch.tensor(features), expected)
