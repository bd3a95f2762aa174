"""Test revert and roll-back: the same objects are back in their places, and give the same bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import DUPLICATES, logits, tiny_model, tokens
from torch import nn
from transformers import PreTrainedModel

from spikeplug.conversion import convert, plug, revert, swap
from spikeplug.errors import SpikeplugError


def snapshot(model: PreTrainedModel) -> dict[str, Any]:
    """Return everything that convert could leave changed, by identity."""
    return {
        "modules": [(name, id(module)) for name, module in model.named_modules()],
        "attributes": {name: list(vars(module)) for name, module in model.named_modules()},
        "parameters": [(name, id(parameter)) for name, parameter in model.named_parameters()],
        "config": id(model.config),
        "implementation": model.config._attn_implementation,
        "training": [module.training for module in model.modules()],
    }


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_revert_gives_the_same_objects_and_bits(family: str, implementation: str) -> None:
    model = tiny_model(family, implementation)
    before, exact = snapshot(model), logits(model, tokens())
    for _ in range(2):
        convert(model)
        assert model.config._attn_implementation == "spiking"
        revert(model)
        assert snapshot(model) == before
        assert torch.equal(logits(model, tokens()), exact)


@given(
    operators=st.sets(st.sampled_from(["attention", "silu", "rms_norm", "cos"]), min_size=1),
    exclude=st.sampled_from([None, r"layers\.0\.", r"layers\.1\.", "norm", "self_attn", r"mlp|self_attn$"]),
)
@settings(max_examples=30, deadline=None)
def test_any_request_is_undone_or_refused_whole(operators: set[str], exclude: str | None) -> None:
    model = tiny_model("qwen3")
    before, exact = snapshot(model), logits(model, tokens(1, 5))
    try:
        convert(model, operators=tuple(operators), exclude=exclude)
    except SpikeplugError:
        assert snapshot(model) == before
    else:
        assert snapshot(model) != before
        revert(model)
    assert snapshot(model) == before
    assert torch.equal(logits(model, tokens(1, 5)), exact)


def test_training_mode_and_weights_follow_the_model_through_revert() -> None:
    model = tiny_model()
    convert(model)
    model.train()
    model.to(torch.float64)
    replacement = nn.Parameter(torch.full((32,), 2.0, dtype=torch.float64))
    model.model.norm.weight = replacement
    revert(model)
    assert all(module.training for module in model.modules())
    assert model.model.norm.weight is replacement
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}


class PlannedError(Exception):
    pass


@pytest.mark.parametrize("calls_before_failure", [0, 1, 4, 10])
def test_a_failure_while_applying_is_rolled_back(monkeypatch: pytest.MonkeyPatch, calls_before_failure: int) -> None:
    model = tiny_model("qwen3")
    before, exact = snapshot(model), logits(model, tokens())
    attach, calls = plug.Plug.attach, 0

    def failing(self: plug.Plug) -> None:
        nonlocal calls
        calls += 1
        if calls == calls_before_failure + 1:
            raise PlannedError
        attach(self)

    monkeypatch.setattr(plug.Plug, "attach", failing)
    with pytest.raises(PlannedError):
        convert(model)
    assert snapshot(model) == before
    assert torch.equal(logits(model, tokens()), exact)


def test_a_failure_in_the_last_step_is_rolled_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    before, set_implementation = snapshot(model), swap._set_implementation

    def refuse(module: nn.Module, value: str) -> None:
        set_implementation(module, value)  # fails after the change was made
        if value == "spiking":
            raise PlannedError

    monkeypatch.setattr(swap, "_set_implementation", refuse)
    with pytest.raises(PlannedError):
        convert(model)
    assert snapshot(model) == before


def test_a_failure_while_planning_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    before = snapshot(model)

    def broken(*_: object) -> None:
        raise PlannedError

    monkeypatch.setattr(plug.Plug, "__init__", broken)
    with pytest.raises(PlannedError):
        convert(model)
    assert snapshot(model) == before


@pytest.mark.parametrize("duplicate", DUPLICATES)
def test_copies_of_a_converted_model_live_on_their_own(duplicate: Any) -> None:
    model = tiny_model("qwen3")
    exact = logits(model, tokens())
    convert(model, exclude=r"layers\.1\.self_attn$")
    spiking_logits = logits(model, tokens())
    twin = duplicate(model)
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in model.parameters()}
    assert torch.equal(logits(twin, tokens()), spiking_logits)
    revert(twin)
    assert torch.equal(logits(twin, tokens()), exact)
    assert torch.equal(logits(model, tokens()), spiking_logits)
    assert all(twin.get_parameter(name) is parameter for name, parameter in twin.named_parameters())
    revert(model)
    assert torch.equal(logits(model, tokens()), exact)


def test_a_reverted_model_is_saved_as_the_plain_one(tmp_path: Any) -> None:
    model = tiny_model()
    exact = logits(model, tokens())
    convert(model)
    revert(model)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert loaded.config._attn_implementation == "sdpa"
    assert not hasattr(loaded.config, "quantization_config")
    assert torch.equal(logits(loaded, tokens()), exact)


def test_plain_torch_models_are_copied_and_reverted_too() -> None:
    for duplicate in DUPLICATES:
        model, x = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(), torch.randn(2, 3, 8)
        with torch.no_grad():
            exact = model(x)
            convert(model)
            spiking = model(x)
            twin = duplicate(model)
            assert torch.equal(twin(x), spiking)
            revert(twin)
            assert torch.equal(twin(x), exact)
            assert torch.equal(model(x), spiking)


def test_reverting_what_is_not_converted() -> None:
    model = tiny_model()
    with pytest.raises(SpikeplugError, match="not converted"):
        revert(model)
    convert(model)
    revert(model.model)  # a part of it
    with pytest.warns(UserWarning, match="were moved, removed or wrapped"):
        revert(model)
    with pytest.raises(SpikeplugError, match="not converted"):
        revert(model)


def test_revert_of_a_model_that_was_rebuilt_since_says_what_is_missing() -> None:
    model = tiny_model()
    convert(model)
    norm, model.model.norm = model.model.norm, nn.Identity()
    with pytest.warns(UserWarning, match=r"the first 'model\.norm'"):
        assert revert(model) == ("model.norm",)
    model.model.norm = norm
    assert revert(norm) == ()
    exact = tiny_model()
    assert torch.equal(logits(model, tokens()), logits(exact, tokens()))
