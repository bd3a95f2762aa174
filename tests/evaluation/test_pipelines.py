"""An evaluation of the recipes of other pipelines, with spiking and with exact nonlinearities."""

from __future__ import annotations

import dataclasses
import json

import pytest
from tiny_model import tiny_model
from typer.testing import CliRunner

from spikeplug.cli import app
from spikeplug.conversion import recipes
from spikeplug.errors import SpikeplugError
from spikeplug.evaluation import Settings, evaluate
from spikeplug.measurement.recipes import PIPELINES, RECIPES, Recipe, as_recipe, read_recipe

SMALL = Settings(contexts=(16,), tokens=64, choices=2)


def test_the_names_are_those_of_the_recipes() -> None:
    assert set(PIPELINES) == set(recipes.RECIPES)
    assert not set(PIPELINES) & set(RECIPES)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("name", ["spikezip", "spikellm", "las"])
def test_a_pipeline_is_measured_beside_the_exact_model(name, exact, tokenizer):
    settings = dataclasses.replace(SMALL, recipe=Recipe(name=name, tokens=32, exact=exact))
    model = tiny_model()
    found = evaluate(model, tokenizer, settings)
    plain = evaluate(model, tokenizer, SMALL)
    assert found.perplexity[0].exact_perplexity == plain.perplexity[0].exact_perplexity
    assert found.perplexity[0].converted_perplexity != plain.perplexity[0].converted_perplexity
    assert (found.conversion.counts["silu"]["replaced"] == 0) == exact
    assert found.conversion.counts["neuron"]["replaced"] > 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "las", "bits": 8}, "bits and the recipe las exclude each other"),
        ({"name": "las", "weight_bits": 4}, "weight bits and the recipe las exclude each other: leave weight bits out"),
        ({"name": "las", "calibrated": False}, "the recipe las calibrates thresholds"),
        ({"name": "whole", "exact": True}, "the recipe whole has no form with exact nonlinearities"),
    ],
)
def test_recipes_out_of_their_domain(values, message):
    with pytest.raises(SpikeplugError, match=message):
        Recipe(**values)


def test_who_does_not_serve_pipelines_says_so() -> None:
    for refused in (lambda: as_recipe("las"), lambda: read_recipe("las")):
        with pytest.raises(SpikeplugError, match="the recipe las is not served here: choose operators or whole"):
            refused()
    for command in ("convert", "report", "energy", "fit", "generate"):
        arguments = {"convert": ["model", "folder"], "generate": ["A prompt"]}.get(command, [])
        result = CliRunner().invoke(app, [command, *arguments, "--recipe", "las"])
        assert result.exit_code
        assert "is not served here" in result.output


def test_the_record_says_which(tmp_path, folder):
    path = tmp_path / "found.json"
    result = CliRunner().invoke(
        app,
        [
            *("eval", str(folder), "--recipe", "las", "--operators", "none", "--context", "16", "--tokens", "32"),
            *("--choices", "0", "--calibration-tokens", "32", "--json", str(path)),
        ],
    )
    assert result.exit_code == 0, result.output
    arguments = json.loads(path.read_text())["arguments"]
    assert arguments["recipe"] == "las"
    assert arguments["operators"] == []
