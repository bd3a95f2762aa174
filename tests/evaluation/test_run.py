"""The whole run on the tiny model."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from spikeplug import saturation
from spikeplug.english import english_text
from spikeplug.errors import SpikeplugError
from spikeplug.evaluation import Settings, evaluate
from spikeplug.measurement.items import Question, continuation_items
from spikeplug.measurement.text import encode
from spikeplug.presets import PRESETS

SMALL = Settings(contexts=(16, 64), tokens=200, choices=5)


class Unchanged:
    """The report of a conversion that changes nothing."""

    def to_dict(self):
        return {"model_class": "none", "counts": {}, "entries": []}


@pytest.fixture
def no_conversion(monkeypatch):
    monkeypatch.setattr("spikeplug.conversion.convert", lambda *args, **kwargs: Unchanged())
    monkeypatch.setattr("spikeplug.conversion.revert", lambda model: None)


def test_the_exact_arm_is_a_plain_evaluation(model, tokenizer):
    found = evaluate(model, tokenizer, SMALL)
    ids = torch.tensor(encode(tokenizer, english_text()))
    for result, context, windows in zip(found.perplexity, (16, 64), (12, 3), strict=True):
        batch = ids[: context * windows].view(windows, context)
        with torch.no_grad():
            log_p = model(input_ids=batch).logits[:, :-1].double().log_softmax(-1)
        nll = -log_p.gather(-1, batch[:, 1:, None]).mean()
        assert (result.context, result.windows) == (context, windows)
        assert result.exact_perplexity == pytest.approx(nll.exp().item(), rel=1e-6)
        assert abs(result.change_percent) < 0.1
        assert 0 < result.mean_kl <= result.max_kl < 1e-3
        assert result.time_ratio == result.converted_seconds / result.exact_seconds
    assert [result.task for result in found.choices] == ["continuation"]
    assert found.seconds >= sum(r.exact_seconds + r.converted_seconds for r in (*found.perplexity, *found.choices))


def test_a_model_beside_itself(model, tokenizer, no_conversion):
    found = evaluate(model, tokenizer, SMALL)
    for result in found.perplexity:
        assert (result.mean_kl, result.max_kl, result.change_percent, result.agreement_percent) == (0, 0, 0, 100)
    for result in found.choices:
        assert result.agreement_percent == 100
        assert result.exact_percent == result.converted_percent


def test_repeated_runs_agree(model, tokenizer):
    def figures(found):
        values = found.to_dict()
        for result in (*values["perplexity"], *values["choices"]):
            for name in ("exact_seconds", "converted_seconds", "time_ratio"):
                del result[name]
        return {**values, "seconds": 0}

    assert figures(evaluate(model, tokenizer, SMALL)) == figures(evaluate(model, tokenizer, SMALL))


def test_the_model_comes_back_as_it_was(model, tokenizer):
    model.train()
    model.model.layers[0].eval()
    modes = {name: module.training for name, module in model.named_modules()}
    modules = dict(model.named_modules())
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluate(model, tokenizer, SMALL)
    assert dict(model.named_modules()) == modules
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_progress_ends_at_the_total(model, tokenizer):
    received = []
    evaluate(model, tokenizer, SMALL, progress=lambda *report: received.append(report))
    total = 12 * 16 + 3 * 64 + sum(i.tokens for i in continuation_items(range(10_000), 5, 0))
    assert received[0] == ("warm-up", 0, total)
    assert received[-1] == ("continuation", total, total)
    assert [done for _, done, _ in received] == sorted(done for _, done, _ in received)
    assert list(dict.fromkeys(stage for stage, *_ in received)) == [
        "warm-up",
        "context 16",
        "context 64",
        "continuation",
    ]


def test_tasks_follow_the_one_made_from_the_text(model, tokenizer):
    questions = (Question("one", ("two", "three"), 0, "line 1"), Question("four", ("a", "b", "c"), 2, "line 2"))
    found = evaluate(model, tokenizer, dataclasses.replace(SMALL, tasks=(("mine", questions),)))
    assert [(result.task, result.items) for result in found.choices] == [("continuation", 5), ("mine", 2)]


def test_saturations_are_those_of_this_run_without_the_warm_up(model, tokenizer, monkeypatch, no_conversion):
    forward = model.forward

    def counting(*args, **kwargs):
        saturation.record("test: forward", torch.ones(1, dtype=torch.bool))
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", counting)
    saturation.record("before", torch.ones(5, dtype=torch.bool))
    with saturation.counting() as outer:
        found = evaluate(model, tokenizer, dataclasses.replace(SMALL, contexts=(64,)))
    windows, items, warm_up = 2 * 3, 2 * 2 * 5, 2  # both arms; an item is a prompt and its choices
    assert found.saturations == {"test: forward": windows + items}
    # The caller's counts are left alone, and go on.
    assert outer == {"test: forward": windows + items + warm_up}
    assert saturation.saturations() == {"before": 5, "test: forward": windows + items + warm_up}


def test_without_items(model, tokenizer):
    found = evaluate(model, tokenizer, dataclasses.replace(SMALL, choices=0))
    assert found.choices == ()
    assert len(found.perplexity) == 2
    only = evaluate(
        model,
        tokenizer,
        dataclasses.replace(SMALL, choices=0, tasks=(("mine", (Question("a", ("b", "c"), 0, "x"),)),)),
    )
    assert [result.task for result in only.choices] == ["mine"]


def test_a_preset_by_name():
    assert Settings(numerics="paper").numerics == PRESETS["paper"].numerics
    assert Settings().numerics == PRESETS["default"].numerics


def test_operators_numerics_and_exclude_reach_the_conversion(model, tokenizer):
    settings = dataclasses.replace(SMALL, operators=("silu",), exclude=r"layers\.0", numerics=PRESETS["paper"].numerics)
    report = evaluate(model, tokenizer, settings).conversion.to_dict()
    replaced = [entry["path"] for entry in report["entries"] if entry["action"] == "replaced"]
    assert replaced == ["model.layers.1.mlp.act_fn"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contexts": ()}, "context"),
        ({"contexts": (0,)}, "context is 0"),
        ({"contexts": (64, -1)}, "context is -1"),
        ({"contexts": (1,)}, "context is 1; it must be 2"),
        ({"contexts": (64, 64)}, "given twice"),
        ({"tokens": 0}, "tokens is 0"),
        ({"tokens": 100}, "tokens is 100, fewer than one window of 2048"),
        ({"numerics": "nope"}, "unknown preset 'nope'"),
        ({"choices": -1}, "choices is -1"),
        ({"nope": 1}, "'nope' is not a field of Settings; the fields are "),
        ({"operators": ("gelux",)}, "unknown operator 'gelux'"),
        ({"operators": ()}, "operators"),
        ({"exclude": "("}, "not a regular expression"),
    ],
    ids=str,
)
def test_settings_out_of_their_domain(changes, message):
    with pytest.raises(SpikeplugError, match=message):
        Settings(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contexts": (16, 257), "tokens": 257}, "context of 257 is above the model's 256 positions"),
        ({"contexts": (64,), "text": "short"}, "has 5 tokens, fewer than the context of 64"),
        ({"contexts": (4,), "text": ""}, "has 0 tokens"),
        ({"contexts": (64,), "text": "x" * 100}, "100 tokens; 5 multiple-choice items need 192"),
        ({"choices": 10**9}, "1000000000 multiple-choice items need"),
        (
            {"tasks": (("mine", (Question("q" * 300, ("a", "b"), 0, "here"),)),)},
            "here: query and choice have 302 tokens",
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_before_the_model_runs(model, tokenizer, monkeypatch, changes, message):
    monkeypatch.setattr(model, "forward", lambda *args, **kwargs: pytest.fail("the model ran"))
    with pytest.raises(SpikeplugError, match=message):
        evaluate(model, tokenizer, dataclasses.replace(SMALL, **changes))


def test_a_tokenizer_of_another_model(model, tokenizer):
    model.resize_token_embeddings(50)
    with pytest.raises(SpikeplugError, match="the model has 50 embeddings: give the tokenizer that belongs"):
        evaluate(model, tokenizer, SMALL)


def test_another_architecture(tokenizer):
    model = GPT2LMHeadModel(GPT2Config(vocab_size=256, n_embd=32, n_layer=1, n_head=2, n_positions=64)).eval()
    found = evaluate(model, tokenizer, SMALL)
    assert found.perplexity[0].agreement_percent > 90


def test_a_conversion_that_yields_nan_is_reported_not_hidden(model, tokenizer, monkeypatch):
    def convert(model, *args, **kwargs):
        model.broken = model.lm_head.register_forward_hook(lambda module, inputs, output: output * math.nan)
        return Unchanged()

    monkeypatch.setattr("spikeplug.conversion.convert", convert)
    monkeypatch.setattr("spikeplug.conversion.revert", lambda model: model.broken.remove())
    found = evaluate(model, tokenizer, SMALL).to_dict()
    assert found["perplexity"][0]["converted_perplexity"] is None
    assert found["perplexity"][0]["mean_kl"] is None
    assert found["perplexity"][0]["exact_perplexity"] > 1
    assert found["choices"][0]["converted_percent"] == 0
