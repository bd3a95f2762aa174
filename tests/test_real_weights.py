"""The main job on SmolLM2-135M-Instruct: what the README promises, at both context lengths, and real activations
simulated neuron by neuron."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeplug
from spikeplug import Events, functional
from spikeplug.english import english_text
from spikeplug.evaluation.perplexity import Reading, perplexity_result, summed
from spikeplug.measurement.comparing import compare as compare_logits
from spikeplug.measurement.comparing import next_token_logits
from spikeplug.measurement.loading import find_source, load
from spikeplug.measurement.text import encode
from spikeplug.presets import PRESETS

pytestmark = pytest.mark.real_weights


@pytest.fixture(scope="module")
def smollm2() -> tuple[Any, Tensor]:
    """The model and the first 2,048 tokens of the reference text."""
    model, tokenizer = load(find_source(None))
    return model, torch.tensor([encode(tokenizer, english_text())[:2048]])


@pytest.fixture
def model(smollm2: tuple[Any, Tensor]) -> Iterator[Any]:
    """The exact model; reverted after the test, whatever happened in it."""
    yield smollm2[0]
    if hasattr(smollm2[0], "spikeplug_conversion"):
        spikeplug.revert(smollm2[0])


@pytest.fixture(scope="module")
def exact(smollm2: tuple[Any, Tensor]) -> dict[int, Tensor]:
    """Logits of the exact model at both context lengths."""
    with torch.inference_mode():
        return {context: next_token_logits(smollm2[0], smollm2[1][:, :context]) for context in (512, 2048)}


def compare(model: nn.Module, ids: Tensor, exact: Tensor, context: int) -> Any:
    with torch.inference_mode():
        logits = next_token_logits(model, ids[:, :context])  # type: ignore[arg-type]
    chunks = tuple(map(summed, compare_logits(exact, logits, ids[0, 1:context])))
    return perplexity_result(context, [Reading(chunks, 1.0, 1.0)])


@pytest.mark.parametrize("context", [512, 2048])
def test_the_default_stays_within_a_tenth_of_a_percent(
    model: Any, smollm2: tuple[Any, Tensor], exact: dict[int, Tensor], context: int
) -> None:
    report = spikeplug.convert(model)
    assert {name: report.counts[name] for name in ("attention", "silu", "rms_norm", "cos", "sin")} == {
        "attention": {"replaced": 30, "left": 0},
        "silu": {"replaced": 30, "left": 0},
        "rms_norm": {"replaced": 61, "left": 0},
        "cos": {"replaced": 1, "left": 0},
        "sin": {"replaced": 1, "left": 0},
    }
    assert report.leftovers == ()
    result = compare(model, smollm2[1], exact[context], context)
    assert abs(result.change_percent) < 0.1
    assert result.agreement_percent >= 99.0
    assert result.mean_kl < 1e-5
    assert spikeplug.saturations() == {}


def test_the_published_recipe_collapses_as_measured(
    model: Any, smollm2: tuple[Any, Tensor], exact: dict[int, Tensor]
) -> None:
    spikeplug.convert(model, PRESETS["paper"].numerics)
    result = compare(model, smollm2[1], exact[512], 512)
    assert 5 < result.change_percent < 60  # one window; +21 % over the text
    assert spikeplug.saturations()["softmax: exponent below -H"] > 0


def test_nothing_is_left(model: Any, smollm2: tuple[Any, Tensor]) -> None:
    ids = smollm2[1][:, :32]
    with torch.inference_mode(), spikeplug.audit(model) as before:
        model(ids)
    spikeplug.convert(model)
    with torch.inference_mode(), spikeplug.audit(model) as after:
        model(ids)
    assert before.counts["silu"] == 30
    assert before.counts["rsqrt"] == 61
    assert after.counts == {}


def test_revert_is_bit_identical(model: Any, smollm2: tuple[Any, Tensor]) -> None:
    ids = smollm2[1][:, :64]
    with torch.inference_mode():
        first = model(ids).logits
        spikeplug.convert(model)
        assert not torch.equal(model(ids).logits, first)
        spikeplug.revert(model)
        assert torch.equal(model(ids).logits, first)


def test_real_activations_simulated_neuron_by_neuron(model: Any, smollm2: tuple[Any, Tensor]) -> None:
    """Inputs of the norms and activations of the first, a middle and the last layer, outliers and all."""
    seen: dict[str, Tensor] = {}
    hooks = []
    for layer in (0, 15, 29):
        for name in ("input_layernorm", "mlp.act_fn"):
            path = f"model.layers.{layer}.{name}"
            module = model.get_submodule(path)
            hooks.append(module.register_forward_pre_hook(lambda _, args, path=path: seen.__setitem__(path, args[0])))
    with torch.inference_mode():
        model(smollm2[1][:, :12])
    for hook in hooks:
        hook.remove()
    assert len(seen) == 6
    for path, x in seen.items():
        x = x.clone()
        events = Events()
        if path.endswith("act_fn"):
            assert torch.equal(functional.silu(x), functional.silu(x, events=events))
        else:
            assert torch.equal(functional.rms_norm(x, None, 1e-5), functional.rms_norm(x, None, 1e-5, events=events))
        assert events.spikes > 0


def test_generation_agrees_with_the_exact_model(model: Any, smollm2: tuple[Any, Tensor]) -> None:
    options: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 2}
    prompt = smollm2[1][:, :40]
    expected = model.generate(prompt, **options)
    spikeplug.convert(model)
    assert torch.equal(model.generate(prompt, **options), expected)
    assert torch.equal(model.generate(prompt, use_cache=False, **options), expected)
