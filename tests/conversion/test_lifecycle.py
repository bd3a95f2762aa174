"""Test what may happen to a model before, during and after its conversion: each works, or is refused with a reason."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from tiny_models import logits, relative_error, tiny_model, tokens
from torch import Tensor, nn
from transformers import BertConfig, BertModel, CLIPConfig, CLIPModel

from spikeplug.conversion import audit, convert, revert, reverted
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.presets import PRESETS


def test_converting_twice_is_refused_and_changes_nothing() -> None:
    model = tiny_model()
    convert(model)
    before = logits(model, tokens())
    with pytest.raises(SpikeplugError, match="the model is converted already"):
        convert(model, PRESETS["paper"].numerics)
    with pytest.raises(SpikeplugError, match=r"(spiking|converted) already"):
        convert(model.model)
    assert torch.equal(logits(model, tokens()), before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_moving_to_another_dtype_before_or_after_is_the_same(dtype: torch.dtype) -> None:
    before, after = tiny_model().to(dtype), tiny_model()
    convert(before)
    convert(after)
    after.to(dtype)
    assert logits(after, tokens()).dtype == dtype
    assert torch.equal(logits(after, tokens()), logits(before, tokens()))


def test_converted_under_inference_mode_it_still_trains() -> None:
    model, twin = tiny_model(), tiny_model()
    with torch.inference_mode():
        convert(model)
        spiking = model(tokens()).logits.clone()
    convert(twin)
    assert torch.equal(spiking, logits(twin, tokens()))
    model(tokens(), labels=tokens()).loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_training_mode_stays_and_follows_the_model() -> None:
    model = tiny_model().train()
    convert(model)
    assert all(module.training for module in model.modules())
    model.eval()
    assert not any(module.training for module in model.modules())
    twin = tiny_model()
    convert(twin)
    assert torch.equal(logits(model, tokens()), logits(twin, tokens()))


def test_converted_on_the_meta_device_and_given_weights_later() -> None:
    whole = tiny_model()
    with torch.device("meta"):
        model = type(whole)(copy.deepcopy(whole.config)).eval()
        convert(model)
    model.to_empty(device="cpu")
    model.load_state_dict(whole.state_dict())
    model.model.rotary_emb.load_state_dict(whole.model.rotary_emb.state_dict())
    for name, buffer in whole.named_buffers():
        model.get_buffer(name).copy_(buffer)
    convert(whole)
    assert torch.equal(logits(model, tokens()), logits(whole, tokens()))


def test_tied_weights_stay_tied() -> None:
    model = tiny_model(tie_word_embeddings=True)
    convert(model)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    twin = copy.deepcopy(model)
    assert twin.lm_head.weight is twin.model.embed_tokens.weight
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    assert torch.equal(model.model.embed_tokens.weight, 2 * twin.model.embed_tokens.weight)


def test_weights_loaded_later_are_the_ones_that_run() -> None:
    torch.manual_seed(5)
    model, other = tiny_model(), tiny_model()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    convert(model)
    assert model.load_state_dict(other.state_dict()) == ([], [])
    convert(other)
    assert torch.equal(logits(model, tokens()), logits(other, tokens()))
    replacement = nn.Parameter(torch.full((32,), 3.0))
    model.model.norm.weight = other.model.norm.weight = replacement
    assert torch.equal(logits(model, tokens()), logits(other, tokens()))


def test_eager_attention_is_set_back() -> None:
    """transformers sets it itself where it wants the weights, such as Whisper for the times of its tokens."""
    model = tiny_model()
    exact = logits(model, tokens())
    convert(model)
    spiking = logits(model, tokens())
    for set_implementation in (model.set_attn_implementation, model.model.set_attn_implementation):
        set_implementation("eager")
        with pytest.warns(UserWarning, match='was set to "eager" on a converted model, and is "spiking" again'):
            assert torch.equal(logits(model, tokens()), spiking)
        assert model.config._attn_implementation == "spiking"
        assert torch.equal(logits(model, tokens()), spiking)
    model.set_attn_implementation("eager")
    revert(model)
    assert model.config._attn_implementation == "sdpa"
    assert torch.equal(logits(model, tokens()), exact)


@pytest.mark.parametrize("implementation", ["sdpa"])
def test_another_attn_implementation_does_not_switch_spiking_off_unnoticed(implementation: str) -> None:
    model = tiny_model()
    exact = logits(model, tokens())
    convert(model)
    spiking = logits(model, tokens())
    for set_implementation in (
        model.set_attn_implementation,
        model.model.set_attn_implementation,
        lambda name: setattr(model.config, "_attn_implementation", name),
    ):
        set_implementation(implementation)
        with pytest.raises(SpikeplugError, match=rf"was set to '{implementation}' on a converted model: call .*revert"):
            logits(model, tokens())
        set_implementation("spiking")
        assert torch.equal(logits(model, tokens()), spiking)
    model.set_attn_implementation(implementation)
    revert(model)
    assert model.config._attn_implementation == "sdpa"
    assert torch.equal(logits(model, tokens()), exact)


def test_one_of_two_towers_set_back_is_noticed_too() -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": 97, "max_position_embeddings": 16}
    vision = {**sizes, "image_size": 8, "patch_size": 4}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).eval()
    convert(model)
    ids, pixels = tokens(1, 5), torch.ones(1, 3, 8, 8)
    model.set_attn_implementation({"vision_config": "sdpa"})
    model.get_text_features(ids)
    with pytest.raises(SpikeplugError, match="was set to 'sdpa'"):
        model.get_image_features(pixels)


def test_where_attention_stayed_exact_its_implementation_is_free() -> None:
    model = tiny_model()
    convert(model, operators=("silu", "rms_norm"))
    expected = logits(model, tokens())
    model.set_attn_implementation("eager")
    assert relative_error(logits(model, tokens()), expected) < 1e-3


class Shared(nn.Module):
    """Use one norm and one activation at three places."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.activation = nn.Linear(8, 8), nn.LayerNorm(8), nn.GELU()
        self.again, self.body = self.norm, nn.Sequential(self.activation, self.norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.again(self.activation(self.norm(self.first(x)))))


def test_a_module_in_several_places_is_one_spiking_module() -> None:
    model, x = Shared(), torch.randn(3, 8)
    exact = model(x)
    convert(model)
    with audit(model) as found:
        spiking = model(x)
    assert found.counts == {}
    assert model.again is model.norm
    assert 0 < relative_error(spiking, exact) < 2e-3
    revert(model)
    assert torch.equal(model(x), exact)
    convert(model, exclude="^again$")  # exact in one place, exact in all
    with audit(model) as found:
        model(x)
    assert found.counts == {"native_layer_norm": 3}


def test_two_models_of_different_configs_in_two_threads() -> None:
    configs = (Numerics(), PRESETS["paper"].numerics)
    models = [tiny_model() for _ in configs]
    for model, numerics in zip(models, configs, strict=True):
        convert(model, numerics)
    expected = [logits(model, tokens()) for model in models]
    assert not torch.equal(*expected)
    wrong: list[int] = []
    together = threading.Barrier(2)

    def work(index: int) -> None:
        together.wait()
        for _ in range(10):
            if not torch.equal(logits(models[index], tokens()), expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_exact_model_beside_a_spiking_one_stays_exact() -> None:
    exact, spiking = tiny_model(), tiny_model()
    expected = logits(exact, tokens())
    convert(spiking)
    logits(spiking, tokens())
    assert torch.equal(logits(exact, tokens()), expected)


def test_an_error_on_the_way_leaves_nothing_switched_on() -> None:
    model = tiny_model()
    convert(model)
    expected = logits(model, tokens())
    with pytest.raises(IndexError):
        logits(model, tokens() + 1000)
    x = torch.ones(3)
    assert torch.equal(torch.exp(x), x.exp())
    with audit(model) as found:
        torch.exp(x)
    assert found.counts == {"exp": 1}
    assert torch.equal(logits(model, tokens()), expected)


def test_every_conversion_in_a_model_can_be_undone_at_once() -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = BertModel(BertConfig(vocab_size=97, max_position_embeddings=16, **sizes)).eval()
    ids = tokens(1, 5)
    exact = model(ids).last_hidden_state
    assert reverted(model) is model
    convert(model.encoder.layer[0].intermediate)
    convert(model.encoder.layer[1].intermediate)
    assert not torch.equal(model(ids).last_hidden_state, exact)
    assert torch.equal(reverted(model)(ids).last_hidden_state, exact)
