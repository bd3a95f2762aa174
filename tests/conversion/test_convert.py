"""Test convert: outputs stay close, and everything that identifies a model stays the same."""

from __future__ import annotations

import logging
import time

import pytest
import torch
from tiny_models import logits, relative_error, tiny_model, tokens
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from spikeplug.conversion import audit, convert, revert
from spikeplug.conversion.plug import plug_of
from spikeplug.numerics import Numerics
from spikeplug.presets import PRESETS

TOLERANCE = 2e-3


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_logits_stay_close_and_nothing_stays_float(family: str, implementation: str) -> None:
    model = tiny_model(family, implementation)
    exact = logits(model, tokens())
    report = convert(model, strict=True)
    with audit(model) as found:
        converted = logits(model, tokens())
    assert report.leftovers == ()
    assert found.counts == {}
    assert 0 < relative_error(converted, exact) < TOLERANCE


def test_base_model_converts_too(family: str) -> None:
    model = tiny_model(family).model
    with torch.inference_mode():
        exact = model(tokens()).last_hidden_state
        convert(model)
        converted = model(tokens()).last_hidden_state
    assert 0 < relative_error(converted, exact) < TOLERANCE


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_half_precision(dtype: torch.dtype, tolerance: float) -> None:
    model = tiny_model().to(dtype)
    exact = logits(model, tokens())
    convert(model)
    converted = logits(model, tokens())
    assert converted.dtype == dtype
    assert relative_error(converted, exact) < tolerance


def test_parameters_and_state_dict_are_the_same_objects_and_bits(family: str) -> None:
    model = tiny_model(family)
    parameters, state = list(model.named_parameters()), {k: v.clone() for k, v in model.state_dict().items()}
    buffers = [name for name, _ in model.named_buffers()]
    modules = [(name, module, type(module)) for name, module in model.named_modules()]
    storages = [parameter.data_ptr() for _, parameter in parameters]
    convert(model)
    after = list(model.named_parameters())
    assert [(name, module, type(module)) for name, module in model.named_modules()] == modules
    assert [parameter.data_ptr() for _, parameter in after] == storages
    assert [name for name, _ in after] == [name for name, _ in parameters]
    assert all(new is old for (_, new), (_, old) in zip(after, parameters, strict=True))
    assert [name for name, _ in model.named_buffers()] == buffers
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())


def test_random_state_is_not_touched() -> None:
    model = tiny_model()
    before = torch.get_rng_state()
    convert(model)
    assert torch.equal(torch.get_rng_state(), before)


def test_hooks_of_modules_keep_working() -> None:
    model = tiny_model()
    calls: list[str] = []
    before = model.model.norm.register_forward_hook(lambda *_: calls.append("before"))
    model.model.norm.register_forward_pre_hook(lambda *_: calls.append("pre"))
    model.model.norm.register_forward_hook(
        lambda module, args, kwargs, output: calls.append("kwargs"), with_kwargs=True, always_call=True
    )
    convert(model)
    model.model.norm.register_forward_hook(lambda *_: calls.append("during"))
    logits(model, tokens())
    assert calls == ["pre", "before", "kwargs", "during"]
    before.remove()
    calls.clear()
    logits(model, tokens())
    assert calls == ["pre", "kwargs", "during"]
    revert(model)
    calls.clear()
    logits(model, tokens())
    assert calls == ["pre", "kwargs", "during"]


@pytest.mark.parametrize("operator", ["attention", "silu", "rms_norm", "cos"])
def test_operators_chooses(operator: str) -> None:
    model = tiny_model()
    report = convert(model, operators=(operator,))
    assert {entry.operator for entry in report.replaced} == {operator}
    with audit(model) as found:
        logits(model, tokens())
    left = {
        "attention": ("_scaled_dot_product_flash_attention_for_cpu", 2),
        "silu": ("silu", 2),
        "rms_norm": ("rsqrt", 5),
        "cos": ("cos", 1),
    }
    gone, _ = left.pop(operator)
    assert gone not in found.counts
    assert all(found.counts[op] == count for op, count in left.values())


def test_config_reaches_every_module() -> None:
    model, other = tiny_model(), tiny_model()
    convert(model, PRESETS["paper"].numerics)
    convert(other)
    plugs = [plug for module in model.modules() if (plug := plug_of(module)) is not None]
    assert len(plugs) >= 2 + 5 + 1
    assert {plug.numerics for plug in plugs} == {PRESETS["paper"].numerics}
    assert {layer.self_attn.spikeplug_attention.numerics for layer in model.model.layers} == {PRESETS["paper"].numerics}
    assert {layer.self_attn.spikeplug_attention.numerics for layer in other.model.layers} == {Numerics()}
    assert relative_error(logits(model, tokens()), logits(other, tokens())) > 10 * TOLERANCE


def test_a_module_in_two_places_stays_one_module() -> None:
    model = tiny_model()
    shared = nn.SiLU()
    for layer in model.model.layers:
        layer.mlp.act_fn = shared
    report = convert(model, exclude=r"layers\.1\.mlp")
    assert report.counts["silu"] == {"replaced": 0, "left": 2}  # one forward: excluded in one place, exact in both
    x = torch.randn(5)
    assert torch.equal(shared(x), nn.functional.silu(x))
    revert(model)
    convert(model)
    assert not torch.equal(shared(x), nn.functional.silu(x))
    revert(model)
    assert torch.equal(shared(x), nn.functional.silu(x))
    assert all(layer.mlp.act_fn is shared for layer in model.model.layers)


def test_nothing_is_logged_or_warned(family: str, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_model(family)
    library = logging.getLogger("transformers")
    library.addHandler(caplog.handler)
    try:
        caplog.clear()
        convert(model)
        logits(model, tokens())
        revert(model)
    finally:
        library.removeHandler(caplog.handler)
    assert not caplog.records


def test_toggling_is_cheap() -> None:
    model = tiny_model(num_hidden_layers=12)

    def toggle() -> float:
        start = time.perf_counter()
        convert(model)
        revert(model)
        return time.perf_counter() - start

    assert min(toggle() for _ in range(5)) < 0.1


def test_the_repr_says_what_is_spiking() -> None:
    model = tiny_model()
    before = repr(model)
    convert(model)
    assert "(act_fn): SiLUActivation(spiking silu)" in repr(model)
    assert "spiking rms_norm" in repr(model.model.norm)
    revert(model)
    assert repr(model) == before


def test_weights_may_be_loaded_after_the_conversion() -> None:
    """The model is built without memory, converted, and then given its weights."""
    source = tiny_model()
    with torch.device("meta"):
        model = type(source)(source.config.__class__(**source.config.to_dict())).eval()
    convert(model)
    model.load_state_dict(source.state_dict(), assign=True)
    model.model.rotary_emb = source.model.rotary_emb  # buffers that no state_dict holds
    exact = logits(source, tokens())
    assert relative_error(logits(model, tokens()), exact) < TOLERANCE


def test_a_large_model_converts_at_once_and_in_no_memory() -> None:
    numerics = LlamaConfig(
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(numerics)
    assert sum(parameter.numel() for parameter in model.parameters()) > 1e9
    start = time.perf_counter()
    report = convert(model)
    assert time.perf_counter() - start < 10
    assert report.counts["rms_norm"] == {"replaced": 33, "left": 0}
    assert report.leftovers == ()
    assert all(parameter.is_meta for parameter in model.parameters())
