"""An evaluation of the recipe whole: converted once, beside the float model; or a whole model beside its original."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tiny_model import tiny_model

import spikeplug
from spikeplug.errors import SpikeplugError
from spikeplug.evaluation import Settings, evaluate, run
from spikeplug.measurement.recipes import Recipe, spiking_copy
from spikeplug.numerics import Numerics

WHOLE = Recipe(name="whole", tokens=32)
SMALL = Settings(contexts=(16,), tokens=64, choices=2, recipe=WHOLE)


@pytest.fixture(scope="module")
def found(tokenizer):
    return evaluate(tiny_model(), tokenizer, SMALL)


def figures(found):
    """Everything but seconds and memory."""
    rows = [dataclasses.asdict(row) for row in (*found.perplexity, *found.choices)]
    return [
        {name: value for name, value in row.items() if "seconds" not in name and "ratio" not in name} for row in rows
    ]


def test_the_exact_arm_is_that_of_any_recipe(found, tokenizer):
    other = evaluate(tiny_model(), tokenizer, dataclasses.replace(SMALL, recipe="operators"))
    assert found.perplexity[0].exact_perplexity == other.perplexity[0].exact_perplexity
    assert found.perplexity[0].converted_perplexity != other.perplexity[0].converted_perplexity
    assert found.conversion.counts["matmul"] == {"replaced": 17, "left": 0}
    assert other.conversion.counts["matmul"]["replaced"] == 0


def test_the_model_is_converted_once_and_stays_as_it_was(model, tokenizer, monkeypatch):
    calls = []
    monkeypatch.setattr(run, "spiking_copy", lambda *a, **k: calls.append(a) or spiking_copy(*a, **k))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate(model, tokenizer, SMALL)
    assert len(calls) == 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    spikeplug.convert(model)  # it is not converted


def test_a_spiking_model_beside_its_original(found, model, tokenizer):
    spiking, report = spiking_copy(model, tokenizer, WHOLE, Numerics())
    beside = evaluate(model, tokenizer, dataclasses.replace(SMALL, recipe="operators"), spiking=spiking)
    assert figures(beside) == figures(found)
    assert beside.conversion.to_dict()["counts"] == report.counts


def test_a_model_that_is_not_spiking_is_refused(model, tokenizer):
    with pytest.raises(SpikeplugError, match="is not converted"):
        evaluate(model, tokenizer, SMALL, spiking=tiny_model())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"recipe": "half"}, "unknown recipe 'half'"),
        ({"recipe": Recipe(name="whole"), "operators": ("silu",)}, "a whole model replaces all"),
    ],
)
def test_recipes_that_are_refused(values, message):
    with pytest.raises(SpikeplugError, match=message):
        Settings(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bits": 8}, "bits and the recipe operators"),
        ({"weight_bits": 4}, "weight bits and the recipe operators"),
        ({"name": "whole", "weight_bits": 5}, "weight bits are 5: choose 8 or 4"),
        ({"name": "whole", "bits": 3}, "bits is 3"),
        ({"name": "whole", "bits": 8.5}, "bits is 8.5"),
        ({"name": "whole", "tokens": 0}, "calibration tokens are 0"),
        ({"name": "whole", "calibrated": False, "text": "a"}, "leave one of them out"),
        ({"name": "whole", "bit": 8}, "bit"),
    ],
)
def test_recipes_out_of_their_domain(values, message):
    with pytest.raises(SpikeplugError, match=message):
        Recipe(**values)
