"""Test the attention function given to transformers: softcap, sinks and biases, for every model that uses them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import relative_error
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModel,
    AutoModelForCausalLM,
    BertConfig,
    Gemma2Config,
    GptOssConfig,
    LlamaConfig,
    OPTConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3MoeConfig,
    T5Config,
    ViTConfig,
    WhisperConfig,
    WhisperForConditionalGeneration,
)
from transformers.masking_utils import eager_mask

from spikeplug import Numerics, functional
from spikeplug.conversion import audit, convert, revert
from spikeplug.conversion.attention import PLUG, AttentionPlug, spiking_attention
from spikeplug.errors import SpikeplugError
from spikeplug.presets import PRESETS

TOLERANCE = 3e-3
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 97}
GROUPED = {**SMALL, "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.3}


def inputs(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


IDS = torch.randint(2, 97, (2, 9), generator=torch.Generator().manual_seed(1))
MODELS: dict[str, tuple[Callable[[], PretrainedConfig], Any, dict[str, Tensor]]] = {
    "softcap": (
        lambda: Gemma2Config(**GROUPED, query_pre_attn_scalar=8, attn_logit_softcapping=2.0, sliding_window=4),
        AutoModelForCausalLM,
        {"input_ids": IDS},
    ),
    "sinks and a router": (
        lambda: GptOssConfig(**GROUPED, num_local_experts=4, num_experts_per_tok=2, sliding_window=4),
        AutoModelForCausalLM,
        {"input_ids": IDS},
    ),
    "mixture of experts": (
        lambda: Qwen3MoeConfig(**GROUPED, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16),
        AutoModelForCausalLM,
        {"input_ids": IDS},
    ),
    "encoder": (lambda: BertConfig(**SMALL, initializer_range=0.3), AutoModel, {"input_ids": IDS}),
    "learnt positions": (
        lambda: OPTConfig(**SMALL, ffn_dim=48, word_embed_proj_dim=32, init_std=0.3, activation_function="gelu"),
        AutoModelForCausalLM,
        {"input_ids": IDS},
    ),
    "position bias": (
        lambda: T5Config(
            d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, vocab_size=97, feed_forward_proj="gated-gelu"
        ),
        AutoModel,
        {"input_ids": IDS, "decoder_input_ids": IDS[:, :5]},
    ),
    "images": (
        lambda: ViTConfig(**{**SMALL, "image_size": 8, "patch_size": 4, "initializer_range": 0.3}),
        AutoModel,
        {"pixel_values": inputs(4, 2, 3, 8, 8)},
    ),
}


def built(name: str, implementation: str) -> PreTrainedModel:
    make, auto, _ = MODELS[name]
    torch.manual_seed(0)
    model: PreTrainedModel = auto.from_config(make(), attn_implementation=implementation).eval()
    for key, parameter in model.named_parameters():
        if "sinks" in key or "relative_attention_bias" in key:
            nn.init.normal_(parameter.data, std=2.0)
    return model


def answer(model: PreTrainedModel, name: str, **kwargs: Any) -> Tensor:
    with torch.inference_mode():
        output = model(**MODELS[name][2], **kwargs)
    return output["logits" if "logits" in output else "last_hidden_state"].clone()


@pytest.mark.parametrize("name", MODELS)
def test_models_of_every_kind(name: str) -> None:
    model = built(name, "eager")
    exact = answer(model, name)
    report = convert(model)
    with audit(model) as found:
        converted = answer(model, name)
    assert found.counts == {}, (found.entries, report.leftovers)
    assert 0 < relative_error(converted, exact) < TOLERANCE
    revert(model)
    assert torch.equal(answer(model, name), exact)


@pytest.mark.parametrize("name", ["softcap", "sinks and a router", "encoder", "position bias"])
def test_attention_weights_of_every_kind(name: str) -> None:
    key = "encoder_attentions" if name == "position bias" else "attentions"
    model = built(name, "eager")
    with torch.inference_mode():
        exact = model(**MODELS[name][2], output_attentions=True)[key]
        convert(model)
        converted = model(**MODELS[name][2], output_attentions=True)[key]
    assert len(converted) == len(exact) == 2
    for ours, theirs in zip(converted, exact, strict=True):
        assert ours.shape == theirs.shape
        assert relative_error(ours, theirs) < TOLERANCE


class Host(nn.Module):
    """Stand in for an attention module, with what the hook reads of it."""

    def __init__(self, numerics: Numerics | None, is_causal: bool = True) -> None:
        super().__init__()
        self.is_causal = is_causal
        setattr(self, PLUG, AttentionPlug(numerics, "sdpa"))


QUERY, KEY, VALUE = inputs(1, 2, 4, 5, 8), inputs(2, 2, 2, 5, 8), inputs(3, 2, 2, 5, 6)
CAUSAL = torch.ones(5, 5, dtype=torch.bool).tril()


@pytest.mark.parametrize("numerics", [Numerics(), PRESETS["paper"].numerics], ids=["default", "paper"])
def test_arguments_are_passed_on(numerics: Numerics) -> None:
    host, bias, sinks = Host(numerics), inputs(6, 1, 4, 5, 5), inputs(7, 4)

    def run(mask: Tensor | None, **kwargs: Any) -> Tensor:
        return spiking_attention(host, QUERY, KEY, VALUE, mask, **kwargs)[0]

    def expected(mask: Tensor | None, **kwargs: Any) -> Tensor:
        return functional.attention(QUERY, KEY, VALUE, mask, numerics=numerics, **kwargs).transpose(1, 2)

    assert torch.equal(run(None), expected(CAUSAL))
    assert torch.equal(run(None, is_causal=False), expected(None))
    assert torch.equal(run(CAUSAL, scaling=0.1), expected(CAUSAL, scaling=0.1))
    assert torch.equal(run(CAUSAL, softcap=2.0, s_aux=sinks), expected(CAUSAL, softcap=2.0, sinks=sinks))
    assert torch.equal(run(None, position_bias=bias), expected(bias.masked_fill(~CAUSAL, -torch.inf)))
    assert torch.equal(run(bias, position_bias=bias), expected(bias + bias))
    assert torch.equal(run(CAUSAL), expected(torch.zeros(5, 5).masked_fill(~CAUSAL, -torch.inf)))
    output, weights = spiking_attention(host, QUERY, KEY, VALUE, CAUSAL, output_attentions=True)
    assert output.is_contiguous()
    assert weights is not None
    assert weights.shape == (2, 4, 5, 5)
    assert not bool(weights[..., ~CAUSAL].any())
    assert spiking_attention(host, QUERY, KEY, VALUE, CAUSAL)[1] is None


def test_an_unconverted_module_and_arguments_that_are_not_known() -> None:
    with pytest.raises(SpikeplugError, match="was not converted: make or load the model by from_config"):
        spiking_attention(nn.Identity(), QUERY, KEY, VALUE, None)
    with pytest.raises(SpikeplugError, match="does not take 'indices': revert the model for this call"):
        spiking_attention(Host(Numerics()), QUERY, KEY, VALUE, None, indices=torch.arange(2))


@pytest.mark.parametrize(("before", "masked"), [("sdpa", False), ("eager", True)])
def test_a_causal_mask_is_made_only_where_sdpa_was_not_known(before: str, masked: bool) -> None:
    """Elsewhere, rows get counts of visible keys: the same bits, without one byte per query and key."""
    seen: list[Tensor | None] = []
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**GROUPED), attn_implementation=before).eval()
    convert(model)
    copied = copy.deepcopy(model)
    handle = model.model.layers[0].self_attn.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["attention_mask"]), with_kwargs=True
    )
    with torch.inference_mode():
        whole = model(input_ids=IDS).logits
        handle.remove()
        again = copied(input_ids=IDS).logits  # its config is not among those remembered, so it gets a mask
        padded = model(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits
    assert [mask is not None for mask in seen] == [masked]
    assert torch.equal(whole, again)
    assert torch.equal(whole, padded)


def _registered(mask: bool) -> str:
    """Register an attention function that is nobody's but the user's, with a mask function or without."""

    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        groups = query.shape[1] // key.shape[1]
        scores = query @ key.repeat_interleave(groups, 1).mT * kwargs["scaling"]
        weights = (scores + 1 if mask is None else scores + mask.clamp_min(-100)).tanh()
        return (weights @ value.repeat_interleave(groups, 1)).transpose(1, 2).contiguous(), weights

    name = f"users_own_{mask}"
    AttentionInterface.register(name, attention)
    if mask:
        AttentionMaskInterface.register(name, eager_mask)
    return name


@pytest.mark.parametrize("mask", [False, True])
def test_a_function_of_the_users_runs_in_excluded_layers_and_is_named_where_it_is_dropped(mask: bool) -> None:
    name = _registered(mask)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**GROUPED), attn_implementation=name).eval()
    seen: list[Tensor] = []
    model.model.layers[0].register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.inference_mode():
        exact = model(input_ids=IDS).logits
        report = convert(model, exclude=r"layers\.0(\.|$)|rotary")
        spiking = model(input_ids=IDS).logits
    assert torch.equal(seen[1], seen[0])
    assert not torch.equal(spiking, exact)
    assert [entry.path for entry in report.entries if entry.note] == ["model.layers.1.self_attn"]
    revert(model)
    with torch.inference_mode():
        assert torch.equal(model(input_ids=IDS).logits, exact)
    report = convert(model)
    notes = {entry.note for entry in report.replaced if entry.operator == "attention"}
    assert notes == {f"in place of the attention function {name!r}, which no longer runs"}
    assert str(report).endswith(f"; {notes.pop()}")


def test_whisper_sets_eager_attention_itself() -> None:
    config = WhisperConfig(
        **{f"{part}_{what}": 2 for part in ("encoder", "decoder") for what in ("layers", "attention_heads")},
        **{"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": 120, "num_mel_bins": 8},
        **{"max_source_positions": 50, "max_target_positions": 40, "pad_token_id": 0, "bos_token_id": 1},
        **{"eos_token_id": 2, "decoder_start_token_id": 3, "suppress_tokens": None, "begin_suppress_tokens": None},
    )
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(config).eval()
    settings = {"alignment_heads": [[0, 0], [1, 1]], "no_timestamps_token_id": 100, "is_multilingual": False}
    for name, value in {**settings, "max_initial_timestamp_index": 5, "return_timestamps": True}.items():
        setattr(model.generation_config, name, value)
    sound = inputs(5, 1, 8, 100)

    def generate() -> Any:
        how = {"return_token_timestamps": True, "return_timestamps": True, "num_frames": torch.tensor([100])}
        return model.generate(sound, max_new_tokens=8, return_dict_in_generate=True, **how)

    exact = generate()
    model.config._attn_implementation = "sdpa"
    convert(model)
    with pytest.warns(UserWarning, match='is "spiking" again'):
        spiking = generate()
    assert torch.equal(spiking["sequences"], exact["sequences"])
    assert spiking["token_timestamps"].shape == exact["token_timestamps"].shape
    with audit(model) as found, torch.inference_mode():
        model(input_features=sound, decoder_input_ids=torch.tensor([[3, 4]]))
    assert found.counts == {}
    assert model.config._attn_implementation == "spiking"
    revert(model)
    assert model.config._attn_implementation == "sdpa"


def test_a_model_made_from_the_config_of_a_converted_one() -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**GROUPED)).eval()
    convert(model)
    made = AutoModelForCausalLM.from_config(model.config)
    for use in (lambda: made(IDS), lambda: convert(made)):
        with pytest.raises(SpikeplugError, match='from_config or from_pretrained with attn_implementation="sdpa"'):
            use()
    made = AutoModelForCausalLM.from_config(model.config, attn_implementation="sdpa").eval()
    made.load_state_dict(model.state_dict())
    convert(made)
    with torch.inference_mode():
        assert torch.equal(made(IDS).logits, model(IDS).logits)
